"""The stages that xdpipe ships, one protocol or deed a file."""

from xdpipe.stages.flow_meter import FlowMeter
from xdpipe.stages.headers import Headers
from xdpipe.stages.record import Record
from xdpipe.stages.swap_addresses import SwapAddresses

__all__ = ["FlowMeter", "Headers", "Record", "SwapAddresses"]
