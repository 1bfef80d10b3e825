"""The stages that xdpipe ships, one protocol or deed a file."""

from xdpipe.stages.decap import Decap
from xdpipe.stages.headers import Headers
from xdpipe.stages.record import Record
from xdpipe.stages.swap_addresses import SwapAddresses

__all__ = ["Decap", "Headers", "Record", "SwapAddresses"]
