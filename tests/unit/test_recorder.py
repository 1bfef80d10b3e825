"""What a stage Record copies, written to files: rotation, full disks, a recorder that is killed."""

import errno
import mmap
import os
import select
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from xdpipe.batch import Batch
from xdpipe.block_ring import BlockRing, Position
from xdpipe.capture import CaptureReader
from xdpipe.chain import Chain
from xdpipe.disk import Disk, ThreadDisk, UringDisk
from xdpipe.errors import XdpipeError
from xdpipe.pcapng import Interface
from xdpipe.recorder import Recorder, Stream
from xdpipe.stage import ServedQueue
from xdpipe.stages import Record
from xdpipe.verdict import DROP

DISKS = {"io_uring": UringDisk, "threads": ThreadDisk}
PREFIX = "p-h0-Record-q0"
MIB = 1 << 20


class Recorded:
    """A stage Record in a chain, its ring, and the recorder's end of it."""

    def __init__(self, directory: Path, disk: Disk, ring_mib: int = 4, **more: object) -> None:
        self.directory = directory
        self.disk = disk
        self.stage = Record(directory, buffer_mib=ring_mib, **more)  # type: ignore[arg-type]
        self.ring = BlockRing(self.stage.recording.ring_bytes)
        self.stage.serve(self.ring, [], ServedQueue(["Record"], 0, 1))
        self.batch = Batch(mmap.mmap(-1, 4 * MIB), 256)
        self.chain = Chain([self.stage], self.batch)
        self.told: list[str] = []
        self.now = 100.0
        self.n = 0
        self.new_recorder()

    def new_recorder(self) -> None:
        """Take one into use that knows nothing of those before."""
        fd = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY)
        ring = BlockRing(self.ring.size, os.dup(self.ring.fd))
        interfaces = [Interface("h0-q0-Record", "a test", 262144)]
        self.stream = Stream(
            ring, self.stage.recording, PREFIX, fd, interfaces, self.disk, self.told.append
        )
        self.recorder = Recorder([self.stream], self.disk)

    def comes(self, n: int, size: int = 1000) -> None:
        """Have n packets come by, numbered throughout."""
        for first in range(0, n, 256):
            k = min(256, n - first)
            self.batch.load(
                [(self.n + i).to_bytes(8, "big") + bytes(size - 8) for i in range(k)], 7
            )
            self.chain.run()
            self.n += k

    def turn(self, passed_s: float = 0.0, *, flush: bool = False) -> None:
        self.now += passed_s
        self.recorder.turn(self.now, flush=flush)

    def wait(self) -> None:
        """Wait until nothing is under way, and take note of that."""
        while self.disk.n_under_way:
            select.select([self.disk.fileno()], [], [], 5)
            self.turn()

    @property
    def files(self) -> list[Path]:
        return sorted(self.directory.iterdir())

    def numbers(self, files: Sequence[Path] | None = None) -> list[int]:
        """Return the numbers of the packets in files, in order; each file must be a whole one."""
        found = []
        for path in self.files if files is None else files:
            reader = CaptureReader(path)
            found += [int.from_bytes(packet.data[:8], "big") for packet in reader]
            assert reader.truncated is None
            reader.close()
        return found

    @property
    def counters(self) -> dict[str, int]:
        return dict(self.chain.read_counts()[0]["counters"])


@pytest.fixture(params=DISKS)
def disk(request: pytest.FixtureRequest) -> Iterator[Disk]:
    try:
        disk = DISKS[request.param]()
    except XdpipeError as error:
        pytest.skip(f"this machine has no io_uring for us: {error}")
    yield disk
    disk.close()


def finish(recorded: Recorded) -> None:
    recorded.recorder.finish(1e18)


def test_files_hold_every_packet_in_order_and_none_is_too_long(disk: Disk, tmp_path: Path) -> None:
    recorded = Recorded(tmp_path, disk, file_mib=1)
    for _ in range(20):
        recorded.comes(500)
        recorded.turn(0.3)
    recorded.wait()
    finish(recorded)
    assert recorded.numbers() == list(range(10_000))
    assert len(recorded.files) > 5
    assert all(path.stat().st_size <= MIB for path in recorded.files)
    assert all(path.stat().st_size > MIB // 2 for path in recorded.files[:-1])
    assert [int(path.stem.rpartition("-")[2]) for path in recorded.files] == list(
        range(1, len(recorded.files) + 1)
    )
    assert recorded.counters == {"recorded": 10_000, "lost": 0}
    assert recorded.ring.position.packets == 10_000


def test_little_waits_a_while_and_is_written_then(disk: Disk, tmp_path: Path) -> None:
    recorded = Recorded(tmp_path, disk)
    recorded.comes(3)
    recorded.turn()  # the first since ever
    recorded.wait()
    assert recorded.ring.position.packets == 3
    recorded.comes(3)
    recorded.turn(0.1)
    assert disk.n_under_way == 0
    recorded.turn(0.2)
    recorded.wait()
    assert recorded.ring.position.packets == 6
    finish(recorded)


def test_old_files_go_where_only_so_many_are_kept(disk: Disk, tmp_path: Path) -> None:
    other = tmp_path / "p-h0-Record-q1-20200101T000000Z-000001.pcapng"
    other.touch()
    (tmp_path / f"{PREFIX}-20200101T000000Z-000009.pcapng").touch()  # of an earlier run
    recorded = Recorded(tmp_path, disk, file_mib=1, n_files=3)
    for _ in range(10):
        recorded.comes(700)
        recorded.turn(0.3)
        recorded.wait()
    finish(recorded)
    own = [path for path in recorded.files if path != other]
    assert len(own) == 3
    kept = recorded.numbers(own)
    assert kept == list(range(kept[0], 7000))
    assert other.exists()


def test_a_file_ends_when_its_time_is_over(disk: Disk, tmp_path: Path) -> None:
    recorded = Recorded(tmp_path, disk, file_s=10)
    for _ in range(3):
        recorded.comes(10)
        recorded.turn(6)
        recorded.wait()
    finish(recorded)
    assert [len(recorded.numbers([path])) for path in recorded.files] == [20, 10]


def test_compressed_files_hold_the_same(disk: Disk, tmp_path: Path) -> None:
    recorded = Recorded(tmp_path, disk, zstd=True, comments=True)
    recorded.comes(2000)
    recorded.turn(1)
    recorded.wait()
    recorded.comes(100)
    finish(recorded)
    [path] = recorded.files
    assert path.name.endswith(".pcapng.zst")
    assert path.stat().st_size < 100_000
    plain = tmp_path / "plain.pcapng"
    subprocess.run(["zstd", "-q", "-d", str(path), "-o", str(plain)], check=True)
    assert recorded.numbers([plain]) == list(range(2100))


def test_a_full_ring_loses_packets_which_are_counted(disk: Disk, tmp_path: Path) -> None:
    recorded = Recorded(tmp_path, disk, ring_mib=1)
    recorded.comes(2000)
    counters = recorded.counters
    assert counters["recorded"] + counters["lost"] == 2000
    assert counters["lost"] > 900
    finish(recorded)
    assert recorded.numbers() == list(range(counters["recorded"]))


class FaultyDisk(ThreadDisk):
    """One that fails as a plan says: for each write None (go on), an errno, or bytes to write."""

    def __init__(self, plan: Sequence[int | None]) -> None:
        super().__init__()
        self.plan = list(plan)

    def write(self, fd: int, data: memoryview | bytes, offset: int) -> int:
        step = self.plan.pop(0) if self.plan else None
        if step is None:
            return super().write(fd, data, offset)
        if step > 0:
            return super().write(fd, memoryview(data)[:step], offset)
        self._n += 1
        self.n_under_way += 1
        self._done.append((self._n, step))
        os.eventfd_write(self._event, 1)
        return self._n


FULL = -errno.ENOSPC


@pytest.mark.parametrize(
    "plan",
    [[FULL], [None, FULL], [None, FULL, None], [None, 5000, FULL], [FULL, FULL, None, FULL],
     [100, 7], [None, None, 1, 2, 3]],
)  # fmt: skip
@pytest.mark.parametrize("zstd", [False, True])
def test_no_packet_is_lost_or_doubled_when_writes_fail(
    tmp_path: Path, plan: list[int | None], zstd: bool
) -> None:
    (tmp_path / f"{PREFIX}-20200101T000000Z-000007.pcapng").touch()  # of an earlier run
    recorded = Recorded(tmp_path, FaultyDisk(plan), file_mib=2, zstd=zstd)
    for _ in range(12):
        recorded.comes(300)
        recorded.turn(0.3)
    recorded.wait()
    for _ in range(3):
        recorded.comes(1)
        recorded.turn(2)
        recorded.wait()
    finish(recorded)
    recorded.files[0].unlink()
    if zstd:
        for path in recorded.files:
            subprocess.run(["zstd", "-q", "-d", "--rm", str(path)], check=True)
    assert recorded.numbers() == list(range(recorded.n))
    assert recorded.counters["lost"] == 0
    fails = any(step is not None and step < 0 for step in plan)
    assert bool(recorded.told) is fails
    assert all("No space left on device" in told for told in recorded.told[::2])
    assert set(recorded.told[1::2]) <= {f"{PREFIX}: recorded again"}
    assert len(recorded.told) % 2 == 0  # in the end it could
    recorded.disk.close()


@pytest.mark.parametrize("zstd", [False, True])
def test_the_next_recorder_goes_on_where_a_killed_one_was(tmp_path: Path, zstd: bool) -> None:
    """One is left as it is, whatever it was about; what it had under way may still be written."""
    former = tmp_path / f"{PREFIX}-20200101T000000Z-000007.pcapng"
    former.write_bytes(b"of an earlier run")
    disk = ThreadDisk()
    recorded = Recorded(tmp_path, disk, file_mib=2, zstd=zstd)
    for round_ in range(12):
        recorded.comes(500)
        recorded.turn(0.3)
        if round_ % 3 == 0:
            recorded.wait()
        while disk.n_under_way:  # done or not, nobody hears of it
            select.select([disk.fileno()], [], [], 5)
            list(disk.ended())
        recorded.new_recorder()
    recorded.wait()
    finish(recorded)
    assert former.read_bytes() == b"of an earlier run"
    former.unlink()
    if zstd:
        for path in recorded.files:
            subprocess.run(["zstd", "-q", "-d", "--rm", str(path)], check=True)
    assert recorded.numbers() == list(range(recorded.n))
    disk.close()


def test_a_damaged_ring_ends_its_recording_and_is_told(tmp_path: Path) -> None:
    disk = ThreadDisk()
    recorded = Recorded(tmp_path, disk)
    recorded.comes(10)
    recorded.turn(1)
    recorded.wait()
    os.pwrite(recorded.ring.fd, b"\xff" * 8, 0)
    recorded.turn(1)
    recorded.turn(1)
    finish(recorded)
    assert recorded.numbers() == list(range(10))
    [told] = recorded.told
    assert told.endswith(f"{PREFIX} records nothing any more")
    disk.close()


@pytest.mark.parametrize(
    "at",
    [
        Position(1 << 63, 1, 1, 200), Position(0, 1, 1, 1 << 63), Position(0, 1, 1, 0),
        Position(0, 1, 9, 200), Position((1 << 64) - 1, 1, 1, (1 << 64) - 1),
        Position(0, 1, (1 << 64) - 1, 200),
    ],
)  # fmt: skip
def test_a_position_that_cannot_be_ends_one_recording_and_no_more(
    tmp_path: Path, at: Position
) -> None:
    """A worker that was taken over can write there; the recorder writes the other queues'."""
    disk = ThreadDisk()
    recorded = Recorded(tmp_path, disk)
    recorded.comes(10)
    recorded.turn(1)
    recorded.wait()
    recorded.ring.release(at)
    recorded.comes(10)
    recorded.turn(1)
    recorded.wait()
    assert len(recorded.told) == 0
    recorded.ring.release(at)
    recorded.new_recorder()
    recorded.turn(1)
    finish(recorded)
    [told] = recorded.told
    assert told.endswith(f"{PREFIX} records nothing any more")
    assert recorded.files[0].stat().st_size > 20_000
    disk.close()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"file_mib": 0.5}, "file_mib=0.5: at least 1"),
        ({"file_s": 0}, "file_s=0: seconds, more than 0, or None"),
        ({"n_files": 0}, "n_files=0: a whole number from 1 on, or None"),
        ({"n_files": 1.5}, "n_files=1.5: a whole number"),
        ({"buffer_mib": 1.5}, "buffer_mib=1.5: 1 to 65536"),
        ({"snaplen": 0}, "snaplen=0: 1 to 262144 bytes"),
        ({"buffer_mib": 0}, "buffer_mib=0: 1 to 65536"),
        ({"filter": "and"}, 'filter "and"'),
    ],
)
def test_limits_that_cannot_be_are_one_clear_line(given: dict[str, object], told: str) -> None:
    with pytest.raises(XdpipeError, match=r".*") as caught:
        Record("somewhere", **given)  # type: ignore[arg-type]
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_filter_verdict_and_snap_length_choose(disk: Disk, tmp_path: Path) -> None:
    recorded = Recorded(tmp_path, disk, filter="ether[7] & 1 = 1", verdict=DROP, snaplen=50)
    recorded.batch.load([bytes(7) + bytes([k]) + bytes(90) for k in range(10)])
    recorded.batch.drop(recorded.batch.u8(7) < 6)
    recorded.chain.run()
    finish(recorded)
    reader = CaptureReader(recorded.files[0])
    assert [(p.data[7], len(p.data), p.wire_len) for p in reader] == [
        (1, 50, 98), (3, 50, 98), (5, 50, 98),
    ]  # fmt: skip
    reader.close()


def test_a_chain_that_nobody_records_of_writes_nothing(tmp_path: Path) -> None:
    batch = Batch(mmap.mmap(-1, MIB), 8)
    chain = Chain([Record(tmp_path / "absent")], batch)
    batch.load([bytes(60)])
    chain.run()
    assert chain.read_counts()[0]["counters"] == {"recorded": 0, "lost": 0}
    assert chain.reports() == {"Record": {"recording": "nothing is written"}}
    assert not (tmp_path / "absent").exists()
