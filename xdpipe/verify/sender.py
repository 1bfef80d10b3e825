"""Send a capture to a pipeline that runs, lose nothing of it, and see what becomes of each packet.

Who sends waits for who receives, on a busy machine too. For the veth, whose ring holds 256 packets,
by the socket's send buffer, which packets fill until they are received; for the worker by looking
at the tap. A replay (xdpipe.replay) keeps a pace and waits for nobody.
"""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections import deque
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from xdpipe import tap_command
from xdpipe.batch import HEADROOM, Batch
from xdpipe.capture import CaptureReader
from xdpipe.core._core import lib
from xdpipe.errors import XdpipeError
from xdpipe.stages import Headers
from xdpipe.tap_command import TapReader, TapRequest, packets
from xdpipe.verify import rewriting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from xdpipe.netns import Namespace
    from xdpipe.rundir import RunDir
    from xdpipe.verify.outcome import Outcome

_AHEAD = 1024
"""Packets that may be on their way through the worker, which has 4096 frames."""
_SEND_BUFFER = 1 << 15
"""Bytes; the kernel doubles them and counts some 800 or more for each packet (socket(7))."""
_TICK = 64
"""Packets after each of which is looked around."""
_STALL_S = 5.0
"""What a veth may take to have room for another packet."""
_STALLED_PPS = 10_000
"""Packets per second where it cannot be told any more how many are under way."""
_QUIET_S = 1.0
"""What has not come out for so long will not."""


class Seen:
    """Packets as the tap shows them, held against those that were sent.

    Args:
        sent: path of the capture that is sent.
        numbers: of its packets in the one that was recorded, int64[n].
        recorded: what is to become of the latter.
    """

    def __init__(self, sent: str | Path, numbers: NDArray[np.int64], recorded: Outcome) -> None:
        self._reader = CaptureReader(sent)
        self._sent: Iterator[tuple[int, bytes]] = (
            (int(number), packet.data)
            for number, packet in zip(numbers, self._reader, strict=False)
        )
        self._recorded = recorded
        self._inside: deque[tuple[int, bytes]] = deque()
        self.n_in = self.n_out = 0
        self.verdicts: dict[int, str] = {}
        self.rewritten: dict[int, str] = {}

    def add(self, seen: tap_command.Seen) -> None:
        """Take the next packet of the tap.

        Raises:
            XdpipeError: it was not sent.
        """
        if seen.interface.endswith("-in"):
            self.n_in += 1
            for number, packet in self._sent:
                if packet == seen.data:
                    self._inside.append((number, packet))
                    return
            raise XdpipeError(
                f"packet {self.n_in:,} that came to the pipeline is none of those that were sent "
                f"({seen.length} bytes); does a stage or something else send by itself?"
            )
        self.n_out += 1
        number, packet = self._inside.popleft()
        self.verdicts[number] = seen.comment.partition(" ")[0]
        text = rewriting.describe(packet, seen.data)
        wanted = self._recorded.rewritten.get(number, "")
        if text != wanted and rewriting.describe(packet, _with_checksum(seen.data)) == wanted:
            text = wanted
        if text:
            self.rewritten[number] = text

    def close(self) -> None:
        """Close the capture."""
        self._reader.close()


def _with_checksum(packet: bytes) -> bytes:
    """Return a packet with the checksum that it gets when it leaves, if it was asked for."""
    batch = Batch(bytearray(HEADROOM + len(packet) + 64), 1)
    batch.load([packet])
    Headers().process(batch)
    batch.fill_checksum(np.ones(1, np.bool_))
    lib.xp_fill_checksums(batch.c)
    return bytes(batch.packet(0))


class Sender:
    """A thread that sends the capture while the pipeline runs, and looks at the tap meanwhile.

    Args:
        path: of the capture that is sent.
        sender: the namespace that it is sent from, by `c0`.
        run_dir: of the pipeline.
        taken: for each packet that is sent, how many up to it the pipeline takes: int64[n].
        seen: is told what the tap shows.
        progress: told packets sent, and packets in all.
    """

    def __init__(
        self, path: str | Path, sender: Namespace, run_dir: RunDir, taken: NDArray[np.int64],
        seen: Seen, progress: Callable[[int, int], None],
    ) -> None:  # fmt: skip
        self._path, self._namespace, self._run_dir = path, sender, run_dir
        self._taken, self._seen, self._progress = taken, seen, progress
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="xdpipe-verify")
        self._started = self._stalled = False
        self.error: BaseException | None = None
        self.done = False
        """Everything was sent, and what came of it was seen."""

    def start(self) -> None:
        """Begin to send."""
        self._started = True
        self._thread.start()

    def end(self) -> None:
        """Send no more, and wait until the thread has ended. May be called twice."""
        self._stopping.set()
        if self._started:
            self._thread.join()

    def _run(self) -> None:
        try:
            with TapReader(self._run_dir, TapRequest(stages=("in", "out"))) as self._tap:
                if self._tap.wait_attached(self._stopping.is_set):
                    raise XdpipeError("the worker does not answer; does a stage hang?")
                self._send()
        except BaseException as error:
            if not self._stopping.is_set():
                self.error = error
        if not self._stopping.is_set() and self._run_dir.ask("stop") is None:
            signal.raise_signal(signal.SIGINT)  # it does not answer, but looks for that

    def _send(self) -> None:
        total = len(self._taken)
        with self._socket() as sock, CaptureReader(self._path) as reader:
            for n, packet in enumerate(reader, 1):
                try:
                    sock.send(packet.data)
                except OSError as error:  # a TimeoutError is one
                    raise XdpipeError(f"packet {n:,} cannot be sent: {error}") from error
                if n % _TICK == 0 or n == total:
                    self._progress(n, total)
                    # once packets are missing, nobody knows how many are under way
                    n_under_way = 1 << 62 if self._stalled else _AHEAD
                    self._look_until(int(self._taken[n - 1]) - n_under_way)
                    time.sleep(_TICK / _STALLED_PPS if self._stalled else 0.0)
                    if self._stopping.is_set():
                        return
        self._look_until(int(self._taken[-1]))
        if self._tap.n_lost:
            raise XdpipeError(f"{self._tap.n_lost:,} copies of packets found no room in the tap")
        self.done = not self._stopping.is_set()

    def _socket(self) -> socket.socket:
        with self._namespace:
            sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        sock.settimeout(_STALL_S)
        sock.bind(("c0", 0))  # looked up in the socket's namespace
        return sock

    def _look_until(self, n_out: int) -> None:
        """Look at the tap until so many packets have left, or nothing comes any more."""
        before, since = -1, time.monotonic()
        while not self._stopping.is_set():
            for blocks in self._tap.read(1 << 20):
                for seen in packets(blocks, self._tap.interfaces):
                    self._seen.add(seen)
            if self._seen.n_out >= n_out:
                return
            if self._seen.n_out != before:
                before, since = self._seen.n_out, time.monotonic()
            elif time.monotonic() - since > _QUIET_S:
                self._stalled = True
                return
            time.sleep(0.0005)
