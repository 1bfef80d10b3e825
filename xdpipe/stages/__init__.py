"""The stages that xdpipe ships, one protocol or deed a file."""

from xdpipe.stages.decrement_ttl import DecrementTtl
from xdpipe.stages.headers import Headers
from xdpipe.stages.record import Record
from xdpipe.stages.set_addresses import SetAddresses
from xdpipe.stages.set_vlan import SetVlan
from xdpipe.stages.swap_addresses import SwapAddresses

__all__ = ["DecrementTtl", "Headers", "Record", "SetAddresses", "SetVlan", "SwapAddresses"]
