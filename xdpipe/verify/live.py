"""The same capture through a pipeline that runs: namespaces, a veth pair, AF_XDP, a worker.

    sender (a namespace)                    host (a namespace)
      a packet socket, which sends the  c0 === h0   XDP program, one queue
      capture in its order                          a worker: the pipeline, as `xdpipe run` runs it
                                                    a tap: packets as they come and as they leave

Facts that this rests on:
- With one queue, packets come to the worker in the order in which they were sent.
- A tap shows packets in that order, each as it came and as the stages left it, with its verdict.
  What is filled in only as a packet leaves (Batch.fill_checksum) is not in it yet.
- Nobody has an address there, so what comes out of the interfaces is answered by nobody.
- The guard is off (`run --no-guard`): what it would keep does not depend on the pipeline, and there
  is no operator to be cut off. So the filter alone says what is taken.
- Nothing is lost: xdpipe/verify/sender.py.

The clock is that of the machine, and batches are as they come. What depends on either may differ.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from xdpipe.capture import CaptureReader, CaptureWriter
from xdpipe.check import CaptureBatches
from xdpipe.errors import XdpipeError
from xdpipe.foreground import supervise
from xdpipe.link import Link
from xdpipe.netns import Namespace, VethEnd, veth_pair
from xdpipe.pipeline import load_pipeline
from xdpipe.run_options import RunOptions
from xdpipe.rundir import RunDir
from xdpipe.verify.outcome import NOT_TAKEN, Outcome, observe, stage_counters
from xdpipe.verify.sender import Seen, Sender

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path


_ETHERNET = 14
"""Bytes of a header without a tag, by which a packet is longer than the MTU says."""
_MTUS = (1500, 3000)
"""The usual one, and the largest of which all packets can be given back to the kernel."""
_LINK_COUNTERS = ".partial_checksum"
"""Ending of counters of what only a link can tell."""


@dataclass
class LiveOutcome:
    """What became of the packets that were sent, beside what was to.

    Attributes:
        recorded: what was to become of them, as far as that can be seen here.
        now: what did.
        unsent: why packets were not sent, by number, from 0.
        by_sets: packets that sets of addresses in the kernel decided.
    """

    recorded: Outcome
    now: Outcome
    unsent: dict[int, str]
    by_sets: int

    def is_sent(self) -> NDArray[np.bool_]:
        """Return which packets were: bool[n]."""
        sent = np.ones(len(self.now), np.bool_)
        sent[list(self.unsent)] = False
        return sent


def why_unsent(capture: str | Path) -> tuple[dict[int, str], int]:
    """Look for packets that cannot be sent over a veth pair.

    Returns:
        Why, by number, from 0; and the MTU that the others need.
    """
    parts: list[NDArray[np.int32]] = []
    batches = CaptureBatches(capture, 4096)
    try:
        parts.extend(batch.len.copy() for batch in batches)
    finally:
        batches.close()
    lens = np.concatenate(parts) if parts else np.zeros(0, np.int32)
    mtu = next((m for m in _MTUS if (lens <= m + _ETHERNET).all()), _MTUS[-1])
    longest = mtu + _ETHERNET
    unsent = {int(i): f"shorter than {_ETHERNET} bytes" for i in np.flatnonzero(lens < _ETHERNET)}
    unsent |= {int(i): f"longer than {longest} bytes" for i in np.flatnonzero(lens > longest)}
    return unsent, mtu


def sent_alone(capture: str | Path, unsent: dict[int, str], path: str) -> None:
    """Write a capture of the packets that can be sent."""
    with CaptureReader(capture) as reader, CaptureWriter(path) as writer:
        for number, packet in enumerate(reader):
            if number not in unsent:
                writer.write(packet.time_ns, packet.data)


class Bench:
    """The two namespaces and the veth pairs, one for each port; a context manager.

    Args:
        ports: names of the pipeline's.
        port: the one that packets come by.

    Raises:
        XdpipeError: the privilege is missing.
    """

    def __init__(self, ports: Sequence[str], port: str) -> None:
        self._stack = ExitStack()
        self.ports, self._port = ports, port
        self.host, self.sender = (self._namespace() for _ in range(2))

    def _namespace(self) -> Namespace:
        namespace = Namespace()
        self._stack.callback(namespace.close)
        return namespace

    def join(self, mtu: int) -> dict[str, str]:
        """Make the veth pairs; return the host's ends by the ports' names."""
        others = [port for port in self.ports if port != self._port]
        devs = {}
        for number, port in enumerate([self._port, *others]):
            veth_pair(
                VethEnd(f"h{number}", self.host, offloads=False),
                VethEnd(f"c{number}", self.sender, offloads=False), n_queues=1, mtu=mtu,
            )  # fmt: skip
            devs[port] = f"h{number}"
        return devs

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


def observe_live(
    file: str,
    capture: str | Path,
    bench: Bench,
    recorded: Outcome,
    unsent: tuple[dict[int, str], int],
    *,
    tell: Callable[[str], None],
    progress: Callable[[int, int], None] = lambda n, total: None,
) -> LiveOutcome:
    """Run a pipeline on a veth pair, send it a capture, and take down what becomes of it.

    On the main thread: workers die with it.

    Args:
        file: the pipeline's.
        capture: path of the file.
        bench: where; used once.
        recorded: what is to become of the packets.
        unsent: what `why_unsent` said.
        tell: told in a line what happens.
        progress: told packets sent, and packets in all.

    Raises:
        XdpipeError: the pipeline does not run here; packets were lost on the way; it was
            interrupted.
    """
    why, mtu = unsent
    numbers = np.setdiff1d(np.arange(len(recorded)), list(why))
    if not len(numbers):
        raise XdpipeError(f"{capture}: no packet in it can be sent")
    with ExitStack() as stack:
        devs = bench.join(mtu)
        path: str | Path = capture
        if why:
            fd = os.memfd_create("sent.pcap")
            stack.callback(os.close, fd)
            path = f"/proc/self/fd/{fd}"
            sent_alone(capture, why, path)
            recorded = _of_those_sent(file, path, numbers, recorded)
        seen = Seen(path, numbers, recorded)
        stack.callback(seen.close)
        stack.enter_context(bench.host)
        first = devs[bench.ports[0]]  # where the pipeline answers
        run_dir = RunDir.of(Link.find(first).index)
        taken = np.cumsum(recorded.is_taken()[numbers])
        sender = Sender(path, bench.sender, run_dir, taken, seen, progress)
        stack.callback(sender.end)
        options = RunOptions(file=file, devs=devs, queues=(0,), guard=False)
        final = supervise(options, None, tell=tell, begin=sender.start, end=sender.end)
    if sender.error is not None:
        raise sender.error
    if final["error"]:
        raise XdpipeError(f"{final['error']}; the pipeline ended")
    if not sender.done:
        raise XdpipeError("interrupted before everything was sent")
    _require_whole(final, len(numbers), seen)
    return _held_against(recorded, final, seen, why, len(numbers))


def _of_those_sent(file: str, path: str, numbers: NDArray[np.int64], recorded: Outcome) -> Outcome:
    """Return what becomes of the packets that are sent where the others are not there.

    Without them stages count less, and what they remember is another thing.
    """
    alone = observe(load_pipeline(file), path, port=recorded.port, batch_size=recorded.batch_size)
    names = tuple(sorted({*alone.names, NOT_TAKEN}))
    places = np.full(len(recorded), names.index(NOT_TAKEN), np.uint8)
    places[numbers] = np.array([names.index(name) for name in alone.names], np.uint8)[alone.places]
    rewritten = {int(numbers[number]): text for number, text in alone.rewritten.items()}
    return replace(
        recorded, names=names, places=places, rewritten=rewritten, counters=alone.counters
    )


def _require_whole(final: dict[str, Any], n_sent: int, seen: Seen) -> None:
    """Check that the machine lost nothing, which would say nothing of the pipeline.

    Raises:
        XdpipeError: it did.
    """
    ledger = final["ledger"]
    restarts = sum(worker["restarts"] for worker in final["workers"])
    if restarts or ledger["verdicts"]["LOST_WITH_WORKER"]:
        raise XdpipeError(f"its worker died {restarts} times on the way; see above")
    drops = sum(ledger["kernel_drops"].values()) + ledger["redirect_failed"]
    lost = n_sent - ledger["seen"] + drops
    if lost or ledger["residual"] or seen.n_in != ledger["received"]:
        raise XdpipeError(
            f"{lost:,} of {n_sent:,} packets were lost on the way (residual "
            f"{ledger['residual']}); is the machine very busy? try again"
        )
    if seen.n_out != seen.n_in and not ledger["verdicts"]["INVALID"]:
        raise XdpipeError(f"of {seen.n_in:,} packets that came, {seen.n_out:,} were seen to leave")
    if ledger["verdicts"]["INVALID"]:
        n = ledger["verdicts"]["INVALID"]
        raise XdpipeError(f"{n:,} packets got a verdict that there is not; a tap does not show it")


def _held_against(
    recorded: Outcome, final: dict[str, Any], seen: Seen, why: dict[int, str], n_sent: int
) -> LiveOutcome:
    """Return what is to be and what is, both as far as a tap and a ledger tell it."""
    is_now = [seen.verdicts.get(number, NOT_TAKEN) for number in range(len(recorded))]
    of_name = [name.partition(" ")[0] for name in recorded.names]  # the tap tells no port
    names = tuple(sorted({*is_now, *of_name}))
    to_be = np.array([names.index(name) for name in of_name], np.uint8)[recorded.places]
    now = replace(
        recorded, names=names, places=np.array([names.index(name) for name in is_now], np.uint8),
        rewritten=seen.rewritten, counters=_counters(final),
    )  # fmt: skip
    counters = {
        name: n for name, n in recorded.counters.items()
        if not name.startswith("sets.") and not name.endswith(_LINK_COUNTERS)
    }  # fmt: skip
    n_taken = int(recorded.is_taken().sum())  # what was not sent is not taken either
    counters |= {
        "ledger.seen": n_sent,
        "ledger.not_matched": n_sent - n_taken,
        "ledger.received": n_taken,
        "ledger.refused": 0,
    }
    totals = recorded.totals()
    for port in final["ports"]:
        counters[f"ledger.forwarded {port['name']}"] = totals.get(f"FORWARD {port['name']}", 0)
    by_sets = final["ledger"]["set_dropped"] + final["ledger"]["to_kernel"]["set_passed"]
    to_be_seen = replace(recorded, names=names, places=to_be, counters=counters)
    return LiveOutcome(to_be_seen, now, why, by_sets)


def _counters(final: dict[str, Any]) -> dict[str, int]:
    """Return the counters of the stages and of the ledger."""
    ledger = final["ledger"]
    counters = {
        name: n for name, n in stage_counters(final["stages"]).items()
        if not name.endswith(_LINK_COUNTERS)
    }  # fmt: skip
    counters |= {
        "ledger.seen": ledger["seen"],
        "ledger.not_matched": ledger["to_kernel"]["not_matched"],
        "ledger.received": ledger["received"],
        "ledger.refused": sum((*ledger["refused"].values(), *ledger["pass_refused"].values())),
    }
    for port in final["ports"]:
        counters[f"ledger.forwarded {port['name']}"] = port["forwarded"]
    return counters
