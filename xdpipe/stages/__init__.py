"""The stages that xdpipe ships, one protocol or deed a file; imported when asked for."""

from typing import TYPE_CHECKING

from xdpipe.later import imported_later

if TYPE_CHECKING:
    from xdpipe.key import Flow, Prefix
    from xdpipe.stages.count import Count
    from xdpipe.stages.decap import Decap
    from xdpipe.stages.decrement_ttl import DecrementTtl
    from xdpipe.stages.dns import Dns
    from xdpipe.stages.fit_mtu import FitMtu
    from xdpipe.stages.fix_checksums import FixChecksums
    from xdpipe.stages.flow_meter import FlowMeter
    from xdpipe.stages.headers import Headers
    from xdpipe.stages.histogram import Histogram
    from xdpipe.stages.http1 import Http1
    from xdpipe.stages.http2 import Http2
    from xdpipe.stages.map_addresses import MapAddresses
    from xdpipe.stages.measure import Measure
    from xdpipe.stages.rate_limit import RateLimit
    from xdpipe.stages.record import Record
    from xdpipe.stages.sample import Sample
    from xdpipe.stages.set_addresses import SetAddresses
    from xdpipe.stages.set_vlan import SetVlan
    from xdpipe.stages.swap_addresses import SwapAddresses
    from xdpipe.stages.tcp_streams import TcpStreams
    from xdpipe.stages.tls import Tls
    from xdpipe.stages.top import Top
    from xdpipe.stages.where import Where

__all__ = [
    "Count",
    "Decap",
    "DecrementTtl",
    "Dns",
    "FitMtu",
    "FixChecksums",
    "Flow",
    "FlowMeter",
    "Headers",
    "Histogram",
    "Http1",
    "Http2",
    "MapAddresses",
    "Measure",
    "Prefix",
    "RateLimit",
    "Record",
    "Sample",
    "SetAddresses",
    "SetVlan",
    "SwapAddresses",
    "TcpStreams",
    "Tls",
    "Top",
    "Where",
]

if not TYPE_CHECKING:  # which would take any name then
    __getattr__ = imported_later(
        __name__,
        {
            "Count": "xdpipe.stages.count",
            "Decap": "xdpipe.stages.decap",
            "DecrementTtl": "xdpipe.stages.decrement_ttl",
            "Dns": "xdpipe.stages.dns",
            "FitMtu": "xdpipe.stages.fit_mtu",
            "FixChecksums": "xdpipe.stages.fix_checksums",
            "Flow": "xdpipe.key",
            "FlowMeter": "xdpipe.stages.flow_meter",
            "Headers": "xdpipe.stages.headers",
            "Histogram": "xdpipe.stages.histogram",
            "Http1": "xdpipe.stages.http1",
            "Http2": "xdpipe.stages.http2",
            "MapAddresses": "xdpipe.stages.map_addresses",
            "Measure": "xdpipe.stages.measure",
            "Prefix": "xdpipe.key",
            "RateLimit": "xdpipe.stages.rate_limit",
            "Record": "xdpipe.stages.record",
            "Sample": "xdpipe.stages.sample",
            "SetAddresses": "xdpipe.stages.set_addresses",
            "SetVlan": "xdpipe.stages.set_vlan",
            "SwapAddresses": "xdpipe.stages.swap_addresses",
            "TcpStreams": "xdpipe.stages.tcp_streams",
            "Tls": "xdpipe.stages.tls",
            "Top": "xdpipe.stages.top",
            "Where": "xdpipe.stages.where",
        },
    )
