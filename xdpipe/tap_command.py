"""`xdpipe tap`: a live capture of what a running pipeline sees, as pcapng or as lines."""

from __future__ import annotations

import os
import selectors
import socket
import struct
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from xdpipe import __version__
from xdpipe.block_ring import BlockRing, Position
from xdpipe.control import Control, ControlClosed
from xdpipe.errors import XdpipeError
from xdpipe.pcapng import MAX_SNAPLEN, Interface, head, statistics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from xdpipe.rundir import RunDir

ANSWER_S = 10.0
"""How long a supervisor may take to answer, and a worker to begin."""
_LOOK_S = 0.02
"""How often rings are looked at: the worker makes no system call for who looks on."""
_AT_ONCE = 1 << 20
"""Bytes that are written at once; more than the longest packet's block."""
_EPB = struct.Struct("=IIIIIII")


@dataclass(frozen=True)
class TapRequest:
    """What is to be seen.

    Attributes:
        stages: behind which; "in": before all, "out": as packets leave.
        verdict: name of the verdict that they have by then; None: any, and none.
        filter: tcpdump filter; empty: everything.
        snaplen: bytes of each packet at the most.
        buffer: bytes that may wait, for each queue.
    """

    stages: tuple[str, ...] = ("out",)
    verdict: str | None = None
    filter: str = ""
    snaplen: int = MAX_SNAPLEN
    buffer: int = 16 << 20


class Seen(NamedTuple):
    """A packet for people to look at.

    Attributes:
        time_ns: when it arrived, since 1970.
        interface: name of the interface, queue and point.
        comment: what became of it.
        data: its bytes, or the first of them.
        length: how many it has.
    """

    time_ns: int
    interface: str
    comment: str
    data: bytes
    length: int


class TapReader:
    """The other end of a tap: rings that a pipeline's workers fill. A context manager.

    Args:
        run_dir: of the pipeline.
        request: what is to be seen.

    Raises:
        XdpipeError: the pipeline is gone, or refuses.
    """

    def __init__(self, run_dir: RunDir, request: TapRequest) -> None:
        self._stack = ExitStack()
        try:
            self._open(run_dir, request)
        except BaseException:
            self._stack.close()
            raise
        self._at = dict.fromkeys(self.rings, Position(0))
        self._end: dict[int, int] = {}
        self.ended = False
        """The pipeline has ended."""

    def _open(self, run_dir: RunDir, request: TapRequest) -> None:
        program: list[tuple[int, ...]] = []
        if request.filter:
            from xdpipe.filter import Filter

            program = list(Filter(request.filter).program)
        sock = self._stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        fds: list[int] = []
        try:
            sock.connect(str(run_dir.path / "control.sock"))
            self._control = Control(sock)
            body = {
                "stages": request.stages, "verdict": request.verdict, "program": program,
                "snaplen": request.snaplen, "buffer": request.buffer,
            }  # fmt: skip
            self._control.send("tap", body)
            kind, answer, fds = self._control.receive(ANSWER_S)
        except (OSError, XdpipeError) as error:
            raise XdpipeError("the pipeline does not answer; is it about to end?") from error
        if kind != "tap":
            raise XdpipeError(str(answer))
        self.rings: dict[int, BlockRing] = {}
        for queue in answer["queues"]:
            self.rings[queue] = ring = BlockRing(answer["size"], fds.pop(0), populate=True)
            self._stack.callback(ring.close)
        self._selector = self._stack.enter_context(selectors.DefaultSelector())
        self._selector.register(sock, selectors.EVENT_READ)
        self.interfaces = [
            _interface(dev, queue, point, request)
            for queue in answer["queues"] for point in answer["points"] for dev in answer["devs"]
        ]  # fmt: skip
        self._n_each = len(answer["points"]) * len(answer["devs"])

    def wait_attached(self, interrupted: Callable[[], bool]) -> list[int]:
        """Wait until the workers copy; return the queues whose worker does not answer."""
        end = time.monotonic() + ANSWER_S
        while True:
            late = [queue for queue, ring in self.rings.items() if not ring.attached]
            if not late or self.ended or interrupted() or time.monotonic() > end:
                return late
            self.wait()

    def wait(self) -> None:
        """Let some time pass in which packets may come."""
        if self._selector.select(_LOOK_S) and not self.ended:
            try:
                self._control.receive_plain(0)
            except (ControlClosed, TimeoutError):
                self.ended = True
                self._selector.unregister(self._control.sock)

    def read(self, n_packets: int) -> Iterator[memoryview]:
        """Yield some of what each queue has: whole blocks, valid until the next.

        Args:
            n_packets: the most.
        """
        for queue, ring in self.rings.items():
            at = self._at[queue]
            left = self._end.get(queue, at.packets + n_packets) - at.packets
            blocks, n = ring.peek(at.consumer, _AT_ONCE, max(0, min(n_packets, left)))
            if not n:
                continue
            yield blocks
            self._at[queue] = Position(at.consumer + len(blocks), at.packets + n)
            ring.release(self._at[queue])
            n_packets -= n

    def take_no_more(self) -> None:
        """Have `read` end with what has been copied by now."""
        self._end = {queue: ring.n_packets for queue, ring in self.rings.items()}

    @property
    def n_packets(self) -> int:
        """Packets that were read."""
        return sum(at.packets for at in self._at.values())

    @property
    def n_lost(self) -> int:
        """Packets that found no room."""
        return sum(ring.n_lost for ring in self.rings.values())

    def head(self) -> bytes:
        """Return what a capture of it begins with."""
        return head(self.interfaces, f"xdpipe {__version__}")

    def statistics(self) -> bytes:
        """Return what a capture ends with; what a queue lost is told of its first interface."""
        return b"".join(
            statistics(place * self._n_each, None, ring.n_lost)
            for place, ring in enumerate(self.rings.values())
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Tell the pipeline that nobody looks any more. May be called twice."""
        self._stack.close()


def _interface(dev: str, queue: int, point: str, request: TapRequest) -> Interface:
    where = {"in": "as they come", "out": "as they leave"}.get(point, f"behind the stage {point}")
    return Interface(
        f"{dev}-q{queue}-{point}", f"packets of {dev}, queue {queue}, {where}", request.snaplen,
        request.filter,
    )  # fmt: skip


def packets(blocks: memoryview, interfaces: Sequence[Interface]) -> Iterator[Seen]:
    """Take blocks apart, as core/blocks.c puts them together.

    They lie in memory that a worker may write to, which parses hostile packets: so a copy is taken
    apart, and that ends where something cannot be.
    """
    copy = bytes(blocks)
    at = 0
    while len(copy) - at >= _EPB.size + 4:
        _, size, interface, high, low, captured, length = _EPB.unpack_from(copy, at)
        start = at + _EPB.size
        options, end = start + captured + -captured % 4, at + size - 4
        if end > len(copy) - 4 or options > end:
            return
        comment = ""
        if end - options >= 4:
            code, n = struct.unpack_from("=HH", copy, options)
            if code == 1:
                comment = copy[options + 4 : min(options + 4 + n, end)].decode(errors="replace")
        name = interfaces[interface].name if interface < len(interfaces) else "?"
        yield Seen(high << 32 | low, name, comment, copy[start : start + captured], length)
        at += size


def load_summaries() -> None:
    """Import what `show` needs: slow, and with the right to read files."""
    import scapy.layers.dns
    import scapy.layers.inet
    import scapy.layers.inet6  # noqa: F401 - by which l2 knows more


def show(seen: Seen) -> str:
    """Return a line on a packet: when, where, what became of it, and scapy's summary."""
    from scapy.layers import l2

    second, ns = divmod(seen.time_ns, 1_000_000_000)
    clock = time.strftime("%H:%M:%S", time.localtime(second))
    try:
        text = l2.Ether(seen.data).summary().removeprefix("Ether / ")
    except Exception:  # what scapy makes of garbage
        text = "?"
    line = f"{clock}.{ns // 1000:06} {seen.interface} {seen.comment}: {text}, {seen.length} bytes"
    return "".join(c if c.isprintable() else "?" for c in line)  # it goes to a terminal


def write_all(fd: int, data: Any) -> None:
    """Write everything to a file or pipe.

    Raises:
        OSError: nobody reads any more, or the disk is full.
    """
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
