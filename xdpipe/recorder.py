"""The recorder: one process that writes what the stages Record of a pipeline copy.

Started by the supervisor, never by hand. It reads rings of blocks that the workers fill, and writes
them to files as they lie, in large pieces, several under way. It has no privilege; the directories
come as descriptors. When the supervisor is gone it writes what is there, and ends.

What a ring's reader has written stands in the ring itself, with file and offset, so the next
recorder goes on where a killed one was, in the same file.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import select
import signal
import socket
import sys
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from xdpipe import __version__
from xdpipe.block_ring import BlockRing, Position
from xdpipe.control import Control, ControlClosed, answer_for
from xdpipe.disk import DEPTH, Disk, open_disk
from xdpipe.errors import XdpipeError
from xdpipe.pcapng import MAX_SNAPLEN, Interface, head, statistics
from xdpipe.privilege import drop_all, find_user, outlive_parent, renounce
from xdpipe.recording import Recording

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

BLOCK = 1 << 20
"""Bytes that are written at once, when there are so many."""
LONGEST = MAX_SNAPLEN + 4096
"""Bytes of the longest packet's block: so much room a file has, or it is full."""
LINGER_S = 0.2
"""How long copies may wait for more of them."""
_LOOK_S = 0.02
_RETRY_S = 1.0
"""How soon a disk that is full is tried again."""


class _File:
    """A capture that is written.

    Args:
        fd: of it; closed by who made this.
        name: of it.
        number: in its name.
        start: bytes that its head has.
        offset: bytes that it has.
        now: time.monotonic().
    """

    def __init__(
        self, fd: int, name: str, number: int, start: int, offset: int, now: float
    ) -> None:
        self.fd = fd
        self.name = name
        self.number = number
        self.start = start
        self.offset = offset
        self.opened_at = now
        self.n_pieces = 0
        """Of it, that are not written and known to be."""
        self.full = False


@dataclass
class _Piece:
    """Blocks that are being written, and where the reader is when they are."""

    file: _File
    data: memoryview | bytes
    offset: int
    position: Position
    ended: bool = False


class Stream:
    """One queue's recording: from its ring to files.

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
        self._ring = ring
        self._n_under_way_max = n_under_way_max
        self._much = min(BLOCK, ring.size // 2)
        self._recording = recording
        self._suffix = ".pcapng.zst" if recording.zstd else ".pcapng"
        self._name = re.compile(
            rf"{re.escape(prefix)}-\d{{8}}T\d{{6}}Z-(\d{{6,}}){re.escape(self._suffix)}"
        )
        self._prefix = prefix
        self._directory = directory
        self._head = head(interfaces, f"xdpipe {__version__}")
        self._disk = disk
        self._tell = tell
        self._compress: Callable[[Any], bytes] | None = None
        if recording.zstd:
            from zstandard import ZstdCompressor

            self._compress = ZstdCompressor(level=1).compress
        self._written = self._taken = ring.position
        self._n_lost_told = 0
        self._pieces: deque[_Piece] = deque()
        self._writes: dict[int, _Piece] = {}
        self._wrote_at = 0.0
        self._retry_at = 0.0
        self._trouble = ""  # why the last write failed; empty: it did not
        self._failed = False  # what is under way is awaited, then all that was not written is again
        self._broken = False
        self._file: _File | None = None
        if self._taken.file:
            self._resume()

    # Files

    def _names(self) -> dict[int, str]:
        """Return the names of this queue's files by their numbers, oldest first."""
        found = filter(None, map(self._name.fullmatch, os.listdir(self._directory)))
        return dict(sorted((int(match[1]), match[0]) for match in found))

    def _resume(self) -> None:
        """Go on with the file that a former recorder was writing, without what it had not finished.

        All of the files behind it is on the ring still. Where the former recorder was stands in
        memory that the worker may write to: what cannot be is not believed.
        """
        names, at = self._names(), self._taken
        later = [name for number, name in names.items() if number > at.file]
        try:
            if at.file not in names or len(later) > DEPTH:
                raise XdpipeError(f"no recorder was at file {at.file}")
            self._ring.n_waiting(at.consumer)
            name = names[at.file]
            fd = os.open(name, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=self._directory)
            start = len(self._packed(self._head))
            if not start <= at.offset <= os.fstat(fd).st_size:
                os.close(fd)
                raise XdpipeError(f"{name} has no byte {at.offset}")
        except (XdpipeError, OSError) as error:
            self._break(str(error))
            return
        os.ftruncate(fd, at.offset)
        for behind in later:
            with contextlib.suppress(OSError):
                os.unlink(behind, dir_fd=self._directory)
        self._file = _File(fd, name, at.file, start, at.offset, time.monotonic())

    def _break(self, why: str) -> None:
        self._broken = True
        self._tell(f"{why}; {self._prefix} records nothing any more")

    def _open(self, now: float) -> _File:
        number = (self._taken.file or max(self._names(), default=0)) + 1
        clock = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        name = f"{self._prefix}-{clock}-{number:06}{self._suffix}"
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        fd = os.open(name, flags, 0o640, dir_fd=self._directory)
        start = self._packed(self._head)
        try:
            if os.pwrite(fd, start, 0) < len(start):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            os.close(fd)
            os.unlink(name, dir_fd=self._directory)
            raise
        self._remove_old()
        if not self._taken.file:  # that of former runs are none of what we were writing
            self._written = self._taken = self._taken._replace(file=number, offset=len(start))
            self._ring.release(self._taken)
        return _File(fd, name, number, len(start), len(start), now)

    def _remove_old(self) -> None:
        if self._recording.n_files is not None:
            for name in list(self._names().values())[: -self._recording.n_files]:
                with contextlib.suppress(OSError):
                    os.unlink(name, dir_fd=self._directory)

    def _packed(self, data: memoryview | bytes) -> memoryview | bytes:
        return self._compress(data) if self._compress else data

    def _end_file(self) -> None:
        """Begin no more writes to the file; it is closed when those that were are known to be."""
        file, self._file = self._file, None
        if file is not None:
            file.full = True
            self._close_if_done(file)

    def _close_if_done(self, file: _File) -> None:
        if file.full and not file.n_pieces:
            n_lost = self._ring.n_lost
            end = statistics(0, None, n_lost - self._n_lost_told)
            self._n_lost_told = n_lost
            with contextlib.suppress(OSError):  # the packets are there
                os.pwrite(file.fd, self._packed(end), file.offset)
            os.close(file.fd)

    # Writes

    def go_on(self, now: float, *, flush: bool) -> None:
        """Begin to write what there is, as far as it is much, or has waited, or `flush` says so."""
        if self._broken or self._failed or now < self._retry_at:
            return
        file, file_s = self._file, self._recording.file_s
        if file is not None and file_s is not None and now - file.opened_at >= file_s:
            self._end_file()
        try:
            while len(self._writes) < self._n_under_way_max and self._disk.n_under_way < DEPTH:
                waiting = self._ring.n_waiting(self._taken.consumer)
                hurry = flush or now - self._wrote_at >= LINGER_S
                if not waiting or (waiting < self._much and not hurry):
                    return
                self._write_piece(now)
        except OSError as error:
            self._fail(error, now)
        except XdpipeError as error:
            self._break(str(error))

    def _write_piece(self, now: float) -> None:
        if self._file is not None and self._recording.file_bytes - self._file.offset < LONGEST:
            self._end_file()
        if self._file is None:
            self._file = self._open(now)
        file = self._file
        room = self._recording.file_bytes - file.offset
        blocks, n = self._ring.peek(self._taken.consumer, min(BLOCK, room))
        # compressors may not have their input change under them, and the worker could
        data = self._packed(bytes(blocks)) if self._compress else blocks
        position = Position(
            self._taken.consumer + len(blocks), self._taken.packets + n, file.number,
            file.offset + len(data),
        )  # fmt: skip
        piece = _Piece(file, data, file.offset, position)
        self._begin(piece)
        self._pieces.append(piece)
        file.n_pieces += 1
        file.offset = position.offset
        self._taken = position
        self._wrote_at = now

    def _begin(self, piece: _Piece) -> None:
        self._writes[self._disk.write(piece.file.fd, piece.data, piece.offset)] = piece

    def ended(self, number: int, result: int, now: float) -> bool:
        """Deal with a write that has ended; return False if it is none of this stream's."""
        piece = self._writes.pop(number, None)
        if piece is None:
            return False
        if result == len(piece.data):
            piece.ended = True
            self._release(now)
        elif result > 0:
            piece.data = memoryview(piece.data)[result:]
            piece.offset += result
            try:
                self._begin(piece)
            except OSError as error:
                self._fail(error, now)
        else:
            self._fail(OSError(-result, os.strerror(-result)), now)
        return True

    def _release(self, now: float) -> None:
        """Give what was written back to the worker, in the order of the ring."""
        while self._pieces and self._pieces[0].ended:
            done = self._pieces.popleft()
            self._written = done.position
            self._ring.release(done.position)
            done.file.n_pieces -= 1
            self._close_if_done(done.file)
            if self._trouble and self._n_waiting(done.position) < self._much:
                self._trouble = ""  # it is over: what had to wait is written
                self._tell(f"{self._prefix}: recorded again")

    def _n_waiting(self, position: Position) -> int:
        try:
            return self._ring.n_waiting(position.consumer)
        except XdpipeError as error:
            if not self._broken:
                self._break(str(error))
            return 0

    def _fail(self, error: OSError, now: float) -> None:
        self._failed = True
        self._retry_at = now + _RETRY_S
        if self._trouble != str(error.strerror):
            self._trouble = str(error.strerror)
            self._tell(
                f"{self._recording.directory}: {self._trouble}; once the buffer is full, packets "
                "are lost for the capture"
            )

    def retry(self) -> None:
        """Let the next turn try what has failed."""
        self._retry_at = 0.0

    def settle(self) -> None:
        """After a write has failed, and none is under way: go back to what was written.

        The rest is still on the ring, and will be tried again, in the first file that is open;
        those behind it hold nothing that is known to be written, and go.
        """
        if not self._failed or self._writes:
            return
        files = {piece.file for piece in self._pieces}
        if self._file is not None:
            files.add(self._file)
        self._taken, self._file = self._written, None
        for file in sorted(files, key=lambda each: each.number):
            if self._file is None:
                at_end = file.number == self._written.file
                file.offset = self._written.offset if at_end else file.start
                file.n_pieces, file.full = 0, False
                with contextlib.suppress(OSError):
                    os.ftruncate(file.fd, file.offset)
                self._file = file
                self._taken = self._taken._replace(file=file.number)
            else:
                os.close(file.fd)
                with contextlib.suppress(OSError):
                    os.unlink(file.name, dir_fd=self._directory)
        self._pieces.clear()
        self._failed = False

    @property
    def idle(self) -> bool:
        """Nothing is under way, and nothing is left to be written, or nothing can be."""
        if self._writes or self._failed:
            return False
        return bool(self._broken or self._trouble or not self._n_waiting(self._taken))

    def close(self) -> None:
        """End the file; nothing may be under way."""
        self._end_file()
        os.close(self._directory)


class Recorder:
    """All streams of a pipeline, over one disk.

    Args:
        streams: to be written.
        disk: what writes.
    """

    def __init__(self, streams: Sequence[Stream], disk: Disk) -> None:
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
        self.turn(time.monotonic(), flush=True)
        while not all(stream.idle for stream in self._streams) and time.monotonic() < deadline:
            select.select([self._disk], [], [], _LOOK_S)
            self.turn(time.monotonic(), flush=True)
        for stream in self._streams:
            stream.close()


def _stream(
    control: Control, body: Any, fds: list[int], disk: Disk, n_under_way_max: int
) -> Stream:
    """Make a stream; its descriptors come first: of the ring, and of the directory."""
    recording = Recording.from_dict(body["recording"])
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
    streams: list[Stream] = []
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
