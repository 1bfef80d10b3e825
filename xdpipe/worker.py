"""A worker: one process that drains one queue; started by the supervisor, never by hand.

It imports the user's file, gives up all privilege, tells the supervisor what the file declares, and
is then handed its socket, its UMEM and its counters page. From there on it blocks in nothing but
poll(2) on an empty queue.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from xdpipe.assignment import Assignment
from xdpipe.batch import Batch
from xdpipe.block_ring import BlockRing
from xdpipe.chain import Chain, tell_on_stderr
from xdpipe.control import Control, answer_for
from xdpipe.core._core import ffi, lib
from xdpipe.counters import CountersPage
from xdpipe.errors import XdpipeError
from xdpipe.inject import WayBack
from xdpipe.pipeline import Pipeline, load_pipeline
from xdpipe.privilege import die_with_parent, drop_all, find_user, renounce
from xdpipe.set_ring import SetRing
from xdpipe.stage import NativeStage, ServedQueue
from xdpipe.stage_sets import stage_sets
from xdpipe.stages import Headers
from xdpipe.tap import TapOrder, Taps
from xdpipe.umem import Umem
from xdpipe.verdict import PASS
from xdpipe.xsk import Xsk

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_run, _cycle, _CONTROL = lib.xp_run, lib.xp_cycle, lib.XP_CONTROL  # looked up once

POLL_TIMEOUT_MS = 100
"""An idle worker looks around this often, so that its gauges do not grow old."""
DRAIN_TX_MS = 500
"""How long a stopping worker waits for the kernel to send what it was given."""


class Worker:
    """Sockets, UMEM, batch and chain of one queue, and the loop over them.

    Args:
        pipeline: what to run.
        assignment: where and how.
        ports: the sockets; their frames are found and taken over.
        umem: the frames.
        page: where to count.
        control: connection to the supervisor.
        set_ring: for keys of the pipeline's sets; None: it has none.
        tx_checksums: for each port, whether NIC or kernel fill in checksums that are due.
        tx_times: they tell when packets leave.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        assignment: Assignment,
        ports: Sequence[Port],
        umem: Umem,
        page: CountersPage,
        control: Control,
        set_ring: SetRing | None,
        *,
        tx_checksums: Sequence[bool],
        tx_times: bool,
    ) -> None:
        self._control = control
        self._keep = (ports, umem, page, set_ring)
        self.batch = Batch(umem.memory, assignment.batch_size, pipeline.ports)
        sets = stage_sets(pipeline.sets, set_ring) if set_ring is not None else {}
        self.chain = Chain(
            pipeline.stages, self.batch, page.stage_counts, self._tell, sets, pipeline.budget_us
        )
        if tx_times:
            lib.xp_batch_tells_tx_times(self.batch.c)
        headers = ffi.NULL
        if assignment.partial_checksums:
            lib.xp_batch_may_be_partial(self.batch.c)
            if not any(isinstance(stage, Headers) for stage in pipeline.stages):
                self._headers = Headers()
                self._headers.bind_alone()
                headers = self._headers.state
        self._scratch = ffi.new("uint32_t[]", assignment.batch_size * len(ports))
        self._ports = ffi.new(
            "struct xp_port[]",
            [
                {
                    "xsk": port.xsk.c,
                    "counters": page.c_counters(number),
                    "pass": port.way_back.c if port.way_back is not None else ffi.NULL,
                    "tx_checksum": tx_checksum,
                    "hints": assigned.hints,
                    **assigned.before,
                }
                for number, (port, assigned, tx_checksum) in enumerate(
                    zip(ports, assignment.ports, tx_checksums, strict=True)
                )
            ],
        )
        self.c = ffi.new(
            "struct xp_worker *",
            {
                "ports": self._ports,
                "n_ports": len(ports),
                "umem": umem.c,
                "batch": self.batch.c,
                "stages": self.chain.c_stages,
                "n_stages": self.chain.n_lead,
                "idle": self.chain.c_idle,
                "n_idle": len(self.chain.c_idle),
                "default_verdict": pipeline.default,
                "spin_us": assignment.spin_us,
                "always_wake": not assignment.need_wakeup,
                "busy_poll": assignment.busy_poll,
                "hints": any(assigned.hints for assigned in assignment.ports),
                "headers": headers,
                "multi_buffer": assignment.geometry.multi_buffer,
                "control_fd": control.fileno(),
                "poll_timeout_ms": POLL_TIMEOUT_MS,
                "attention": page.c_attention,
                "attended": page.c_attention[0],
                "tx_scratch": self._scratch,
            },
        )
        if assignment.adopt and not umem.adopt(self.c):
            raise XdpipeError(f"queue {assignment.queue}: the kernel still holds frames")
        lib.xp_reconcile(self.c)  # the supervisor, or a worker before us, filled the fill ring
        self._taps = Taps(self.chain, assignment.queue, len(ports))
        self._py_blocks = 0

    def _tell(self, stage: str, error: Exception) -> None:
        tell_on_stderr(stage, error)

    def serve(self) -> None:
        """Turn until the supervisor says stop, or is gone."""
        gc.collect()
        gc.freeze()
        own = _blocks_of(lambda: None)  # what looking costs
        while True:
            self._py_blocks += _blocks_of(self._loop) - own
            if not self._attend():
                return

    def _loop(self) -> None:
        """Turn until the supervisor calls."""
        c, run_rest = self.c, self.chain.run_rest
        if self.chain.native:
            _run(c)
            return
        while True:
            n = _cycle(c)
            if n > 0:
                run_rest()
            elif n == _CONTROL:
                return

    def _attend(self) -> bool:
        """Answer what the supervisor asks; return False when it is time to end."""
        self.c.attended = self.c.attention[0]
        while True:
            try:
                kind, body, fds = self._control.receive(timeout_s=0)
            except (TimeoutError, BlockingIOError):
                return True
            if kind == "report":
                self._control.send("report", self._report())
            elif kind == "tap":
                self._tap(body, fds[0])
            elif kind == "untap":
                self._taps.remove(body["number"])
            elif kind == "stop":
                self._drain(body["drain_rx"])
                self._control.send("done", self._report())
                return False

    def _tap(self, body: Any, fd: int) -> None:
        try:
            ring = BlockRing(body["size"], fd)
            self._taps.add(body["number"], TapOrder.from_dict(body["order"]), ring)
        except XdpipeError as error:
            self._control.send("error", f"tap: {error}")

    def _drain(self, drain_rx: bool) -> None:
        """Finish what lies on the rx ring, then what is on its way out."""
        self.c.poll_timeout_ms = 0
        self.c.spin_us = 0
        while drain_rx and lib.xp_cycle(self.c) > 0:
            self.chain.run_rest()
        if len(self.batch):
            lib.xp_dispatch(self.c)
        lib.xp_drain_tx(self.c, DRAIN_TX_MS)
        if lib.xp_batch_n_sent(self.batch.c):  # a last batch, of no packet, tells of them
            self.chain.run_rest()

    def _report(self) -> dict[str, Any]:
        lib.xp_publish(self.c)
        return {
            "stages": self.chain.reports(),
            "py_blocks": self._py_blocks,
        }


def _blocks_of(function: Callable[[], None]) -> int:
    """Return how many of the interpreter's memory blocks a call leaves allocated."""
    before = sys.getallocatedblocks()
    function()
    return sys.getallocatedblocks() - before


def _hello(pipeline: Pipeline) -> dict[str, Any]:
    return {
        "ports": list(pipeline.ports),
        "steering": [steering.to_dict() for steering in pipeline.steerings],
        "stages": [info.to_dict() for info in pipeline.infos],
        "default": pipeline.default.name,
        "hints": pipeline.wants_hints,
    }


@dataclass
class Port:
    """A socket, and by what packets that came by it are given back; None: by nothing."""

    xsk: Xsk
    way_back: WayBack | None = None


def _tell_stages(pipeline: Pipeline, assignment: Assignment, fds: list[int]) -> None:
    """Tell stages that they serve, and what they record to: RecordMemory, its descriptors first."""
    names = [info.name for info in pipeline.infos]
    queue = ServedQueue(names, assignment.queue, len(assignment.ports))
    left = assignment.n_recordings
    for stage in pipeline.stages:
        if not isinstance(stage, NativeStage):
            continue
        ring = None
        if stage.recording is not None and left:
            ring = BlockRing(stage.recording.ring_bytes, fds.pop(0), populate=True)
            left -= 1
        stage.serve(ring, fds, queue)


def _way_back(fds: Sequence[int], ifindex: int, *, needed: bool) -> WayBack | None:
    """Return by what packets are given back to the kernel, None if by nothing.

    Raises:
        XdpipeError: the kernel does not let us, and it is needed.
    """
    way_back = WayBack(fds[0], fds[1], ifindex)
    try:
        way_back.probe()
    except XdpipeError:
        if needed:
            raise
        way_back.close()
        return None
    return way_back


def _work(control: Control, file: str, user: str, budget_us: float | None) -> None:
    entry = find_user(user)
    renounce()
    pipeline = load_pipeline(file, budget_us)  # with the right to read it, wherever it lies
    drop_all(entry)
    control.send("hello", _hello(pipeline))
    kind, body, fds = control.receive()
    if kind != "serve":
        return
    assignment = Assignment.from_dict(body)
    umem_fd, page_fd, *port_fds = fds
    os.sched_setaffinity(0, {assignment.core})
    umem = Umem(assignment.geometry, umem_fd)
    page = CountersPage(pipeline.infos, len(assignment.ports), page_fd)
    set_ring = SetRing(port_fds.pop(0), port_fds.pop(0)) if assignment.sets else None
    _tell_stages(pipeline, assignment, port_fds)
    ports, pass_fds = [], []
    for assigned in assignment.ports:
        ports.append(Port(Xsk(port_fds.pop(0), assignment.geometry)))
        pass_fds.append([port_fds.pop(0) for _ in range(2 if assigned.way_back else 0)])
    control.send("mapped")  # before Linux 6.4 rings can be mapped only while there is no queue
    kind, body = control.receive_plain()
    if kind != "bound":
        return
    for port, assigned, own_fds in zip(ports, assignment.ports, pass_fds, strict=True):
        if own_fds:
            port.way_back = _way_back(own_fds, assigned.way_back, needed=pipeline.default == PASS)
    worker = Worker(pipeline, assignment, ports, umem, page, control, set_ring, **body)
    control.send("ready")
    worker.serve()


def main(argv: list[str]) -> int:
    """Run as `python -m xdpipe.worker CONTROL_FD PARENT_PID USER FILE [BUDGET_US]`."""
    control_fd, parent, user, file, *budget = argv
    budget_us = float(budget[0]) if budget else None
    die_with_parent(int(parent))
    # What a service manager sends to all processes; the supervisor, which gets it too, has its
    # workers drain their queues first.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    control = Control(socket.socket(fileno=int(control_fd)))
    return answer_for(control, lambda: _work(control, file, user, budget_us))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
