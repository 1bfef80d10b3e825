"""AF_XDP TX, zero copy or copy: packets go from where they lie; core/traffic/engine_xdp.c."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xdpipe.bpf_link import XdpLink
from xdpipe.bpf_program import PASS, Program
from xdpipe.core._core import ffi, lib
from xdpipe.counters import CountersPage
from xdpipe.drivers import quirks
from xdpipe.traffic.engine import MEMORY, Engine, Lane
from xdpipe.umem import FRAMES_MAX, Geometry, Umem
from xdpipe.xsk import Xsk

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from xdpipe.link import Link

CHUNK = 4096
"""Bytes of a frame: many small packets lie in one, each a descriptor of its own."""
_CARRIER_S = 10.0
"""How long a link may be down when it is set up for zero copy."""
_ETHERNET_AND_TWO_TAGS = 14 + 2 * 4


class XdpEngine(Engine):
    """A socket and a UMEM for each queue.

    Args:
        link: the interface.
        queues: transmit queues; a lane each.
        mode: `auto`, `zerocopy` or `copy`.
        stop: asked now and then whether to end.

    Raises:
        XdpipeError: the link is not fit for it.
    """

    name = "xdp"

    def __init__(
        self, link: Link, queues: Sequence[int], mode: str, stop: Callable[[], bool]
    ) -> None:
        super().__init__()
        several = link.mtu + _ETHERNET_AND_TWO_TAGS > CHUNK
        self.longest = CHUNK * (FRAMES_MAX if several else 1)
        geometry = Geometry(
            n_frames=MEMORY // CHUNK, frame_size=CHUNK, tx_size=2048, multi_buffer=several
        )
        try:
            for queue in queues:
                self._add(link, queue, mode, geometry)
            if self.mode == "zerocopy" and quirks(link.driver).tx_needs_program:
                program = self._open.enter_context(Program.load(PASS, "pass"))
                self._open.enter_context(XdpLink(program, link.index, link.name, "native"))
                link.with_carrier(_CARRIER_S, stop)
        except BaseException:
            self.close()
            raise

    def _add(self, link: Link, queue: int, mode: str, geometry: Geometry) -> None:
        umem = Umem(geometry)
        self._open.callback(umem.close)
        xsk = Xsk.open(umem)
        self._open.callback(xsk.close)
        self.mode = xsk.bind(link, queue, mode)
        page = CountersPage(())
        self._open.callback(page.close)
        port = ffi.new("struct xp_port *", {"xsk": xsk.c, "counters": page.c_counters()})
        worker = ffi.new("struct xp_worker *", {"ports": port, "n_ports": 1, "umem": umem.c})
        is_last = ffi.new("uint8_t[]", geometry.n_frames)
        lane = ffi.new("struct xp_xdp_lane *", {
            "worker": worker, "is_last": is_last, "mask": geometry.n_frames - 1,
            "chunk": geometry.frame_size,
        })  # fmt: skip
        lib.xp_xdp_lane_init(lane)
        held = (lane, worker, port, is_last, umem, xsk, page)
        self.lanes.append(Lane(ffi.addressof(lane, "lane"), geometry.size, held))
