"""`xdpipe verify` over real captures: what was recorded is found again, and only changes differ."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from hosts import EXAMPLES
from xdpipe.capture import CaptureReader
from xdpipe.check import check
from xdpipe.errors import XdpipeError
from xdpipe.filter import Filter
from xdpipe.pipeline import load_pipeline
from xdpipe.verdict import TX
from xdpipe.verify import compare, observe, read, write
from xdpipe.verify.rewriting import apply, describe

NAMES = sorted(path.name for path in EXAMPLES.glob("*.py"))
PIPELINE = """
from xdpipe import PASS, Batch, Pipeline, Stage
from xdpipe.stages import Headers

class Change(Stage):
    requires = ("flags", "l4_sport", "payload")
    def process(self, batch: Batch) -> None:
        where = batch.has("UDP") & (batch.l4_sport == 53) & ~batch.has("LATER_FRAGMENT")
        CHANGE

pipeline = Pipeline("", [Headers(), Change()], default=PASS)
"""
REWRITE = """
from xdpipe import TX, Batch, Pipeline, Stage
from xdpipe.stages import Headers, SetAddresses, SetVlan, SwapAddresses

class Scramble(Stage):
    requires = ("payload", "payload_len")
    def process(self, batch: Batch) -> None:
        for at in range(0, 600, 2):
            batch.put_u16(batch.payload + at, 0x5A5A, batch.payload_len > 700)
        batch.mark[:] = batch.len % 3

pipeline = Pipeline("", [
    Headers(), Scramble(), SetAddresses(src="192.0.2.1", sport=7), SetVlan(5, push=True, only=1),
    SetVlan(pop=True, only=2), SwapAddresses(),
], default=TX)
"""
DNS = Filter("udp src port 53")
BEYOND = Filter("not ip or not udp or ip[6:2] & 0x1fff != 0 or udp[4:2] < 8 or ip[2:2] < 28")
"""Where Headers sees more than the filter (behind tags), or takes less for UDP."""


def ethernet(captures: Path) -> Iterator[Path]:
    for path in sorted(path for path in captures.rglob("*") if path.is_file()):
        try:
            with CaptureReader(path) as reader:
                reader.require_ethernet()
        except XdpipeError:
            continue
        yield path


@pytest.mark.parametrize("name", NAMES)
def test_an_example_does_again_what_was_recorded(captures: Path, tmp_path: Path, name: str) -> None:
    file, expect = EXAMPLES / name, tmp_path / "expect.json"
    n_files = n_packets = 0
    for path in ethernet(captures):
        outcome = observe(load_pipeline(file), path)
        write(outcome, expect)
        recorded = read(expect)
        now = observe(load_pipeline(file), path, batch_size=512)
        comparison = compare(recorded, now)
        assert comparison.equal, (path, comparison)
        assert recorded.totals() == now.totals()
        assert recorded.rewritten == now.rewritten
        n_files += 1
        n_packets += len(now)
    assert n_files > 300
    assert n_packets > 10_000


def matching(path: Path, wanted: Filter) -> list[int]:
    with CaptureReader(path) as reader:
        return [number for number, packet in enumerate(reader) if wanted.matches(packet.data)]


@pytest.mark.parametrize(
    "change", ["batch.drop(where)", "batch.tx(where)", "batch.put_u8(0, 0xA5, where)"]
)
def test_a_change_names_the_packets_that_libpcap_says_it_is_about(
    captures: Path, tmp_path: Path, change: str
) -> None:
    before, after = tmp_path / "before.py", tmp_path / "after.py"
    before.write_text(PIPELINE.replace("CHANGE", "pass"))
    after.write_text(PIPELINE.replace("CHANGE", change))
    n_found = 0
    for path in ethernet(captures):
        comparison = compare(
            observe(load_pipeline(before), path), observe(load_pipeline(after), path)
        )
        with CaptureReader(path) as reader:
            packets = [packet.data for packet in reader]
        plain = [n for n, packet in enumerate(packets) if not BEYOND.matches(packet)]
        expected = [n for n in plain if DNS.matches(packets[n])]
        found = comparison.packets[np.isin(comparison.packets, plain)].tolist()
        assert found == expected, path
        assert comparison.counters == []
        told = list(comparison.first(path, len(packets)))
        assert [each.number - 1 for each in told] == comparison.packets.tolist()
        n_found += len(found)
    assert n_found > 80


def test_the_bytes_recorded_are_those_that_check_writes(captures: Path, tmp_path: Path) -> None:
    file, out, expect = (tmp_path / name for name in ("change.py", "out.pcap", "expect.json"))
    file.write_text(REWRITE)
    n_packets = n_same = n_hashed = 0
    for path in ethernet(captures):
        write(observe(load_pipeline(file), path), expect)
        recorded = read(expect)
        check(load_pipeline(file), path, write={TX: str(out)})
        with CaptureReader(path) as reader, CaptureReader(out) as left:
            for number, (packet, written) in enumerate(zip(reader, left, strict=True)):
                text = recorded.rewritten.get(number, "")
                after = apply(packet.data, text)
                assert after is not None or describe(packet.data, written.data) == text
                assert after in (None, written.data), (path, number)
                n_packets += 1
                n_same += not text
                n_hashed += after is None
    assert n_packets > 10_000
    assert 0 < n_same < 1000 < n_hashed
