"""The ways to put packets on a link, and which of them a link offers."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from xdpipe.errors import XdpipeError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from xdpipe.link import Link

ENGINES = ("auto", "xdp", "live", "socket")
MEMORY = 32 << 20
"""Bytes in which packets lie ready, of each lane."""
FAST_PPS = 500_000
"""From so many packets a second on, live frames cost less than other engines but zero copy: they
take some 10 microseconds a call, and carry a thousand packets then."""


@dataclass(frozen=True)
class Lane:
    """One way by which packets leave; flows are dealt out to several.

    Attributes:
        c: struct xp_lane *.
        size: bytes of its memory.
        held: what lives as long as it does.
    """

    c: Any
    size: int
    held: tuple[Any, ...] = ()


class Engine:
    """Lanes out of a link, made and ready; a context manager, which owns sockets and programs.

    Attributes:
        name: xdp, live or socket.
        mode: what was obtained, for people to read.
        longest: bytes of a packet that it sends, beside what the link's MTU allows.
        lanes: one or more.
    """

    name = ""

    def __init__(self) -> None:
        self.mode = ""
        self.longest = 1 << 16
        self.lanes: list[Lane] = []
        self._open = ExitStack()

    def lost(self) -> int | None:
        """Return how many packets the link did not take, that lanes know nothing of.

        None: nobody knows.
        """
        return 0

    def close(self) -> None:
        """Let go of everything. May be called twice."""
        self._open.close()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True)
class EngineOptions:
    """What is asked of an engine.

    Attributes:
        engine: one of ENGINES.
        mode: of AF_XDP: `auto`, `zerocopy` or `copy`.
        queues: transmit queues, a flow keeps to one; None: the first. Several are for AF_XDP.
        into_stack: give packets to the kernel's stack, as if the link had received them.
        fast: there is no pace, or one above FAST_PPS.
    """

    engine: str = "auto"
    mode: str = "auto"
    queues: Sequence[int] | None = None
    into_stack: bool = False
    fast: bool = True


def open_engine(
    link: Link, options: EngineOptions, stop: Callable[[], bool] = lambda: False
) -> Engine:
    """Open the engine that was asked for, or the best that the link offers.

    Zero copy goes first; then, for many packets a second, live frames, where the link takes frames
    from other programs (a veth does if a native XDP program or GRO is at its other end); then
    AF_XDP in copy mode, then a packet socket, where the queue is somebody else's for example. Who
    names queues or a mode wants AF_XDP.

    Args:
        link: the interface; it is up.
        options: what is asked for.
        stop: asked now and then whether to end.

    Raises:
        XdpipeError: the link does not offer it; or it does not offer what goes with it.
    """
    from xdpipe.netdev import has_zero_copy, takes_frames
    from xdpipe.traffic.engine_live import LiveEngine
    from xdpipe.traffic.engine_socket import SocketEngine
    from xdpipe.traffic.engine_xdp import XdpEngine

    engine, queues = options.engine, options.queues or (0,)
    if options.into_stack:
        if engine not in ("auto", "live"):
            raise XdpipeError(f"--into-stack takes the engine live, not {engine}")
        return LiveEngine(link, into_stack=True)
    if engine in ("live", "socket"):
        if options.mode != "auto":
            raise XdpipeError(f"--mode {options.mode} is for the engine xdp, not {engine}")
        if options.queues:
            raise XdpipeError(f"--queues is for the engine xdp; {engine} has one way out")
        return LiveEngine(link) if engine == "live" else SocketEngine(link)
    if engine == "xdp" or options.mode != "auto" or options.queues or has_zero_copy(link):
        return XdpEngine(link, queues, options.mode, stop)
    if options.fast and takes_frames(link):
        return LiveEngine(link)
    try:
        return XdpEngine(link, queues, "copy", stop)
    except XdpipeError:
        return SocketEngine(link)
