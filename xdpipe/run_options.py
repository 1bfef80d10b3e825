"""How to run a pipeline: what `xdpipe run` is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class RunOptions:
    """How to run a pipeline file.

    Attributes:
        file: the pipeline file.
        devs: interface names, in the present network namespace, by the pipeline's names of its
            ports; of a pipeline with one port that is the empty name.
        queues: receive queues to serve, of each interface; () means all.
        cores: a CPU for each queue; () means to choose.
        mode: `auto`, `zerocopy` or `copy`: what to ask of bind.
        attach: `auto`, `native` or `generic`: how to attach the XDP program.
        batch_size: packets in a batch at the most.
        spin_us: how long an idle worker looks at its ring before it polls; microseconds. Being
            woken costs the kernel's core more than a batch: 20 in place of 50 costs 8 % of the
            packets where 64 come every 21 us (bench/rx.py). Who takes 1000 packets/s spins for 5 %
            of the time.
        guard: keep ARP, neighbour discovery and SSH with the kernel.
        user: whom workers become.
        watchdog_s: kill a worker that makes no turn for so long; seconds; 0: never.
        need_wakeup: have the driver say when it must be woken.
        busy_poll: run the driver's receive work in the worker's own calls.
        frame_size: bytes of a frame; None: as the MTU wants.
        n_frames: frames of each queue, of each interface; rounded up to a power of two. 4096 hold
            what comes within a millisecond or two at full speed, and stay in the caches; more
            bridge over longer times in which a worker does not get its core.
        huge_pages: have the UMEM on pages of 2 MiB.
        budget_us: how long a stage may take for a batch, in place of what the pipeline states;
            microseconds; None: what it states.
    """

    file: str
    devs: Mapping[str, str]
    queues: tuple[int, ...] = ()
    cores: tuple[int, ...] = ()
    mode: str = "auto"
    attach: str = "auto"
    batch_size: int = 512
    spin_us: int = 50
    guard: bool = True
    user: str = "nobody"
    watchdog_s: float = 10.0
    need_wakeup: bool = True
    busy_poll: bool = False
    frame_size: int | None = None
    n_frames: int = 4096
    huge_pages: bool = False
    budget_us: float | None = None


def choose_cores(n_queues: int, allowed: list[int]) -> tuple[int, ...]:
    """Give each queue a CPU of its own, the first one last: it serves interrupts and people.

    With more queues than CPUs they share; the caller is told by the table.
    """
    order = allowed[1:] + allowed[:1]
    return tuple(order[i % len(order)] for i in range(n_queues))
