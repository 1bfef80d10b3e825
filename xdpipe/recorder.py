"""The recorder: one process that writes what the stages Record of a pipeline copy.

Started by the supervisor, never by hand. It reads rings of blocks that the workers fill, and writes
them to files as they lie, in large pieces, several under way. It has no privilege; the directories
come as descriptors. When the supervisor is gone it writes what is there, and ends.

Another process of the same kind writes the records of stages FlowMeter: making text of them takes
time that captures do not have. At the end it also has the flows told that are left in their
tables, so that they are not lost with their workers either.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
import time
from typing import TYPE_CHECKING, Any

from xdpipe import __version__
from xdpipe.block_ring import BlockRing
from xdpipe.control import Control, ControlClosed, answer_for
from xdpipe.disk import DEPTH, Disk, open_disk
from xdpipe.errors import XdpipeError
from xdpipe.file_stream import BLOCK, File, FileStream
from xdpipe.pcapng import MAX_SNAPLEN, Interface, head, statistics
from xdpipe.privilege import drop_all, find_user, outlive_parent, renounce
from xdpipe.recording import FlowRecording, Recording, from_dict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_LOOK_S = 0.02


class Stream(FileStream):
    """One queue's capture.

    Args:
        ring: stays the caller's.
        recording: what was declared.
        prefix: of the files' names.
        directory: descriptor of it; owned by this object.
        interfaces: of each file.
        disk: what writes.
        tell: told in a line when it cannot write, and when it can again.
        n_under_way_max: writes that may be under way at once.
    """

    longest = MAX_SNAPLEN + 4096
    lost = "packets are lost for the capture"

    def __init__(
        self,
        ring: BlockRing,
        recording: Recording,
        prefix: str,
        directory: int,
        interfaces: Sequence[Interface],
        disk: Disk,
        tell: Callable[[str], None],
        n_under_way_max: int = DEPTH,
    ) -> None:
        self.suffix = ".pcapng.zst" if recording.zstd else ".pcapng"
        self._head = head(interfaces, f"xdpipe {__version__}")
        self._n_lost_told = 0
        self._compress: Callable[[Any], bytes] | None = None
        if recording.zstd:
            from zstandard import ZstdCompressor

            self._compress = ZstdCompressor(level=1).compress
        super().__init__(ring, recording, prefix, directory, disk, tell, n_under_way_max)

    def _packed(self, data: memoryview | bytes) -> memoryview | bytes:
        return self._compress(data) if self._compress else data

    def head(self) -> memoryview | bytes:
        """See FileStream.head."""
        return self._packed(self._head)

    def take(self, start: int, room: int) -> tuple[int, int, memoryview | bytes]:
        """See FileStream.take."""
        blocks, n = self._ring.peek(start, min(BLOCK, room))
        # compressors may not have their input change under them, and the worker could
        return len(blocks), n, self._packed(bytes(blocks)) if self._compress else blocks

    def complete(self, file: File) -> None:
        """Say at its end what was lost; see FileStream.complete."""
        n_lost = self._ring.n_lost
        end = statistics(0, None, n_lost - self._n_lost_told)
        self._n_lost_told = n_lost
        with contextlib.suppress(OSError):  # the packets are there
            os.pwrite(file.fd, self._packed(end), file.offset)
        os.close(file.fd)


class Recorder:
    """All streams of a pipeline, over one disk.

    Args:
        streams: to be written.
        disk: what writes.
    """

    def __init__(self, streams: Sequence[FileStream], disk: Disk) -> None:
        self._streams = streams
        self._disk = disk
        self._first = 0

    def turn(self, now: float, *, flush: bool = False) -> None:
        """Take note of what was written, and begin to write what there is."""
        for number, result in self._disk.ended():
            for stream in self._streams:
                if stream.ended(number, result, now):
                    break
        self._first = (self._first + 1) % len(self._streams)  # none has all the disk
        for stream in (*self._streams[self._first :], *self._streams[: self._first]):
            stream.settle()
            stream.go_on(now, flush=flush)

    def finish(self, deadline: float) -> None:
        """Write what there is, as far as that is possible, and end the files."""
        for stream in self._streams:
            stream.retry()
            stream.finish()
        self.turn(time.monotonic(), flush=True)
        while not all(stream.idle for stream in self._streams) and time.monotonic() < deadline:
            select.select([self._disk], [], [], _LOOK_S)
            for stream in self._streams:
                stream.finish()
            self.turn(time.monotonic(), flush=True)
        for stream in self._streams:
            stream.close()


def _stream(
    control: Control, body: Any, fds: list[int], disk: Disk, n_under_way_max: int
) -> FileStream:
    """Make a stream; its descriptors come first: of ring, directory and, of flows, their table."""
    recording = from_dict(body["recording"])
    ring = BlockRing(recording.ring_bytes, fds.pop(0), populate=True)
    directory = fds.pop(0)
    if not os.access(f"/proc/self/fd/{directory}", os.W_OK | os.X_OK, effective_ids=True):
        raise XdpipeError(
            f"{recording.directory}: user {body['user']} may not write there; "
            f"chown {body['user']} {recording.directory}, or name another with --user"
        )

    def tell(text: str) -> None:
        with contextlib.suppress(ControlClosed):  # nobody hears it, but it is written all the same
            control.send("told", text)

    if isinstance(recording, FlowRecording):
        from xdpipe.flow_stream import FlowStream  # which captures do not need

        return FlowStream(
            ring, recording, body["prefix"], directory, fds.pop(0), disk, tell, n_under_way_max
        )
    interfaces = [Interface(**interface) for interface in body["interfaces"]]
    return Stream(
        ring, recording, body["prefix"], directory, interfaces, disk, tell, n_under_way_max
    )


FINISH_S = 30.0
"""How long a disk may take to write what waits, at the end."""


def _record(control: Control, user: str) -> None:
    entry = find_user(user)
    renounce()
    drop_all(entry)
    outlive_parent()
    disk = open_disk()
    streams: list[FileStream] = []
    while True:  # a message for each queue: one carries only so many descriptors
        kind, body, fds = control.receive()
        if kind != "record":
            break
        at_once = max(2, DEPTH // body["n_streams"])
        streams += [_stream(control, each, fds, disk, at_once) for each in body["streams"]]
    control.send("ready", {"by": disk.name})
    recorder = Recorder(streams, disk)
    going = True
    while going:
        readable, _, _ = select.select([control.fileno(), disk.fileno()], [], [], _LOOK_S)
        if control.fileno() in readable:
            try:
                going = control.receive_plain(0)[0] != "stop"
            except ControlClosed:
                going = False
        recorder.turn(time.monotonic())
    recorder.finish(time.monotonic() + FINISH_S)
    with contextlib.suppress(ControlClosed):
        control.send("done")


def main(argv: list[str]) -> int:
    """Run as `python -m xdpipe.recorder CONTROL_FD USER`."""
    control_fd, user = argv
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    control = Control(socket.socket(fileno=int(control_fd)))
    return answer_for(control, lambda: _record(control, user))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
