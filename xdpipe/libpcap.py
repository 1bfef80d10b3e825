"""The binding to libpcap, which compiles filters and reads and writes capture files.

libpcap is opened when this is imported, by the name of its ABI: Debian and its kin call it
libpcap.so.0.8 for what everybody else calls libpcap.so.1. What it declares: libpcap_build.py.
`ffi` and `lib` stay inside filter.py and capture.py.
"""

from typing import Any

from xdpipe import _libpcap
from xdpipe.errors import XdpipeError

ERRBUF_SIZE = 256  # bytes; PCAP_ERRBUF_SIZE
DLT_EN10MB = 1  # Ethernet, pcap-linktype(7)
TSTAMP_PRECISION_NANO = 1  # PCAP_TSTAMP_PRECISION_NANO
MAX_SNAPLEN = 262144  # bytes; MAXIMUM_SNAPLEN of pcap-int.h: the snapshot length that cuts nothing
NETMASK_UNKNOWN = 0xFFFFFFFF  # PCAP_NETMASK_UNKNOWN

_NAMES = ("libpcap.so.0.8", "libpcap.so.1")


ffi: Any = _libpcap.ffi


def _open() -> Any:
    for name in _NAMES:
        try:
            return ffi.dlopen(name)
        except OSError:
            continue
    raise XdpipeError(
        f"no {' or '.join(_NAMES)}; install libpcap: apt-get install libpcap0.8 "
        "(libpcap0.8t64 in Debian 13 and Ubuntu 24.04)"
    )


lib: Any = _open()
