"""The stages that xdpipe ships, one protocol or deed a file."""

from xdpipe.stages.headers import Headers
from xdpipe.stages.http1 import Http1
from xdpipe.stages.record import Record
from xdpipe.stages.swap_addresses import SwapAddresses
from xdpipe.stages.tcp_streams import TcpStreams
from xdpipe.stages.tls import Tls

__all__ = ["Headers", "Http1", "Record", "SwapAddresses", "TcpStreams", "Tls"]
