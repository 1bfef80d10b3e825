"""What a receiver makes of what its workers report, without an interface."""

from typing import Any

import pytest

from crafted import batch_of, udp
from stamped import RUN, Stamp, stamped
from xdpipe.filter import Filter
from xdpipe.pipeline import load_pipeline
from xdpipe.stages import Measure
from xdpipe.traffic import probe
from xdpipe.traffic.receiver import (
    _FILE,
    PORT,
    STAMPED,
    Receiver,
    ReceiverOptions,
    receiving,
)
from xdpipe.verdict import DROP, PASS


class FakeSupervisor:
    """Says what two workers measured, and what the kernel dropped so far."""

    error = ""
    stop_asked = False

    def __init__(self) -> None:
        self.queues = [Measure(window=64), Measure(window=64)]
        self.dropped = 0
        self.more: list[list[Stamp]] = []
        for stage in self.queues:
            stage.bind_alone()

    def came(self, queue: int, *stamps: Stamp) -> None:
        self.queues[queue].process(stamped(stamps))

    def poll(self, timeout_s: float) -> None:
        if self.more:
            self.came(0, *self.more.pop())

    def status(self, *, reports: bool = False) -> dict[str, Any]:
        counters = {n: sum(q.counted(n) for q in self.queues) for n in Measure.counters}
        told = [report for queue in self.queues if (report := queue.report())] if reports else []
        return {
            "stages": [
                {"name": "Headers", "counters": {}, "reports": []},
                {"name": "Measure", "counters": counters, "reports": told},
            ],
            "ledger": {
                "kernel_drops": {"rx_dropped": self.dropped, "rx_ring_full": 0},
                "redirect_failed": 0,
            },
        }


@pytest.fixture
def supervisor() -> FakeSupervisor:
    return FakeSupervisor()


@pytest.fixture
def receiver(supervisor: FakeSupervisor) -> Receiver:
    receiver = Receiver(ReceiverOptions("eth0"), print)
    receiver._supervisor = supervisor  # type: ignore[assignment]
    return receiver


def test_queues_are_added_up(supervisor: FakeSupervisor, receiver: Receiver) -> None:
    supervisor.came(0, Stamp(0), Stamp(3), Stamp(3))
    supervisor.came(1, Stamp(1), Stamp(0, stream=1))
    assert receiver.n_stamped() == 5
    (found,) = receiver.measurements()
    assert (found.packets, found.lost, found.run) == (4, 1, RUN)


def test_what_was_dropped_here_is_told_of_the_trial_that_it_was_in(
    supervisor: FakeSupervisor, receiver: Receiver
) -> None:
    supervisor.came(0, Stamp(0, run=1))
    supervisor.dropped = 7
    first = receiver.take(1, 10)
    assert (first.sent, first.lost, first.receiver_dropped) == (10, 9, 7)
    supervisor.came(1, Stamp(0, run=2))
    second = receiver.take(2, 1)
    assert (second.sent, second.lost, second.receiver_dropped) == (1, 0, 0)
    nothing = receiver.take(3, 5)
    assert (nothing.packets, nothing.lost) == (0, 5)


def test_it_settles_when_no_more_come(supervisor: FakeSupervisor, receiver: Receiver) -> None:
    supervisor.more = [[Stamp(n)] for n in range(5)]
    receiver.settle(0.01)
    assert supervisor.more == []
    assert receiver.n_stamped() == 5


@pytest.mark.parametrize(("passes", "default"), [(True, PASS), (False, DROP)])
def test_the_file_that_workers_load_is_that_pipeline(
    passes: bool, default: int, tmp_path: Any
) -> None:
    file = tmp_path / "measure.py"
    file.write_text(_FILE.format(filter="udp dst port 9", run=5, passes=passes))
    pipeline = load_pipeline(file)
    assert pipeline.steerings[0].filter == "udp dst port 9"
    assert pipeline.default == default
    assert pipeline.ports == (PORT,)
    assert not pipeline.steerings[0].guard
    assert receiving(STAMPED, None, passes=True).infos == pipeline.infos


TAGS = {"none": b"", "one": b"\x81\0\0\5", "two": b"\x88\xa8\0\5\x81\0\0\7"}


@pytest.mark.parametrize("tags", TAGS.values(), ids=TAGS)
@pytest.mark.parametrize("padding", [0, 6])
@pytest.mark.parametrize("address", ["10.0.0.1", "2001:db8::1"])
def test_the_filter_takes_what_is_stamped_alone(tags: bytes, padding: int, address: str) -> None:
    taken = Filter(STAMPED)
    batch = batch_of([udp(address, address, size=40)])
    assert probe.place(batch, RUN).all()
    packet = bytes(batch.packet(0))
    tagged = packet[:12] + tags + packet[12:] + bytes(padding)
    assert taken.matches(tagged)
    at = len(packet) + len(tags) - 18
    assert not taken.matches(tagged[:at] + b"\0" + tagged[at + 1 :])
    assert not taken.matches(tagged[: at + 1])
