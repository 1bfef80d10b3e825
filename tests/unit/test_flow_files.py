"""Records of flows in files: formats that say the same, rotation, and who may be killed."""

import csv
import gc
import io
import json
import mmap
import os
import select
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flow_meters import ETHER, IP, TCP, UDP, A, B, Meter, S, quick, udp
from scapy.layers.inet import ICMP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6
from scapy.layers.l2 import Dot1Q
from scapy.utils import wrpcap

from xdpipe.batch import Batch
from xdpipe.block_ring import BlockRing
from xdpipe.chain import Chain
from xdpipe.check import check
from xdpipe.disk import ThreadDisk
from xdpipe.errors import XdpipeError
from xdpipe.flow_records import FIELDS, NAMES, record_dtype, rows, to_csv, to_ndjson
from xdpipe.flow_stream import FlowStream
from xdpipe.flow_table import table_bytes
from xdpipe.pipeline import load_pipeline
from xdpipe.process import shared_memory
from xdpipe.recorder import Recorder
from xdpipe.recording import from_dict
from xdpipe.stage import ServedQueue
from xdpipe.stages import FlowMeter, Headers

PREFIX = "p-h0-FlowMeter-q0"
MIB = 1 << 20
FORMATS = ("ndjson", "csv", "parquet")
ATTACHED = 32
"""Where the worker's pid stands in a ring's memory: struct xp_blocks_head."""


def need(kind: str) -> None:
    if kind == "parquet":
        pytest.importorskip("pyarrow", reason="no pyarrow")


def read(path: Path) -> list[dict[str, Any]]:
    """Return what a file says, as lines of JSON would."""
    kind = path.suffix[1:]
    if kind == "ndjson":
        return [json.loads(line) for line in path.read_text().splitlines()]
    if kind == "csv":
        texts = set(NAMES[:8])
        return [
            {
                name: value if name in texts or not value.isdigit() else int(value)
                for name, value in row.items() if value != ""
            }
            for row in csv.DictReader(io.StringIO(path.read_text()))
        ]  # fmt: skip
    from pyarrow import parquet

    table = parquet.read_table(path)
    found = []
    for row in table.to_pylist():
        there = {name: value for name, value in row.items() if value is not None}
        for name in NAMES[:4]:
            if name in there:
                value = there[name]
                there[name] = f"{value.strftime('%Y-%m-%dT%H:%M:%S.%f')}{value.nanosecond:03}Z"
        found.append(there)
    return found


TRAFFIC = [
    udp(), udp(B, A, 53, 5000), ETHER / IP(src=A, dst=B) / TCP(sport=1, dport=2, flags="S"),
    ETHER / Dot1Q(vlan=7) / IP(src=A, dst=B) / ICMP(type=3, code=1),
    ETHER / IPv6(src="fd01::2", dst="fd01::1") / UDP(sport=1, dport=2),
    ETHER / IPv6(src="fd01::2", dst="fd01::1") / ICMPv6EchoRequest(),
    ETHER / IP(src=A, dst=B, proto=47) / b"1234",
]  # fmt: skip

PIPELINE = """
from xdpipe import Pipeline
from xdpipe.stages import FlowMeter, Headers

pipeline = Pipeline("", [Headers(), FlowMeter({path!r}{options})])
"""


def checked(tmp_path: Path, path: Path | None, options: str = "") -> dict[str, Any]:
    capture = tmp_path / "some.pcap"
    for number, packet in enumerate(TRAFFIC):
        packet.time = 1_700_000_000 + number + 0.000001 * number
    wrpcap(str(capture), TRAFFIC)
    file = tmp_path / "meter.py"
    file.write_text(PIPELINE.format(path=None if path is None else str(path), options=options))
    return check(load_pipeline(file), capture)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_check_writes_the_file_asked_for(kind: str, tmp_path: Path) -> None:
    need(kind)
    path = tmp_path / "made" / f"flows.{kind}"
    result = checked(tmp_path, path)
    found = read(path)
    assert len(found) == 6
    assert found[0] == {
        "flowStartNanoseconds": "2023-11-14T22:13:20.000000000Z",
        "flowEndNanoseconds": "2023-11-14T22:13:20.000000000Z",
        "reverseFlowStartNanoseconds": "2023-11-14T22:13:21.000001000Z",
        "reverseFlowEndNanoseconds": "2023-11-14T22:13:21.000001000Z",
        "sourceIPv4Address": A, "destinationIPv4Address": B,
        "sourceTransportPort": 5000, "destinationTransportPort": 53, "protocolIdentifier": 17,
        "packetDeltaCount": 1, "octetDeltaCount": 38,
        "reversePacketDeltaCount": 1, "reverseOctetDeltaCount": 38, "flowEndReason": 4,
    }  # fmt: skip
    assert found[2]["dot1qVlanId"] == 7
    assert found[2]["icmpTypeCodeIPv4"] == found[2]["destinationTransportPort"] == 0x301
    assert found[4]["icmpTypeCodeIPv6"] == 128 << 8
    assert [path.name for path in path.parent.iterdir()] == [path.name]
    counters = result["stages"][1]["counters"]
    assert (counters["exported"], counters["forced"], counters["lost"]) == (6, 6, 0)
    assert len(result["stages"][1]["reports"][0]["top"]) == 6


def test_all_formats_say_the_same(tmp_path: Path) -> None:
    need("parquet")
    found = []
    for kind in FORMATS:
        checked(tmp_path, tmp_path / f"flows.{kind}")
        found.append(read(tmp_path / f"flows.{kind}"))
    assert found[0] == found[1] == found[2]
    assert {name for row in found[0] for name in row} == set(NAMES)


def test_a_check_writes_into_a_directory_too_or_nothing(tmp_path: Path) -> None:
    checked(tmp_path, tmp_path / "flows", ", format='csv'")
    assert len(read(tmp_path / "flows" / "flows.csv")) == 6
    before = set(tmp_path.rglob("*"))
    result = checked(tmp_path, None)
    assert result["stages"][1]["counters"]["flows"] == 6
    assert set(tmp_path.rglob("*")) == before


def test_a_file_takes_the_place_of_an_earlier_one_only_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "flows.ndjson"
    path.write_text("former\n")
    meter = Meter(path=path)
    meter.sees((S, udp()))
    with pytest.raises(ZeroDivisionError), meter.stage.offline() as write_down:
        write_down()
        raise ZeroDivisionError
    assert [path.name for path in tmp_path.iterdir()] == ["flows.ndjson"]
    assert path.read_text() == "former\n"


def test_a_file_that_cannot_be_written_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(XdpipeError, match=r"file/flows\.ndjson: ") as caught:
        checked(tmp_path, tmp_path / "file" / "flows.ndjson")
    assert "\n" not in str(caught.value)


def test_text_that_no_file_should_hold_as_it_is_stands_quoted() -> None:
    options = FlowMeter().options
    object.__setattr__(options, "labels", ("name",))
    object.__setattr__(options, "label_bytes", 16)
    records = np.zeros(2, record_dtype(options))
    text = b'a,"b"\n\xff\\'
    records["len0"] = len(text), 255  # and a length that is more than there is
    records["text0"][0, : len(text)] = np.frombuffer(text, np.uint8)
    records["text0"][1] = ord("z")
    records["ip_version"] = 4
    said = 'a,"b"\n\\xff\\'
    assert [row["name"] for row in rows(records, options)] == [said, "z" * 16]
    lines = to_ndjson(records, options).decode().splitlines()
    assert [json.loads(line)["name"] for line in lines] == [said, "z" * 16]
    parsed = list(csv.reader(io.StringIO(to_csv(records, options).decode(), newline="")))
    assert [row[-1] for row in parsed] == [said, "z" * 16]


def test_fields_are_each_of_another_number_or_way() -> None:
    assert len({(field.number, field.reverse) for field in FIELDS}) == len(FIELDS)
    reverse = [field for field in FIELDS if field.reverse]
    forward = {field.number: field.name for field in FIELDS if not field.reverse}
    for field in reverse:
        name = forward[field.number]
        assert field.name == f"reverse{name[0].upper()}{name[1:]}"


# As the recorder writes


class Metered:
    """A worker's FlowMeter that records to shared memory, and the recorder's end of it."""

    def __init__(self, directory: Path, **options: Any) -> None:
        self.directory = directory
        self.options = {"path": directory, "n_flows": 4096, **options}
        self.disk = ThreadDisk()
        self.told: list[str] = []
        self.now = 100.0
        self.n = 0
        stage = FlowMeter(**self.options)
        assert stage.recording is not None
        recording = from_dict(json.loads(json.dumps(stage.recording.to_dict())))
        assert recording == stage.recording
        self.recording = stage.recording
        self.ring = BlockRing(self.recording.ring_bytes)
        self.table = shared_memory("flows", table_bytes(stage.options))
        self.new_worker()
        self.new_recorder()

    def new_worker(self) -> None:
        """Have another worker go on that knows nothing of those before."""
        stage = FlowMeter(**self.options)
        stage.serve(
            BlockRing(self.ring.size, os.dup(self.ring.fd)), [self.table], ServedQueue([], 0, 1)
        )
        self.batch = Batch(mmap.mmap(-1, MIB), 256)
        self.chain = Chain([Headers(), stage], self.batch)
        self.stage = stage

    def new_recorder(self) -> None:
        """Take one into use that knows nothing of those before."""
        fd = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY)
        ring = BlockRing(self.ring.size, os.dup(self.ring.fd))
        self.stream = FlowStream(
            ring, self.recording, PREFIX, fd, os.dup(self.table), self.disk, self.told.append, 16
        )
        self.recorder = Recorder([self.stream], self.disk)

    def comes(self, n: int) -> None:
        """Have n flows come by, of one packet each, numbered throughout by their ports."""
        for first in range(self.n, self.n + n, 256):
            numbers = range(first, min(first + 256, self.n + n))
            self.batch.load([quick(k & 0xFFFF, k >> 16) for k in numbers], first * S // 100)
            self.chain.run()
        self.n += n

    def turn(self, passed_s: float = 0.0) -> None:
        self.now += passed_s
        self.recorder.turn(self.now)

    def wait(self) -> None:
        """Wait until nothing is under way, and take note of that."""
        while self.disk.n_under_way:
            select.select([self.disk.fileno()], [], [], 5)
            self.turn()

    def finish(self) -> None:
        """Have the worker be gone, and then end the recorder."""
        os.pwrite(self.ring.fd, bytes(8), ATTACHED)
        self.recorder.finish(1e18)

    def numbers(self) -> list[int]:
        """Return the numbers of the flows in all files, each of which must be complete."""
        paths = sorted(self.directory.iterdir())
        assert {path.suffix for path in paths} == {f".{self.recording.format}"}
        found = [row for path in paths for row in read(path)]
        return sorted(
            row["sourceTransportPort"] | row["destinationTransportPort"] << 16 for row in found
        )


@pytest.fixture(params=FORMATS)
def metered(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Metered]:
    need(request.param)
    metered = Metered(tmp_path, format=request.param, idle_s=1, file_mib=1)
    yield metered
    metered.disk.close()
    os.close(metered.table)
    gc.collect()


def test_files_hold_every_record_once_and_none_is_too_long(metered: Metered) -> None:
    for _ in range(20):
        metered.comes(2000)
        metered.turn(0.3)
    metered.wait()
    metered.finish()
    assert metered.numbers() == list(range(40_000))
    files = list(metered.directory.iterdir())
    assert len(files) > 3
    assert all(path.stat().st_size <= MIB for path in files)
    assert metered.ring.position.packets == 40_000
    assert metered.told == []


def test_a_file_is_complete_when_its_time_is_over(metered: Metered) -> None:
    object.__setattr__(metered.recording, "file_s", 10)
    object.__setattr__(metered.recording, "file_bytes", 64 * MIB)
    metered.comes(2000)
    metered.turn(1)
    metered.wait()
    assert [path.suffix for path in metered.directory.iterdir()] == [".part"]
    metered.turn(11)
    [path] = metered.directory.iterdir()
    assert path.suffix == f".{metered.recording.format}"
    assert len(read(path)) == metered.ring.position.packets > 1000
    metered.finish()


def test_old_files_go_where_only_so_many_are_kept(tmp_path: Path) -> None:
    metered = Metered(tmp_path, idle_s=1, file_mib=1, n_files=2)
    for _ in range(20):
        metered.comes(2000)
        metered.turn(0.3)
        metered.wait()
    metered.finish()
    kept = metered.numbers()
    assert len(list(tmp_path.iterdir())) == 2
    assert 1000 < len(kept) < 20_000
    assert kept[-1] == 39_999
    metered.disk.close()


def test_the_next_recorder_goes_on_where_a_killed_one_was(metered: Metered) -> None:
    """One is left as it is, whatever it was about; what it had under way may still be written."""
    disk = metered.disk
    for round_ in range(24):
        metered.comes(1000)
        metered.turn(0.3)
        if round_ % 3 == 0:
            metered.wait()
        while disk.n_under_way:  # done or not, nobody hears of it
            select.select([disk.fileno()], [], [], 5)
            list(disk.ended())
        metered.new_recorder()
    metered.wait()
    metered.finish()
    assert metered.numbers() == list(range(24_000))
    assert metered.told == []


def test_a_recorder_killed_as_it_completes_a_file_leaves_it_to_the_next(
    metered: Metered, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It dies before, or behind any of the steps; each leaves what the next one can go on with."""

    class Killed(BaseException):
        pass

    steps = {"rename": os.rename, "unlink": os.unlink}
    for name, when in (("rename", "before"), ("rename", "behind"), ("unlink", "before")):

        def dies(*args: Any, name: str = name, when: str = when, **more: Any) -> None:
            if when == "behind":
                steps[name](*args, **more)
            raise Killed

        metered.comes(1500)
        metered.turn(0.3)
        metered.wait()
        with monkeypatch.context() as patch:
            patch.setattr(os, name, dies)
            try:
                metered.stream._end_file()
            except Killed:
                pass
            else:
                assert name == "unlink"  # which text does without
        metered.new_recorder()
    metered.comes(500)
    metered.finish()
    assert metered.numbers() == list(range(5000))
    assert metered.told == []


def test_what_an_earlier_run_left_is_completed(metered: Metered) -> None:
    """Neither recorder nor supervisor came to their end, and the last write was cut."""
    metered.comes(3000)
    metered.turn(1)
    metered.wait()
    [part] = metered.directory.iterdir()
    n = metered.ring.position.packets
    with open(part, "r+b") as file:
        file.truncate(part.stat().st_size - 20)
    later = Metered(
        metered.directory, format=metered.recording.format, idle_s=1,
    )  # fmt: skip
    assert [path.suffix for path in later.directory.iterdir()] == [f".{later.recording.format}"]
    assert metered.numbers() == sorted(metered.numbers())
    assert len(metered.numbers()) == n - 1
    later.comes(10)
    later.finish()
    assert len(later.numbers()) == n - 1 + 10
    assert len(list(later.directory.iterdir())) == 2
    later.disk.close()
    os.close(later.table)


def test_a_damaged_ring_ends_its_recording_and_is_told(tmp_path: Path) -> None:
    metered = Metered(tmp_path, idle_s=1)
    metered.comes(3000)
    metered.turn(1)
    metered.wait()
    n = metered.ring.position.packets
    os.pwrite(metered.ring.fd, b"\xff" * 8, 0)
    metered.turn(1)
    metered.turn(1)
    metered.finish()
    assert len(metered.numbers()) == n
    [told] = metered.told
    assert told.endswith(f"{PREFIX} records nothing any more")
    metered.disk.close()


def test_flows_whose_worker_does_not_end_are_told_to_be_lost(tmp_path: Path) -> None:
    metered = Metered(tmp_path, idle_s=1)
    metered.comes(10)
    stream = metered.stream
    stream.finish()
    assert not stream.idle  # it waits for the worker, which is us
    stream._give_up_at = 1.0
    stream.finish()
    assert metered.told == [f"{PREFIX}: its worker does not end; its flows are not written"]
    assert stream.idle
    metered.disk.close()
