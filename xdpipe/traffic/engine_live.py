"""Live frames: the kernel makes the packets; core/traffic/engine_live.c and bpf/emit.c.

BPF_PROG_TEST_RUN with BPF_F_TEST_XDP_LIVE_FRAMES (Documentation/bpf/bpf_prog_run.rst, Linux 5.18)
runs a program on frames of its own and does what it returns: puts them on a link (bpf_redirect), or
into the network stack (XDP_PASS).
"""

from __future__ import annotations

import mmap
import platform
import struct
from pathlib import Path
from typing import TYPE_CHECKING

from xdpipe.bpf import BpfError
from xdpipe.bpf_cache import compiled
from xdpipe.bpf_idle import attach_idle
from xdpipe.bpf_link import XdpLink
from xdpipe.bpf_module import Module
from xdpipe.bpf_program import (
    PASS,
    PROG_TYPE_RAW_TRACEPOINT,
    TEST_XDP_LIVE_FRAMES,
    Program,
    open_raw_tracepoint,
)
from xdpipe.core._core import ffi, lib
from xdpipe.errors import XdpipeError
from xdpipe.netdev import takes_frames
from xdpipe.resources import program_source
from xdpipe.traffic.engine import Engine, Lane

if TYPE_CHECKING:
    from xdpipe.bpf import Map
    from xdpipe.bpf_module import Compiled
    from xdpipe.link import Link

BATCH = 64
"""Packets that the kernel hands on at once, as a NIC's poll would; a veth's ring holds 256."""
LONGEST = 3400
"""Bytes of a packet, about: a page less what the kernel keeps there."""
_TRACEPOINT = "xdp_devmap_xmit"
_HANDED = struct.Struct("=QQ")
"""struct xp_handed of bpf/emit.c: under way, taken."""


class LiveEngine(Engine):
    """A program that emits packets, and the map that they lie in.

    What the link takes, and does not since the ring of a veth is full for example, is counted at a
    tracepoint, which takes CAP_PERFMON.

    Args:
        link: the interface.
        into_stack: the kernel's stack gets the packets as if the link had received them.

    Raises:
        XdpipeError: the kernel has no live frames; the link does not take frames; no privilege.
    """

    name = "live"

    def __init__(self, link: Link, *, into_stack: bool = False) -> None:
        super().__init__()
        self.longest = LONGEST
        self.mode = "into the stack" if into_stack else "live frames"
        if not into_stack and link.driver == "veth" and takes_frames(link) is False:
            raise XdpipeError(
                f"{link.name}: this veth takes no live frames: its other end has no native XDP "
                "program; start the receiver first, or use --engine xdp or socket"
            )
        self._handed: Map | None = None
        path = Path(program_source("emit.c"))
        try:
            self._make(compiled(path.read_text(), path.parent), link, counts=not into_stack)
            if not into_stack and link.driver not in ("veth", "tun"):
                # a NIC's driver sends what is redirected to it while it has a program itself
                nothing = self._open.enter_context(Program.load(PASS, "pass"))
                self._open.enter_context(XdpLink(nothing, link.index, link.name, "native"))
        except BaseException:
            self.close()
            raise

    def _make(self, source: Compiled, link: Link, *, counts: bool) -> None:
        module = self._open.enter_context(Module(source))
        program = self._open.enter_context(module.load("emit_packet"))
        shared = self._open.enter_context(module.map("emit"))
        size = -(-lib.xp_emit_bytes() // mmap.PAGESIZE) * mmap.PAGESIZE
        memory = mmap.mmap(shared.fd, size)
        attach_idle(program, self._open)
        try:
            program.test_run(bytes(64), ingress_ifindex=link.index, flags=TEST_XDP_LIVE_FRAMES)
        except BpfError as error:
            raise XdpipeError(
                f"live frames: {error}; they take Linux 5.18, this is {platform.release()}"
            ) from error
        if counts:
            try:
                with module.load("count_taken", prog_type=PROG_TYPE_RAW_TRACEPOINT) as counter:
                    self._open.enter_context(open_raw_tracepoint(_TRACEPOINT, counter))
                self._handed = self._open.enter_context(module.map("handed"))
            except BpfError:
                pass
        emit = ffi.cast("struct xp_emit *", ffi.from_buffer(memory))
        lane = ffi.new("struct xp_live_lane *", {
            "emit": emit, "prog_fd": program.fd, "ifindex": link.index, "batch": BATCH,
        })  # fmt: skip
        lib.xp_live_lane_init(lane, self.mode == "into the stack")
        held = (lane, memory)
        self.lanes.append(Lane(ffi.addressof(lane, "lane"), lib.xp_emit_memory_size(), held))

    def lost(self) -> int | None:
        """Return how many packets the link did not take; None: the kernel does not tell."""
        if self.mode == "into the stack":
            return 0
        if self._handed is None:
            return None
        taken = sum(int(_HANDED.unpack(each)[1]) for each in self._handed.lookup_per_cpu(0))
        lane = self.lanes[0].c
        return int(lane.taken - lane.refused) - taken
