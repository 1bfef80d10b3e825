"""Records of flows from a queue's ring to files, in the recorder."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import numpy as np

from xdpipe.errors import XdpipeError
from xdpipe.file_stream import BLOCK, File, FileStream
from xdpipe.flow_file import PART, ROW_GROUP, ParquetFile
from xdpipe.flow_records import TEXT_FORMATS, csv_head, longest_text, record_dtype
from xdpipe.flow_table import FlowTable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from xdpipe.block_ring import BlockRing
    from xdpipe.disk import Disk
    from xdpipe.flow_records import Records
    from xdpipe.recording import FlowOptions, FlowRecording

_TMP = ".tmp"
"""What the name of a Parquet file ends in while it is made."""
_AT_ONCE = 8192
"""Flows that are ended at once."""
_WORKER_END_S = 5.0
"""How long a worker may take to be gone once the pipeline ends."""


class FlowStream(FileStream):
    """One queue's records of flows.

    Lines of text are written as they come. Parquet cannot be: its index is at the end, and what a
    killed process has left of it could not be gone on with. So its records are put into the `.part`
    as they are, behind a line that says what they are, and made a file of when that is full.

    Args:
        ring: stays the caller's.
        recording: what was declared.
        prefix: of the files' names.
        directory: descriptor of it; owned by this object.
        table: descriptor of the flows' memory; owned by this object.
        disk: what writes.
        tell: told in a line when it cannot write, and when it can again.
        n_under_way_max: writes that may be under way at once.
    """

    part = PART
    lost = "records of flows are lost"

    def __init__(
        self,
        ring: BlockRing,
        recording: FlowRecording,
        prefix: str,
        directory: int,
        table: int,
        disk: Disk,
        tell: Callable[[str], None],
        n_under_way_max: int,
    ) -> None:
        self._format = recording.format
        self._options = recording.options
        self._dtype = record_dtype(recording.options)
        self.suffix = f".{recording.format}"
        self.longest = longest_text(recording.options)
        if recording.format == "parquet":
            self.longest = self._dtype.itemsize
        self._table_fd = table
        self._table: FlowTable | None = None
        self._n_left = 1  # flows in the table, as far as known
        self._give_up_at = 0.0
        super().__init__(ring, recording, prefix, directory, disk, tell, n_under_way_max)
        if not self._taken.file:
            self._complete_former()

    def head(self) -> bytes:
        """See FileStream.head."""
        if self._format == "csv":
            return csv_head(self._options)
        if self._format == "parquet":
            return json.dumps(asdict(self._options)).encode() + b"\n"
        return b""

    def take(self, start: int, room: int) -> tuple[int, int, memoryview | bytes]:
        """See FileStream.take."""
        most = min(BLOCK // self._dtype.itemsize, room // self.longest)
        data, n = self._ring.peek_records(start, self._dtype.itemsize, most)
        if self._format == "parquet":
            return len(data), n, data
        records = np.frombuffer(bytes(data), self._dtype)
        return len(data), n, TEXT_FORMATS[self._format](records, self._options)

    def complete(self, file: File) -> None:
        """Give a file the name of one that is complete; see FileStream.complete."""
        try:
            if self._format == "parquet":
                self._make_parquet(file)
            else:
                self._rename(file.name, file.name.removesuffix(PART))
        except (OSError, XdpipeError, ValueError) as error:
            self._tell(f"{file.name} stays as it is: {error}")
        os.close(file.fd)

    def _rename(self, old: str, new: str) -> None:
        os.rename(old, new, src_dir_fd=self._directory, dst_dir_fd=self._directory)

    def _make_parquet(self, file: File) -> None:
        """Make a Parquet file of records as they are; that twice gives the same."""
        name = file.name.removesuffix(PART)
        line = os.pread(file.fd, 1 << 16, 0).partition(b"\n")[0]
        fields = json.loads(line)
        options = replace(self._options, **{**fields, "labels": tuple(fields["labels"])})
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = os.open(name + _TMP, flags, 0o640, dir_fd=self._directory)
        with os.fdopen(fd, "wb") as out:
            parquet = ParquetFile(out, options)
            for records in _read(file.fd, len(line) + 1, options):
                parquet.write(records)
            parquet.close()
        self._rename(name + _TMP, name)
        os.unlink(file.name, dir_fd=self._directory)

    def _complete_former(self) -> None:
        """Complete the files that an earlier run has left, which came to no end: no power, say."""
        for number, name in self._names().items():
            if not name.endswith(PART):
                continue
            try:
                fd = os.open(name, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=self._directory)
                if self._format != "parquet":
                    os.ftruncate(fd, _end_of_lines(fd))
            except OSError as error:
                self._tell(f"{name} stays as it is: {error.strerror}")
                continue
            self.complete(File(fd, name, number, 0, 0, 0.0))

    def finish(self) -> None:
        """End what flows there are, now that no worker does; see FileStream.finish."""
        now = time.monotonic()
        self._give_up_at = self._give_up_at or now + _WORKER_END_S
        if self._table is None:
            if self._ring.writer.alive and now < self._give_up_at:
                return  # the kernel is about to end it: the supervisor is gone
            if self._ring.writer.alive:
                self._tell(f"{self._prefix}: its worker does not end; its flows are not written")
                self._n_left = 0
                return
            self._ring.attach()
            self._table = FlowTable(self._options, self._ring, self._table_fd)
        self._n_left = self._table.finish(_AT_ONCE)

    @property
    def idle(self) -> bool:
        """Whether nothing is left to be done, or nothing can be."""
        return super().idle and (not self._n_left or bool(self._broken or self._trouble))

    def close(self) -> None:
        """End the file; nothing may be under way."""
        super().close()
        os.close(self._table_fd)


def _read(fd: int, at: int, options: FlowOptions) -> Iterator[Records]:
    """Yield the records that lie in a file from byte `at` on."""
    dtype = record_dtype(options)
    while len(data := os.pread(fd, ROW_GROUP * dtype.itemsize, at)) >= dtype.itemsize:
        n = len(data) // dtype.itemsize
        yield np.frombuffer(data, dtype, n)
        at += n * dtype.itemsize


def _end_of_lines(fd: int) -> int:
    """Return where the last whole line of a file ends."""
    size = os.fstat(fd).st_size
    start = max(0, size - (1 << 16))
    return start + os.pread(fd, size - start, start).rfind(b"\n") + 1
