"""Count the packets and bytes of flows; core/stages/flow_meter.c and core/flow_table.c do it."""

from __future__ import annotations

import math
import os
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from xdpipe.batch import COLUMNS
from xdpipe.block_ring import BlockRing, ring_size
from xdpipe.errors import XdpipeError
from xdpipe.flow_table import LABEL_MAX, LABELS_MAX, FlowTable, record_bytes
from xdpipe.recording import FlowOptions, FlowRecording
from xdpipe.stage import NativeStage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from xdpipe.flow_records import Records
    from xdpipe.stage import ServedQueue

_MIB = 1 << 20
_AT_ONCE = 8192
"""Flows that are ended at once, where there is time."""
_RECORDS_MIN = 32768
"""For so many records the ring has room: a batch and its sweep end fewer."""
_FORMATS = ("ndjson", "csv", "parquet")


class FlowMeter(NativeStage):
    """Count packets and bytes of flows, both directions in one record, and have those written.

    A flow is what has the same two ends (address and port), protocol and outer VLAN id; who sends
    its first packet is the initiator (RFC 5103). Of each direction are kept: packets, bytes (of IP,
    header and payload: IPFIX octetDeltaCount), time of the first and the last packet, TCP flags.
    What a record has, under the names of IPFIX, says `xdpipe.flow_records.FIELDS`.

    - ICMP and ICMPv6 have type and code for ports, as in NetFlow v9; a question and its answer
      (echo, timestamp, neighbour solicitation, …) are one flow.
    - Later fragments have no ports: they are a flow of the same addresses with ports 0.
    - Packets that `Headers` calls malformed and those without IP are counted, not metered. All
      others are, whatever their verdict.
    - A flow ends when no packet came for `idle_s` (flowEndReason 1); when TCP ended it, by RST or
      by FIN of both sides and an ACK (3): it stays `linger_s` more, for what is still under way,
      but a SYN begins the next at once. One that goes on for `active_s` is told then (2) and
      counted from 0 again, its direction and labels kept. At the end of the pipeline all others
      are told (4).
    - Time is that of the packets. A packet that comes out of order counts as if it came in order,
      and its own time may become the first or the last.
    - Each queue meters by itself. Where the NIC puts the two directions of a connection on
      different queues, they are two records, each with one direction.

    Where there is no room for a flow it is not metered (`no_room_flows`, `no_room_packets`; flows
    are told apart as long as those without room are fewer than some 65,536) or, with `evict`, the
    quietest of eight flows goes for it (5). Memory is allocated once: for each flow 136 to 144
    bytes, and `label_bytes` + 1 for each label, so 9 MiB for 65,536 flows.

    `xdpipe run` has records written by a process off the workers' cores: a full buffer costs
    records (`lost`), never packets. A worker or the writer may be killed at any moment: the flows
    are in memory that the next worker goes on with, and no record is lost or doubled. A file is
    called `….part` until it is complete. `xdpipe check` writes one file.

    Args:
        path: a file, whose name ends in .ndjson, .csv or .parquet: `check` writes it, and `run`
            files beside it whose names begin with it, `flows-DEV-qQUEUE-TIME-NUMBER.ndjson`. Or a
            directory: `check` writes flows.FORMAT in it, and `run`
            `PIPELINE-DEV-FlowMeter-qQUEUE-TIME-NUMBER.FORMAT`. None: nothing is written.
        format: of files in a directory: ndjson (a JSON object a line), csv, or parquet, which takes
            the package pyarrow; None: ndjson.
        idle_s: seconds.
        active_s: seconds.
        linger_s: seconds; None: TCP ends no flow.
        n_flows: flows at the most at once, of each queue.
        labels: columns of texts, of earlier stages: the first that is not empty is kept with the
            flow, of each; up to 8.
        label_bytes: of each are kept, 1 to 255.
        vlan: the outer VLAN id tells flows apart: what has the same addresses in two VLANs is, as a
            rule, two networks. Give False where one network's directions come in different VLANs.
        evict: see above.
        file_mib: MiB (2**20 bytes) of a file at the most, at least 1; of Parquet, before it is
            compressed.
        file_s: begin the next file after so many seconds; None: only when one is full.
        n_files: of each queue, keep so many; None: keep all.
        buffer_mib: MiB of records that may wait to be written, of each queue; rounded up to a power
            of two.

    Raises:
        XdpipeError: a limit that cannot be, a column that is no text, or what it takes is not
            installed.
    """

    counters: ClassVar[tuple[str, ...]] = (
        "metered", "flows", "exported", "lost", "no_room_flows", "no_room_packets", "other",
        "malformed", "idle", "active", "ended", "forced", "resources",
    )  # fmt: skip
    function: ClassVar[str] = "xp_stage_flow_meter"
    idles: ClassVar[bool] = True
    recording: FlowRecording | None

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        format: str | None = None,
        idle_s: float = 60,
        active_s: float = 300,
        linger_s: float | None = 1,
        n_flows: int = 65536,
        labels: Sequence[str] = (),
        label_bytes: int = 64,
        vlan: bool = True,
        evict: bool = False,
        file_mib: float = 256,
        file_s: float | None = 300,
        n_files: int | None = None,
        buffer_mib: int = 16,
    ) -> None:
        for name, seconds in (("idle_s", idle_s), ("active_s", active_s), ("linger_s", linger_s)):
            if seconds is not None and not 0.001 <= seconds <= 1e6:
                raise XdpipeError(f"FlowMeter: {name}={seconds!r}: 0.001 to 1,000,000 seconds")
        if not (isinstance(n_flows, int) and 1 <= n_flows <= 1 << 30):
            raise XdpipeError(f"FlowMeter: n_flows={n_flows!r}: 1 to {1 << 30:,}")
        if not (isinstance(label_bytes, int) and 1 <= label_bytes <= LABEL_MAX):
            raise XdpipeError(f"FlowMeter: label_bytes={label_bytes!r}: 1 to {LABEL_MAX}")
        if not 1 <= file_mib < math.inf:
            raise XdpipeError(f"FlowMeter: file_mib={file_mib!r}: at least 1")
        if file_s is not None and not 0 < file_s < math.inf:
            raise XdpipeError(f"FlowMeter: file_s={file_s!r}: seconds, more than 0, or None")
        if n_files is not None and not (isinstance(n_files, int) and n_files >= 1):
            raise XdpipeError(f"FlowMeter: n_files={n_files!r}: a whole number from 1 on, or None")
        if not (isinstance(buffer_mib, int) and 1 <= buffer_mib <= 1 << 16):
            raise XdpipeError(f"FlowMeter: buffer_mib={buffer_mib!r}: 1 to 65536")
        self.labels = _checked_labels(labels)
        self.requires = (  # type: ignore[misc]
            "flags", "malformed", "l3", "ip_version", "ip_proto", "src", "dst", "l4_sport",
            "l4_dport", "tcp_flags", "icmp_type", "icmp_code", "vlan_tci", *self.labels,
        )  # fmt: skip
        self.options = FlowOptions(
            n_flows, int(idle_s * 1e9), int(active_s * 1e9), int((linger_s or 0) * 1e9),
            self.labels, label_bytes, vlan, evict,
        )  # fmt: skip
        least = _RECORDS_MIN * record_bytes(self.options)
        self._ring_bytes = ring_size(max(buffer_mib * _MIB, least))
        self.path, kind = _checked_path(path, format)
        self.recording = None
        if self.path is not None:
            whole = self.path.suffix[1:] == kind
            self.recording = FlowRecording(
                str(self.path.parent if whole else self.path), int(file_mib * _MIB), file_s,
                n_files, self._ring_bytes, kind, self.path.stem if whole else "", self.options,
            )  # fmt: skip
        self.table: FlowTable | None = None
        self._ring: BlockRing | None = None
        self._fd: int | None = None
        self._live = False
        self._taken = 0
        self._top: dict[str, int] = {}

    def make_state(self, counters: Any) -> Any:
        """Return the state of the C function: a table of flows."""
        if not self._live:
            if self._ring is not None:
                self._ring.close()
            self._ring, self._taken = BlockRing(self._ring_bytes), 0
        self.table = FlowTable(self.options, self._ring, self._fd, counters)
        return self.table.c

    def serve(self, ring: BlockRing | None, fds: list[int], queue: ServedQueue) -> None:
        """Have it write records to this ring once it is bound; see NativeStage.serve.

        With the ring comes the memory that its flows are kept in.
        """
        self._live, self._ring = True, ring
        if ring is not None:
            self._fd = fds.pop(0)
            ring.attach()

    def take(self) -> Records:
        """Return the records that wait, as a copy: see `xdpipe.flow_records.record_dtype`.

        Where nobody else does: outside a worker.
        """
        import numpy as np

        from xdpipe.flow_records import record_dtype  # a worker needs none of it

        dtype = record_dtype(self.options)
        if self._ring is None:
            return np.zeros(0, dtype)
        data, n = self._ring.peek_records(self._taken, dtype.itemsize, 1 << 62)
        records = np.frombuffer(bytes(data), dtype, n)
        self._taken += n * dtype.itemsize
        self._ring.release(self._ring.position._replace(consumer=self._taken))
        return records

    def finish(self) -> Iterator[Records]:
        """End all flows, as forced unless they are over; yield what is told, some at a time."""
        assert self.table is not None
        while self.table.finish(_AT_ONCE):
            yield self.take()
        yield self.take()

    @contextmanager
    def offline(self) -> Iterator[Callable[[], None]]:
        """Write one file while a capture is gone through; what is yielded is called in between."""
        from xdpipe.flow_file import open_flow_file

        with open_flow_file(self.path, self.recording, self.options) as file:
            yield lambda: file.write(self.take())
            self.report()
            for records in self.finish():
                file.write(records)

    def report(self) -> Mapping[str, Any]:
        """Return the number of flows, the memory that they take, and those with the most bytes."""
        if self.table is None:
            return {}
        if not self._live and self.table.n_now:
            self.table.sweep()
            self._top = self._read_top()
        elif self._live:
            self._top = self._read_top()
        return {
            "flows": self.table.n_now,
            "flows_max": self.options.n_flows,
            "memory_mib": round(self.table.n_bytes / _MIB, 1),
            **({"top": self._top} if self._top else {}),
        }

    def _read_top(self) -> dict[str, int]:
        from xdpipe.flow_records import describe

        assert self.table is not None
        return describe(b"".join(self.table.top()), self.options)


def _checked_labels(labels: object) -> tuple[str, ...]:
    if isinstance(labels, str) or not isinstance(labels, list | tuple):
        raise XdpipeError(f"FlowMeter: labels={labels!r}: write a tuple of names of columns")
    if len(set(labels)) < len(labels) or len(labels) > LABELS_MAX:
        raise XdpipeError(f"FlowMeter: labels={labels!r}: up to {LABELS_MAX} different columns")
    for label in labels:
        if label not in COLUMNS or not COLUMNS[label].text:
            texts = ", ".join(name for name, column in COLUMNS.items() if column.text) or "none"
            raise XdpipeError(
                f"FlowMeter: labels={labels!r}: {label!r} is no column of texts; there are: {texts}"
            )
    return tuple(labels)


def _checked_path(path: object, given: str | None) -> tuple[Path | None, str]:
    """Return the path, absolute, and the format."""
    if given is not None and given not in _FORMATS:
        raise XdpipeError(f"FlowMeter: format={given!r}: {', '.join(_FORMATS)}")
    if path is None:
        return None, given or _FORMATS[0]
    if not isinstance(path, str | os.PathLike):
        raise XdpipeError(f"FlowMeter: path={path!r}: name a file or a directory")
    where = Path(os.path.abspath(path))
    kind = given or _FORMATS[0]
    if where.suffix[1:] in _FORMATS:
        if given not in (None, where.suffix[1:]):
            raise XdpipeError(f"FlowMeter: {where.name} is not {given}")
        kind = where.suffix[1:]
    if kind == "parquet" and find_spec("pyarrow") is None:
        raise XdpipeError("FlowMeter: Parquet takes a package: pip install 'xdpipe[parquet]'")
    return where, kind
