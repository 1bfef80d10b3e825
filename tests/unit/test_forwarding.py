"""A worker with two ports: what comes by one goes out of the other, in its frame."""

import numpy as np
import pytest
from shared_queue import N_FRAMES, N_TX, SIZE, SharedQueue

from xdpipe import Pipeline, Steering, XdpipeError
from xdpipe.batch import Batch
from xdpipe.core._core import lib
from xdpipe.verdict import DROP, FORWARD, PASS, TX, Verdict


@pytest.fixture
def queue() -> SharedQueue:
    queue = SharedQueue(bytearray(SIZE), 0, n_ports=2)
    assert queue.adopt() == 0
    lib.xp_refill(queue.worker)
    return queue


def test_each_port_has_its_share_of_the_frames_to_receive_in(queue: SharedQueue) -> None:
    assert [len(side.rings["fill"]) for side in queue.sides] == [N_FRAMES // 2] * 2
    # one is flooded, and drops all: the other keeps its own
    for _ in range(20):
        while queue.sides[0].kernel_receives():
            pass
        while lib.xp_cycle(queue.worker) > 0:
            pass
        assert len(queue.sides[1].rings["fill"]) == N_FRAMES // 2
    assert queue.frames() == list(range(N_FRAMES))


def test_undecided_packets_go_out_of_the_other_port_where_that_is_the_default(
    queue: SharedQueue,
) -> None:
    queue.worker.default_verdict = FORWARD
    near, far = queue.sides
    for side, other in ((near, far), (far, near)):
        for _ in range(3):
            side.kernel_receives()
        came = side.rings["rx"].addresses()
        assert lib.xp_cycle(queue.worker) == 3
        lib.xp_dispatch(queue.worker)
        assert other.rings["tx"].addresses() == came
        while other.kernel_sends():
            pass
        lib.xp_take_back(queue.worker)
    assert [side.count("verdict_forward") for side in queue.sides] == [3, 3]
    assert [side.count("forwarded") for side in queue.sides] == [3, 3]
    assert queue.count("verdict_tx") == 0
    assert queue.frames() == list(range(N_FRAMES))


def test_a_full_tx_ring_drops_the_tail_and_the_port_that_it_is_counts_it(
    queue: SharedQueue,
) -> None:
    queue.worker.default_verdict = FORWARD
    near, far = queue.sides
    for _ in range(N_TX + 2):
        near.kernel_receives()
    assert lib.xp_receive(queue.worker) == N_TX + 2
    lib.xp_dispatch(queue.worker)
    assert (far.count("tx_submitted"), far.count("tx_no_room")) == (N_TX, 2)
    assert (near.count("verdict_forward"), far.count("forwarded")) == (N_TX + 2, N_TX + 2)
    assert near.count("tx_no_room") == 0
    assert queue.frames() == list(range(N_FRAMES))


def test_ports_are_served_in_turn(queue: SharedQueue) -> None:
    ports = []
    for _ in range(3):
        for side in queue.sides:
            while side.kernel_receives():
                pass
        assert lib.xp_cycle(queue.worker) > 0
        ports.append(lib.xp_batch_port(queue.batch))
    assert ports == [0, 1, 0]


def test_forward_to_the_port_that_it_came_by_is_tx(queue: SharedQueue) -> None:
    near, _ = queue.sides
    near.kernel_receives()
    assert lib.xp_receive(queue.worker) == 1
    assert lib.xp_forward(queue.batch, b"\1", 0) == 1
    lib.xp_dispatch(queue.worker)
    assert (near.count("verdict_tx"), near.count("tx_submitted")) == (1, 1)
    assert queue.count("verdict_forward") == 0


def test_forward_to_a_port_that_there_is_not_is_invalid(queue: SharedQueue) -> None:
    queue.sides[0].kernel_receives()
    assert lib.xp_receive(queue.worker) == 1
    assert lib.xp_forward(queue.batch, b"\1", 2) == 1
    lib.xp_dispatch(queue.worker)
    assert queue.count("verdict_invalid") == 1
    assert queue.frames() == list(range(N_FRAMES))


def loaded(*ports: str) -> Batch:
    batch = Batch(bytearray(1 << 16), 8, ports)
    batch.load([b"x" * 60] * 4)
    batch.set_port(ports[0])
    return batch


def test_forward_touches_only_the_undecided() -> None:
    batch = loaded("a", "b", "c")
    assert batch.port == "a"
    assert batch.drop(np.array([True, False, False, False])) == 1
    assert batch.forward(np.array([True, True, False, False]), "c") == 1
    assert batch.forward(np.array([True, True, True, False]), "b") == 1
    assert batch.verdict.tolist() == [DROP, FORWARD, FORWARD, Verdict.UNDECIDED]
    assert batch.out_port.tolist()[1:3] == [2, 1]


def test_of_two_ports_the_other_one_need_not_be_named() -> None:
    batch = loaded("a", "b")
    batch.set_port("b")
    assert batch.forward(np.array([True] * 4)) == 4
    assert batch.out_port.tolist() == [0] * 4


@pytest.mark.parametrize(
    ("ports", "port"), [(("a", "b"), "c"), (("a", "b", "c"), None), (("",), None), (("",), "a")]
)
def test_forward_to_what_is_no_port_is_told(ports: tuple[str, ...], port: str | None) -> None:
    batch = loaded(*ports)
    with pytest.raises(ValueError, match="the pipeline's ports are: "):
        batch.forward(np.array([True] * 4), port)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"default": FORWARD}, "write ports=('inside', 'outside')"),
        ({"default": FORWARD, "ports": ("a", "b", "c")}, "out of the other port, of two"),
        ({"ports": "ab"}, "write a tuple of names"),
        ({"ports": ()}, "write a tuple of names"),
        ({"ports": ("a", "")}, "write a tuple of names"),
        ({"ports": ("a", "b=c")}, "write a tuple of names"),
        ({"ports": ("a", "a")}, "different names"),
        ({"ports": tuple("abcdefghi")}, "up to 8"),
        ({"ports": ("a", "b"), "steering": {"a": "udp"}}, "one for each port: a, b"),
        ({"ports": ("a", "b"), "steering": {"a": "udp", "b": 7}}, "write Steering('filter')"),
    ],
)
def test_ports_that_make_no_sense_are_told(arguments: dict[str, object], told: str) -> None:
    with pytest.raises(XdpipeError, match=told.replace("(", r"\(").replace(")", r"\)")):
        Pipeline(**{"steering": "udp", **arguments})  # type: ignore[arg-type]


def test_each_port_can_have_a_steering_of_its_own() -> None:
    both = Pipeline(Steering("tcp"), ports=("a", "b"))
    assert [each.filter for each in both.steerings] == ["tcp", "tcp"]
    each = Pipeline({"b": "udp", "a": Steering("tcp", guard=False)}, ports=("a", "b"))
    assert [(s.filter, s.guard) for s in each.steerings] == [("tcp", False), ("udp", True)]
    assert Pipeline("udp", default=PASS).ports == ("",)
    assert Pipeline("udp", default=TX).steerings == (Steering("udp"),)
