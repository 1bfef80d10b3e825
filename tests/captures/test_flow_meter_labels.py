"""Labels of flows, over all captures: the first server name and host that the stages before saw."""

import mmap
from collections import Counter
from pathlib import Path

import numpy as np

from xdpipe.batch import Batch
from xdpipe.capture import CaptureReader
from xdpipe.chain import Chain
from xdpipe.errors import XdpipeError
from xdpipe.flow_records import rows
from xdpipe.stage import Stage
from xdpipe.stages import FlowMeter, Headers, Http1, TcpStreams, Tls

LABELS = ("tls_sni", "http_host", "http_method")
Ends = frozenset[tuple[bytes, int]]


class Spy(Stage):
    """Note the first text of each TCP flow, in Python."""

    requires = ("src", "dst", "l4_sport", "l4_dport", *LABELS)

    def __init__(self) -> None:
        self.first: dict[str, dict[Ends, str]] = {label: {} for label in LABELS}

    def process(self, batch: Batch) -> None:
        for label in LABELS:
            there = getattr(batch, label)["len"] > 0
            texts = batch.text(label, there)
            for i, text in zip(np.flatnonzero(there).tolist(), texts, strict=True):
                ends = frozenset(
                    (
                        (batch.src[i].tobytes(), int(batch.l4_sport[i])),
                        (batch.dst[i].tobytes(), int(batch.l4_dport[i])),
                    )
                )
                self.first[label].setdefault(ends, text[:40])


def test_each_flow_has_the_first_text_of_each_column(captures: Path) -> None:
    found: Counter[str] = Counter()
    for path in sorted(p for p in captures.rglob("*") if p.is_file()):
        try:
            reader = CaptureReader(path)
        except XdpipeError:
            continue
        spy = Spy()
        # so that no flow ends before the capture does
        meter = FlowMeter(
            labels=LABELS, label_bytes=40, idle_s=1e6, active_s=1e6, linger_s=None, vlan=False
        )
        batch = Batch(mmap.mmap(-1, 8 << 20), 64)
        stages = [Headers(), TcpStreams(), Tls(), Http1(), spy, meter]
        chain = Chain(stages, batch)
        with reader:
            try:
                reader.require_ethernet()
            except XdpipeError:
                continue
            packets = [packet.data for packet in reader]
        for first in range(0, len(packets), 64):
            batch.load(packets[first : first + 64], 1)
            chain.run()
        said: dict[str, dict[Ends, str]] = {label: {} for label in LABELS}
        for records in meter.finish():
            for record, row in zip(records, rows(records, meter.options), strict=True):
                ends = frozenset(
                    (
                        (record["src"].tobytes(), int(record["sport"])),
                        (record["dst"].tobytes(), int(record["dport"])),
                    )
                )
                for label in LABELS:
                    if label in row:
                        said[label][ends] = row[label]
        assert said == spy.first, path
        found.update({label: len(said[label]) for label in LABELS})
    assert found["tls_sni"] > 5
    assert found["http_host"] > 20
