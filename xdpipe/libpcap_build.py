# SPDX-License-Identifier: Apache-2.0
"""Declare libpcap's functions to cffi, in its ABI mode, as xdpipe._libpcap; named by setup.py.

No compiler and no header is needed, so the declarations are those of pcap/pcap.h and pcap/bpf.h of
libpcap 1.10, which keeps its ABI (`pcap_t` and `pcap_dumper_t` are opaque). They are read when
xdpipe is built, since reading them takes as long as importing all else that a filter needs.
"""

from cffi import FFI

ffi = FFI()
ffi.set_source("xdpipe._libpcap", None)
ffi.cdef(
    """
    typedef struct pcap pcap_t;
    typedef struct pcap_dumper pcap_dumper_t;
    struct timeval { long tv_sec; long tv_usec; };
    struct pcap_pkthdr { struct timeval ts; uint32_t caplen; uint32_t len; };
    struct bpf_insn { uint16_t code; uint8_t jt; uint8_t jf; uint32_t k; };
    struct bpf_program { unsigned int bf_len; struct bpf_insn *bf_insns; };

    pcap_t *pcap_open_dead(int link_type, int snaplen);
    pcap_t *pcap_open_dead_with_tstamp_precision(int link_type, int snaplen,
        unsigned int precision);
    pcap_t *pcap_open_offline_with_tstamp_precision(const char *path, unsigned int precision,
        char *errbuf);
    pcap_t *pcap_fopen_offline_with_tstamp_precision(FILE *stream, unsigned int precision,
        char *errbuf);
    void pcap_close(pcap_t *handle);
    char *pcap_geterr(pcap_t *handle);

    int pcap_compile(pcap_t *handle, struct bpf_program *program, const char *filter,
        int optimize, uint32_t netmask);
    void pcap_freecode(struct bpf_program *program);
    int pcap_offline_filter(const struct bpf_program *program, const struct pcap_pkthdr *header,
        const unsigned char *packet);
    unsigned int bpf_filter(const struct bpf_insn *program, const unsigned char *packet,
        unsigned int wire_len, unsigned int captured_len);

    int pcap_next_ex(pcap_t *handle, struct pcap_pkthdr **header, const unsigned char **data);
    int pcap_datalink(pcap_t *handle);
    const char *pcap_datalink_val_to_name(int link_type);
    const char *pcap_datalink_val_to_description(int link_type);
    int pcap_snapshot(pcap_t *handle);
    int pcap_is_swapped(pcap_t *handle);
    int pcap_major_version(pcap_t *handle);
    FILE *pcap_file(pcap_t *handle);

    pcap_dumper_t *pcap_dump_open(pcap_t *handle, const char *path);
    pcap_dumper_t *pcap_dump_fopen(pcap_t *handle, FILE *stream);
    void pcap_dump(unsigned char *dumper, const struct pcap_pkthdr *header,
        const unsigned char *data);
    FILE *pcap_dump_file(pcap_dumper_t *dumper);
    int pcap_dump_flush(pcap_dumper_t *dumper);
    void pcap_dump_close(pcap_dumper_t *dumper);

    /* libc's, found through libpcap, which is linked with it */
    FILE *fopen(const char *path, const char *mode);
    FILE *fdopen(int fd, const char *mode);
    long ftell(FILE *stream);
    int ferror(FILE *stream);
    int fclose(FILE *stream);
    """
)
