"""One file of records of flows, written by who meters them: for a check of a capture."""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, Any, Protocol

from xdpipe.errors import XdpipeError
from xdpipe.flow_records import TEXT_FORMATS, arrow_schema, csv_head, to_arrow

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from xdpipe.flow_records import Records
    from xdpipe.recording import FlowOptions, FlowRecording

PART = ".part"
"""What a file's name ends in while it is not complete."""
ROW_GROUP = 65536
"""Rows of Parquet that are written at once."""


class FlowFile(Protocol):
    """What takes records."""

    def write(self, records: Records) -> None:
        """Write some."""
        ...


class _Nowhere:
    def write(self, records: Records) -> None:
        """Forget them."""


class _TextFile:
    def __init__(self, path: Path, kind: str, options: FlowOptions) -> None:
        self._to_text, self._options = TEXT_FORMATS[kind], options
        self._file = open(path, "wb")  # noqa: SIM115 - closed by close
        if kind == "csv":
            self._file.write(csv_head(options))

    def write(self, records: Records) -> None:
        if len(records):
            self._file.write(self._to_text(records, self._options))

    def close(self) -> None:
        self._file.close()


class ParquetFile:
    """A Parquet file; complete once it is closed.

    Args:
        file: its path, or an open file, which stays the caller's.
        options: of the flows.
    """

    def __init__(self, file: Path | IO[bytes], options: FlowOptions) -> None:
        from pyarrow import parquet

        self._options = options
        self._writer: Any = parquet.ParquetWriter(file, arrow_schema(options), compression="zstd")
        self._waiting: list[Any] = []
        self._n_waiting = 0

    def write(self, records: Records) -> None:
        """Write some."""
        for first in range(0, len(records), ROW_GROUP):
            some = records[first : first + ROW_GROUP]
            self._waiting.append(to_arrow(some, self._options))
            self._n_waiting += len(some)
            if self._n_waiting >= ROW_GROUP:
                self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        if self._waiting:
            self._writer.write_table(pa.Table.from_batches(self._waiting))
        self._waiting, self._n_waiting = [], 0

    def close(self) -> None:
        """Write what is left, and what makes it a whole file."""
        self._flush()
        self._writer.close()


@contextmanager
def open_flow_file(
    path: Path | None, recording: FlowRecording | None, options: FlowOptions
) -> Iterator[FlowFile]:
    """Open a file that takes the place of an earlier one of its name when it is complete.

    Args:
        path: of the file, or of the directory that gets a file flows.FORMAT; None: nothing is
            written.
        recording: what was declared.
        options: of the flows.

    Raises:
        XdpipeError: it cannot be written.
    """
    if path is None or recording is None:
        yield _Nowhere()
        return
    if not recording.stem:
        path = path / f"flows.{recording.format}"
    part = path.with_name(path.name + PART)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        parquet = recording.format == "parquet"
        file = ParquetFile(part, options) if parquet else _TextFile(part, recording.format, options)
        try:
            yield file
        except BaseException:
            with suppress(OSError):
                file.close()
            with suppress(OSError):
                part.unlink()
            raise
        file.close()
        os.replace(part, path)
    except OSError as error:
        raise XdpipeError(f"{path}: {error.strerror or error}") from error
