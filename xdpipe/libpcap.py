"""The binding to libpcap: filters are compiled by it, capture files read and written.

`ffi` and `lib` are for filter.py and capture.py; the prototypes are those of pcap/pcap.h.
"""

from __future__ import annotations

from typing import Any

from cffi import FFI

from xdpipe.errors import XdpipeError

DLT_EN10MB = 1
"""Link type Ethernet (pcap-linktype(7))."""
MAX_SNAPLEN = 262144
"""Bytes of the longest packet that libpcap reads (MAXIMUM_SNAPLEN)."""

ffi = FFI()
ffi.cdef(
    """
    typedef struct pcap pcap_t;
    typedef struct pcap_dumper pcap_dumper_t;
    typedef struct _IO_FILE FILE;
    struct timeval { long tv_sec; long tv_usec; };
    struct pcap_pkthdr { struct timeval ts; uint32_t caplen; uint32_t len; };
    struct bpf_insn { uint16_t code; uint8_t jt; uint8_t jf; uint32_t k; };
    struct bpf_program { unsigned int bf_len; struct bpf_insn *bf_insns; };

    pcap_t *pcap_open_dead(int link_type, int snaplen);
    pcap_t *pcap_open_dead_with_tstamp_precision(int link_type, int snaplen, unsigned int precision);
    int pcap_compile(pcap_t *, struct bpf_program *, const char *, int optimize, uint32_t netmask);
    void pcap_freecode(struct bpf_program *);
    int pcap_offline_filter(const struct bpf_program *, const struct pcap_pkthdr *,
                            const unsigned char *);
    unsigned int bpf_filter(const struct bpf_insn *, const unsigned char *, unsigned int wire_len,
                            unsigned int caplen);
    char *pcap_geterr(pcap_t *);
    void pcap_close(pcap_t *);

    pcap_t *pcap_fopen_offline_with_tstamp_precision(FILE *, unsigned int precision, char *error);
    int pcap_next_ex(pcap_t *, struct pcap_pkthdr **, const unsigned char **);
    int pcap_datalink(pcap_t *);
    int pcap_snapshot(pcap_t *);
    const char *pcap_datalink_val_to_name(int);
    const char *pcap_datalink_val_to_description(int);
    FILE *pcap_file(pcap_t *);
    long ftell(FILE *);

    pcap_dumper_t *pcap_dump_fopen(pcap_t *, FILE *);
    void pcap_dump(unsigned char *, const struct pcap_pkthdr *, const unsigned char *);
    int pcap_dump_flush(pcap_dumper_t *);
    void pcap_dump_close(pcap_dumper_t *);
    """
)


def _open() -> Any:
    for name in ("libpcap.so.0.8", "libpcap.so.1"):  # Debian's name, everybody else's
        try:
            return ffi.dlopen(name)
        except OSError:
            continue
    raise XdpipeError("libpcap is missing; install it with: apt-get install libpcap0.8")


lib = _open()
