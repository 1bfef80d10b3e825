"""What lies on a ring, written to files, one after the other: by the recorder, off the hot core."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import time
from abc import ABC, abstractmethod
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xdpipe.block_ring import BlockRing, Position
from xdpipe.disk import DEPTH, Disk
from xdpipe.errors import XdpipeError

if TYPE_CHECKING:
    from collections.abc import Callable

    from xdpipe.recording import Files

BLOCK = 1 << 20
"""Bytes that are written at once, when there are so many."""
LINGER_S = 0.2
"""How long what is there may wait for more of it."""
_RETRY_S = 1.0
"""How soon a disk that is full is tried again."""


class File:
    """A file that is written.

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
class Piece:
    """Bytes that are being written, and where the reader is when they are."""

    file: File
    data: memoryview | bytes
    offset: int
    position: Position
    ended: bool = False


class FileStream(ABC):
    """What one queue's stage has written: from its ring to files.

    Where it is stands in the ring itself, with file and offset, so that the next one goes on where
    a killed one was, in the same file. Those that derive from this say what is written.

    Args:
        ring: stays the caller's.
        files: what was declared.
        prefix: of the files' names.
        directory: descriptor of it; owned by this object.
        disk: what writes.
        tell: told in a line when it cannot write, and when it can again.
        n_under_way_max: writes that may be under way at once.
    """

    suffix: str
    """What the files' names end in."""
    part = ""
    """What they end in besides while they are not complete."""
    longest: int
    """Bytes of the longest packet or record, as written: so much room a file has, or it is full."""
    lost: str
    """What is lost, for messages: packets are lost for the capture."""

    def __init__(
        self,
        ring: BlockRing,
        files: Files,
        prefix: str,
        directory: int,
        disk: Disk,
        tell: Callable[[str], None],
        n_under_way_max: int = DEPTH,
    ) -> None:
        self._ring = ring
        self._n_under_way_max = n_under_way_max
        self._much = min(BLOCK, ring.size // 2)
        self._files = files
        self._name = re.compile(
            rf"{re.escape(prefix)}-\d{{8}}T\d{{6}}Z-(\d{{6,}}){re.escape(self.suffix)}"
            rf"({re.escape(self.part)})?"
        )
        self._prefix = prefix
        self._directory = directory
        self._disk = disk
        self._tell = tell
        self._written = self._taken = ring.position
        self._pieces: deque[Piece] = deque()
        self._writes: dict[int, Piece] = {}
        self._wrote_at = 0.0
        self._retry_at = 0.0
        self._trouble = ""  # why the last write failed; empty: it did not
        self._failed = False  # what is under way is awaited, then all that was not written is again
        self._broken = False
        self._file: File | None = None
        if self._taken.file:
            self._resume()

    # What is written

    @abstractmethod
    def head(self) -> memoryview | bytes:
        """Return what each file begins with."""

    @abstractmethod
    def take(self, start: int, room: int) -> tuple[int, int, memoryview | bytes]:
        """Take what lies on the ring from position `start` on, and is to be written at once.

        Args:
            start: of the ring.
            room: bytes that the file has left; not less than `longest`.

        Returns:
            Bytes of the ring, packets or records that these are, and what is written of them.

        Raises:
            XdpipeError: what lies there is none of it.
        """

    @abstractmethod
    def complete(self, file: File) -> None:
        """End a file, all of which is written; close it."""

    def finish(self) -> None:  # noqa: B027 - most have nothing else
        """Have what is left come onto the ring, as far as it has room; no worker writes now."""

    # Files

    def _names(self) -> dict[int, str]:
        """Return the names of this queue's files by their numbers, oldest first."""
        found = filter(None, map(self._name.fullmatch, os.listdir(self._directory)))
        names = sorted(((int(match[1]), match[0]) for match in found), key=_complete_last)
        return dict(names)

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
            if not name.endswith(self.part):  # it is complete: the next one is begun
                for left in (*later, name + self.part):
                    self._remove(left)
                return
            fd = os.open(name, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=self._directory)
            start = len(self.head())
            if not start <= at.offset <= os.fstat(fd).st_size:
                os.close(fd)
                raise XdpipeError(f"{name} has no byte {at.offset}")
        except (XdpipeError, OSError) as error:
            self._break(str(error))
            return
        os.ftruncate(fd, at.offset)
        for behind in later:
            self._remove(behind)
        self._file = File(fd, name, at.file, start, at.offset, time.monotonic())

    def _remove(self, name: str) -> None:
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=self._directory)

    def _break(self, why: str) -> None:
        self._broken = True
        self._tell(f"{why}; {self._prefix} records nothing any more")

    def _open(self, now: float) -> File:
        number = (self._taken.file or max(self._names(), default=0)) + 1
        clock = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        name = f"{self._prefix}-{clock}-{number:06}{self.suffix}{self.part}"
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        fd = os.open(name, flags, 0o640, dir_fd=self._directory)
        start = self.head()
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
        return File(fd, name, number, len(start), len(start), now)

    def _remove_old(self) -> None:
        if self._files.n_files is not None:
            for name in list(self._names().values())[: -self._files.n_files]:
                self._remove(name)

    def _end_file(self) -> None:
        """Begin no more writes to the file; it is closed when those that were are known to be."""
        file, self._file = self._file, None
        if file is not None:
            file.full = True
            self._close_if_done(file)

    def _close_if_done(self, file: File) -> None:
        if file.full and not file.n_pieces:
            self.complete(file)

    # Writes

    def go_on(self, now: float, *, flush: bool) -> None:
        """Begin to write what there is, as far as it is much, or has waited, or `flush` says so."""
        if self._broken or self._failed or now < self._retry_at:
            return
        file, file_s = self._file, self._files.file_s
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
        if self._file is not None and self._files.file_bytes - self._file.offset < self.longest:
            self._end_file()
        if self._file is None:
            self._file = self._open(now)
        file = self._file
        size, n, data = self.take(self._taken.consumer, self._files.file_bytes - file.offset)
        position = Position(
            self._taken.consumer + size, self._taken.packets + n, file.number,
            file.offset + len(data),
        )  # fmt: skip
        piece = Piece(file, data, file.offset, position)
        self._begin(piece)
        self._pieces.append(piece)
        file.n_pieces += 1
        file.offset = position.offset
        self._taken = position
        self._wrote_at = now

    def _begin(self, piece: Piece) -> None:
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
                f"{self._files.directory}: {self._trouble}; once the buffer is full, {self.lost}"
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
                self._remove(file.name)
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


def _complete_last(name: tuple[int, str]) -> tuple[int, int]:
    """Of a file that is complete and its part, which was not removed yet, the former counts."""
    return name[0], -len(name[1])
