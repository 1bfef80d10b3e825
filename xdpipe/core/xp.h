/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the C core offers to Python and to native stages. The part between the cdef marks is also
 * what cffi reads (build.py), so that there is one definition of it.
 */
#ifndef XP_H
#define XP_H

#include <stddef.h>
#include <stdint.h>

#include "counters.h"
#include "xp_batch.h"

#define XP_BLOCK (1u << 21)
#define XP_CONTROL (-1)
#define XP_PORTS_MAX 8 /* of a worker */
#define XP_SET_RING 8192 /* keys on a worker's ring, a power of two */
#define XP_TAP_LEAVING 63 /* the point behind all stages; k: the one behind k of them */
#define XP_TAPS_MAX 8
#define XP_TX_METADATA 24 /* bytes before a packet that goes out: struct xp_tx_metadata */

/* The counters of a worker's port; see XP_COUNTERS. */
struct xp_counters {
#define X(name, doc) uint64_t name;
	XP_COUNTERS(X)
#undef X
};

/* cdef begin */
/* the first of a stage's counts; its own follow */
enum xp_stage_count {
	XP_STAGE_PACKETS,
	XP_STAGE_NS,
	XP_STAGE_ERRORS,
	XP_STAGE_OVER_BUDGET, /* batches that took longer than its budget */
	XP_STAGE_MAX_NS,      /* the longest batch */
	XP_STAGE_OWN
};

struct xp_name {
	const char *name;
	const char *doc;
	uint64_t value;
};

struct xp_column {
	const char *name;
	const char *type;     /* C type */
	uint32_t width;       /* values per packet */
	uint32_t item_size;   /* bytes of one value */
	uint32_t writable;    /* by array stages */
	uint32_t field;       /* offset of the pointer in struct xp_batch */
	const char *provider; /* "receive", or the stage that fills it */
	const char *doc;
};

extern const struct xp_column xp_columns[];
extern const uint32_t xp_n_columns;
extern const struct xp_name xp_counter_names[];
extern const uint32_t xp_n_counters;

/* Names of the values of a column: bits, or 1, 2, ... */
struct xp_enum {
	const char *column;
	const struct xp_name *names;
	uint32_t n;
};
extern const struct xp_enum xp_enums[];
extern const uint32_t xp_n_enums;

/*
 * One ring, seen from user space. On fill and tx we produce, on rx and completion we consume.
 * The 32-bit indices run freely and wrap; index & mask is the slot.
 */
struct xp_ring {
	uint32_t *producer;
	uint32_t *consumer;
	uint32_t *flags;
	void *entries;
	uint32_t mask;
	uint32_t size;
	uint32_t cached_producer;
	uint32_t cached_consumer;
	void *map; /* what was mapped, for unmapping; NULL where the memory is somebody else's */
	size_t map_size;
};

/*
 * Frames of one UMEM and the list of those that are free; `free` is a stack of addresses.
 *
 * Frames lie side by side, but none across two blocks of XP_BLOCK bytes, a huge page: the kernel
 * would throw away a frame that lies on two pages which are no neighbours. With a frame_size that
 * is a power of two that is so by itself.
 */
struct xp_umem {
	uint8_t *base;
	uint64_t size;
	uint32_t frame_size;
	uint32_t n_frames;
	uint32_t n_free;
	uint64_t *free;
};

struct xp_xsk {
	int fd;
	struct xp_ring fill;
	struct xp_ring rx;
	struct xp_ring tx;
	struct xp_ring completion;
};

/* A column of a user's stage: its rows, one for each packet of the batch's capacity. */
struct xp_rows {
	void *at;
	uint32_t size; /* bytes of a row */
};

struct xp_stage {
	xp_stage_fn *run;
	void *state;
	uint64_t *counts;   /* enum xp_stage_count, then the stage's own counters */
	uint64_t budget_ns; /* for a batch; UINT64_MAX: as long as it takes */
	uint32_t number;    /* in the chain, from 1 */
	uint32_t n_zeroed;
	struct xp_rows *zeroed; /* columns whose rows are 0 as the stage begins */
};

/* Where the reader of a ring of blocks is: it has written all before down, to that file, up to there. */
struct xp_blocks_at {
	uint64_t consumer; /* bytes */
	uint64_t packets;
	uint64_t file;
	uint64_t offset;
};

struct xp_blocks;
typedef unsigned int xp_bpf_filter_fn(const void *program, const uint8_t *packet,
				      unsigned int wire_len, unsigned int len);

/* Which packets are copied, when, and how. */
struct xp_tap {
	struct xp_blocks *blocks;
	uint64_t points;      /* bit k: when k stages have run; XP_TAP_LEAVING */
	uint32_t verdicts;    /* bit v: those that have it so far */
	uint32_t snaplen;     /* bytes of a packet at the most */
	uint32_t interface;   /* number in the capture of the first point's first port */
	uint32_t n_ports;     /* the numbers of the next point's begin so much further */
	const void *program;  /* struct bpf_insn *: packets that it takes; NULL: all */
	xp_bpf_filter_fn *run_program; /* libpcap's bpf_filter */
	/* pcapng options by verdict and who decided, n_by of those: number v * n_by + by is options +
	 * option_at[number], up to the next one's. NULL: none */
	const uint8_t *options;
	const uint32_t *option_at;
	uint32_t n_verdicts;
	uint32_t n_by;
	uint64_t copied;
	uint64_t lost;
};

/* The taps of a worker that come and go. */
struct xp_taps {
	struct xp_tap *taps[8]; /* XP_TAPS_MAX */
	uint32_t n;
	uint32_t by_default;  /* what stands for the pipeline's default where who decided is told */
	uint8_t *decided_by;  /* for each packet of the batch: the stage's number, or 0 */
};

/* How packets are given back to the kernel. */
struct xp_pass {
	int prog_fd;
	uint32_t ifindex; /* that they seem to come by */
	void *inject;     /* struct xp_inject, shared with the program */
	uint32_t n;       /* packets that wait in it, */
	uint32_t used;    /* and their bytes */
};

struct xp_tx_metadata;

/* A port of a worker: a queue of an interface. Its frames are the worker's. */
struct xp_port {
	struct xp_xsk *xsk;
	struct xp_counters *counters;
	struct xp_pass *pass;	  /* NULL: there is no way back to the kernel */
	uint32_t tx_checksum;	  /* NIC or kernel fill in checksums (XDP_TX_METADATA) */
	uint32_t hints;		  /* bpf/hints.h stands before each packet */
	/* what counters said when the socket was new and its ring indices 0 */
	uint64_t received_before, received_more_before, filled_before, tx_submitted_before,
		tx_submitted_more_before, tx_completed_before, tx_completed_more_before;
};

struct xp_worker {
	struct xp_port *ports;
	uint32_t n_ports;         /* 1 to XP_PORTS_MAX */
	uint32_t next_port;       /* whose rx ring is looked at first */
	struct xp_umem *umem;
	struct xp_batch *batch;
	struct xp_stage *stages;  /* the native stages at the head of the chain, */
	uint32_t n_stages;        /* which xp_cycle runs itself */
	struct xp_stage **idle;   /* the stages that run on an empty batch when no packet has come */
	uint32_t n_idle;
	uint32_t default_verdict; /* for packets that no stage decided */
	uint32_t spin_us;         /* look at an empty rx ring for so long before poll */
	uint32_t always_wake;     /* bound without need_wakeup: the rings do not say when to */
	uint32_t multi_buffer;    /* packets may come in several frames (XDP_USE_SG) */
	uint32_t hints;           /* a port has them */
	/* Where packets may come with such checksums and the chain has no Headers: its state, for the
	 * columns that filling them in takes; else NULL. */
	void *headers;
	uint32_t busy_poll;       /* run the driver's receive work in our own calls */
	int control_fd;           /* poll returns when it is readable */
	int poll_timeout_ms;
	/* The supervisor adds one for each message that it wrote to the control socket; the worker
	 * sets attended to what it has read, and returns from its loop while they differ. */
	const uint32_t *attention;
	uint32_t attended;
	uint32_t *tx_scratch;   /* batch capacity, for each port */
	uint64_t busy_since_ns; /* 0: idle */
};

/* socket.c: all return 0 or -errno */
int xp_xsk_open(struct xp_xsk *xsk);
int xp_umem_register(int fd, void *base, uint64_t size, uint32_t frame_size,
		     uint32_t tx_metadata);
int xp_xsk_busy_poll(int fd, uint32_t timeout_us, uint32_t budget);
int xp_xsk_ring_sizes(int fd, uint32_t fill, uint32_t rx, uint32_t tx, uint32_t completion);
int xp_xsk_map(struct xp_xsk *xsk, uint32_t fill, uint32_t rx, uint32_t tx, uint32_t completion);
void xp_xsk_unmap(struct xp_xsk *xsk);
int xp_xsk_bind(int fd, uint32_t ifindex, uint32_t queue, uint16_t flags, int umem_fd);
int xp_xsk_zero_copy(int fd);
int xp_xsk_statistics(int fd, uint64_t out[6]);
int xp_xsk_tx_budget(int fd, uint32_t budget);
void xp_xsk_kick(int fd);

/* ring.c */
void xp_ring_init(struct xp_ring *ring, uint32_t *producer, uint32_t *consumer, uint32_t *flags,
		  void *entries, uint32_t size, int we_produce);
uint32_t xp_ring_count(const struct xp_ring *ring);
uint32_t xp_fill_submit(struct xp_ring *fill, const uint64_t *addrs, uint32_t n);
uint32_t xp_completion_consume(struct xp_ring *completion, uint64_t *addrs, uint32_t n);
uint32_t xp_tx_submit(struct xp_ring *tx, const uint64_t *addrs, const uint32_t *lens, uint32_t n);
uint32_t xp_rx_consume(struct xp_ring *rx, uint64_t *addrs, uint32_t *lens, uint32_t n);

/* recover.c */
uint64_t xp_frame_addr(const struct xp_umem *umem, uint32_t frame);
int xp_adopt(struct xp_worker *w, uint8_t *marks);
int xp_held_by_kernel(const struct xp_xsk *xsk);
void xp_reconcile(struct xp_worker *w);
void xp_abandon(struct xp_worker *w);

/* receive.c */
int xp_receive(struct xp_worker *w);

/* send.c */
void xp_dispatch(struct xp_worker *w);
void xp_take_back(struct xp_worker *w);
void xp_reclaim(struct xp_worker *w);
void xp_kick_tx(const struct xp_worker *w, struct xp_port *out);
int xp_drain_tx(struct xp_worker *w, uint32_t timeout_ms);

/* pass.c */
uint64_t xp_inject_bytes(void);
uint64_t xp_injected(const struct xp_pass *pass);
uint64_t xp_inject_refused(const struct xp_pass *pass);
int xp_pass_probe(struct xp_pass *pass);
void xp_pass_flush(struct xp_port *port);
void xp_pass_packet(struct xp_worker *w, uint32_t i);

/* loop.c */
void xp_refill(struct xp_worker *w);
void xp_service(struct xp_worker *w);
void xp_wait(struct xp_worker *w);
void xp_zero_rows(const struct xp_batch *batch, const struct xp_rows *rows, uint32_t n);
void xp_run_stages(struct xp_batch *batch, struct xp_stage *stages, uint32_t n);
int xp_cycle(struct xp_worker *w);
int xp_run(struct xp_worker *w);
void xp_publish(struct xp_worker *w);

/* batch.c */
uint64_t xp_batch_bytes(uint32_t capacity);
struct xp_batch *xp_batch_init(void *arena, uint32_t capacity, uint8_t *base, uint64_t size);
uint32_t xp_batch_n(const struct xp_batch *b);
uint32_t xp_batch_port(const struct xp_batch *b);
const uint8_t *xp_batch_texts(const struct xp_batch *b);
uint32_t xp_batch_n_text(const struct xp_batch *b);
const struct xp_piece *xp_batch_pieces(const struct xp_batch *b);
void xp_batch_set_port(struct xp_batch *b, uint32_t port, uint32_t n_ports);
void xp_batch_set_n(struct xp_batch *b, uint32_t n);
void xp_batch_none(struct xp_batch *b, uint64_t now_ns);
void *xp_batch_column(struct xp_batch *b, uint32_t column);
void xp_batch_whole(struct xp_batch *b);
void xp_batch_may_be_partial(struct xp_batch *b);
void xp_batch_tells_tx_times(struct xp_batch *b);
uint32_t xp_batch_n_sent(const struct xp_batch *b);
uint64_t *xp_batch_sent_tag(struct xp_batch *b);
uint64_t *xp_batch_sent_time_ns(struct xp_batch *b);
void xp_batch_read(const struct xp_batch *b, uint32_t packet, uint8_t *out, uint32_t n);
void xp_batch_set_taps(struct xp_batch *b, struct xp_taps *taps);
void xp_load(const struct xp_batch *b, const int32_t *offsets, uint32_t step, void *out,
	     uint32_t width, uint64_t missing);
void xp_load_bytes(const struct xp_batch *b, const int32_t *offsets, uint32_t step, uint8_t *out,
		   uint32_t width);
uint32_t xp_store(struct xp_batch *b, const int32_t *offsets, uint32_t step,
		  const uint64_t *values, uint32_t value_step, const uint8_t *where,
		  uint32_t width, int fix_checksum);
uint32_t xp_decide(struct xp_batch *b, const uint8_t *where, uint32_t verdict);
uint32_t xp_forward(struct xp_batch *b, const uint8_t *where, uint32_t port);

/* one_packet.c */
uint64_t xp_one_load(const struct xp_batch *b, uint32_t i, int64_t at, uint32_t width,
		     uint64_t missing);
uint32_t xp_one_store(struct xp_batch *b, uint32_t i, int64_t at, uint64_t value, uint32_t width,
		      int fix_checksum);
uint32_t xp_one_decide(struct xp_batch *b, uint32_t i, uint32_t verdict, uint32_t port);
int xp_one_replace(struct xp_batch *b, uint32_t i, const uint8_t *data, uint32_t n);

/* checksum.c */
uint32_t xp_one_want_checksum(struct xp_batch *b, uint32_t i);
uint32_t xp_want_checksum(struct xp_batch *b, const uint8_t *where);
uint32_t xp_note_partial_checksums(struct xp_batch *b);
void xp_fill_checksum_of_outer(struct xp_batch *b, uint32_t i);
uint32_t xp_note_partial_checksum_of_inner(struct xp_batch *b, uint32_t i);
void xp_fill_checksums(struct xp_batch *b);
void xp_forget_checksums(struct xp_batch *b);
void xp_finish_checksum(const struct xp_batch *b, uint32_t i, struct xp_tx_metadata *ask);

/* tx_metadata.c */
uint32_t xp_want_tx_times(struct xp_batch *b, const uint8_t *where, const uint64_t *tags);
void xp_forget_tx_times(struct xp_batch *b);
uint32_t xp_leaving(const struct xp_worker *w, const struct xp_port *out, uint32_t i);
uint32_t xp_put_tag_back(struct xp_batch *b, uint32_t i);
void xp_has_left(struct xp_worker *w, uint64_t addr);

/* set_ring.c */
struct xp_set_key {
	uint32_t set;
	uint32_t length; /* of the prefix; bits */
	uint8_t address[16];
};
uint64_t xp_set_ring_bytes(void);
uint64_t xp_set_recent_bytes(void);
uint64_t xp_set_ring_lost(const void *memory);
uint32_t xp_set_ring_put(void *memory, void *recent, uint32_t set, const uint8_t *addresses,
			 uint32_t n, uint32_t length4, uint32_t length6);
uint32_t xp_set_ring_take(void *memory, struct xp_set_key *keys, uint32_t n);

/* blocks.c */
uint64_t xp_blocks_bytes(uint64_t size);
struct xp_blocks *xp_blocks_map(int fd, uint64_t size, int populate);
void xp_blocks_unmap(struct xp_blocks *blocks);
void xp_blocks_attach(struct xp_blocks *blocks);
uint64_t xp_blocks_attached(const struct xp_blocks *blocks);
uint64_t xp_blocks_produced(const struct xp_blocks *blocks);
uint64_t xp_blocks_packets(const struct xp_blocks *blocks);
uint64_t xp_blocks_lost(const struct xp_blocks *blocks);
struct xp_blocks_at xp_blocks_position(const struct xp_blocks *blocks);
int64_t xp_blocks_peek(const struct xp_blocks *blocks, uint64_t from, uint8_t **data);
uint64_t xp_blocks_whole(const uint8_t *data, uint64_t n, uint64_t max_bytes, uint64_t max_packets,
			 uint64_t *packets);
void xp_blocks_release(struct xp_blocks *blocks, struct xp_blocks_at at);

/* uring.c */
struct xp_uring;
struct xp_uring *xp_uring_open(uint32_t n);
void xp_uring_close(struct xp_uring *u);
int xp_uring_fd(const struct xp_uring *u);
int xp_uring_write(struct xp_uring *u, int fd, const uint8_t *data, uint32_t n, uint64_t offset,
		   uint64_t tag);
int xp_uring_reap(struct xp_uring *u, uint64_t *tag, int32_t *result);

/* btf.c */
void xp_btf_functions(const uint8_t *types, size_t size, const uint32_t *names, uint32_t n,
		      uint32_t *numbers);

/* tap.c */
void xp_tap_received(struct xp_batch *b);
void xp_tap_stage(struct xp_batch *b, uint32_t n);
void xp_tap_leaving(struct xp_batch *b, uint32_t default_verdict);

/* capture.c */
int xp_fill_from_capture(struct xp_batch *b, void *next_ex, void *handle);

/* a native stage that has no state but its counters; all others have a header in stages/ */
struct xp_counts_state {
	uint64_t *counters; /* the stage's own, in the order of its `counters` */
};
int xp_stage_nothing(struct xp_batch *batch, void *state);
/* cdef end */

#endif
