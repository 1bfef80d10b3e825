"""The supervisor's side of a worker: its process, and what outlives the process."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from time import monotonic
from typing import TYPE_CHECKING, Any

from xdpipe.assignment import Assignment
from xdpipe.control import Control, ControlClosed
from xdpipe.core._core import ffi, lib
from xdpipe.counters import CountersPage
from xdpipe.errors import XdpipeError
from xdpipe.ledger import VERDICTS
from xdpipe.process import Process, plain_environment
from xdpipe.umem import Umem
from xdpipe.xsk import REOPEN_S, XskStatistics

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from xdpipe.queue_socket import QueueSocket
    from xdpipe.record_memory import RecordMemory
    from xdpipe.run_options import RunOptions
    from xdpipe.set_ring import SetRing
    from xdpipe.stage_info import StageInfo
    from xdpipe.umem import Geometry
    from xdpipe.xsk import Xsk

HELLO_TIMEOUT_S = 60.0
"""How long a worker may take to import the user's file."""
_SLICE_S = 0.1
ENDING_S = 0.2
"""How long a process may take to end after it has closed its control socket."""
_PLACES = ("free", "fill", "kernel", "rx", "batch", "tx", "completion")


class WorkerHandle:
    """One queue: sockets, UMEM and counters page, and the process that serves them now.

    Args:
        queue: number of the queue, of each port.
        core: CPU for the worker.
        options: how the pipeline runs.
    """

    def __init__(self, queue: int, core: int, options: RunOptions) -> None:
        self.queue = queue
        self.core = core
        self._options = options
        self.sockets: tuple[QueueSocket, ...] = ()
        """One of each port."""
        self.set_ring: SetRing | None = None
        """By which the worker hands over keys of sets; None: there are no sets."""
        self.record_memory: list[RecordMemory] = []
        """By which the worker hands over what is written: one of each stage that has it written."""
        self.restarts = -1
        self.ready_at = 0.0
        self.state = "new"
        """new, starting, waiting (has said hello), mapped (waits for bind), serving, stuck (makes
        no turn), done, or lost (nobody serves it)."""
        self.quick_deaths = 0
        """How many of its workers in a row died soon after their start."""
        self._turns = -1
        self._turned_at = 0.0
        self.final_report: dict[str, Any] = {}
        self.rss_bytes = 0

    def spawn(self) -> None:
        """Start a worker process; its hello comes over `control`."""
        self.control, theirs = Control.pair()
        budget_us = self._options.budget_us
        with theirs:
            self.popen = subprocess.Popen(
                [
                    sys.executable, "-P", "-m", "xdpipe.worker",
                    str(theirs.fileno()), str(os.getpid()), self._options.user,
                    self._options.file, *([] if budget_us is None else [str(budget_us)]),
                ],
                pass_fds=[theirs.fileno()],
                env=plain_environment(),
                start_new_session=True,  # no terminal, and Ctrl-C is the supervisor's
                stdin=subprocess.DEVNULL,
                stdout=sys.stderr.fileno(),  # a user's print must not spoil --json
            )  # fmt: skip
        self.process = Process.of(self.popen.pid)
        self.restarts += 1
        self.state = "starting"

    def expect(self, wanted: str, interrupted: Callable[[], bool]) -> Any:
        """Wait for a message of this kind, while the pipeline starts; return what it holds.

        Raises:
            XdpipeError: what the worker said instead; or it ended, said nothing for too long, or we
                were interrupted.
        """
        try:
            kind, body = self._receive(interrupted)
        except ControlClosed:
            status = self.gone()
            raise XdpipeError(
                f"queue {self.queue}: its worker ended with status {status} before it served; "
                f"does {self._options.file} end the process?"
            ) from None
        except TimeoutError:
            raise XdpipeError(
                f"queue {self.queue}: its worker said nothing for {HELLO_TIMEOUT_S:.0f} s; "
                f"does {self._options.file} wait for something when imported?"
            ) from None
        if kind != wanted:
            raise XdpipeError(str(body))
        if kind == "hello":
            self.state = "waiting"
        return body

    def _receive(self, interrupted: Callable[[], bool]) -> tuple[str, Any]:
        end = monotonic() + HELLO_TIMEOUT_S
        while True:
            try:
                return self.control.receive_plain(_SLICE_S)
            except TimeoutError:
                if interrupted():
                    raise XdpipeError("interrupted before it ran") from None
                if monotonic() > end:
                    raise

    def open_sockets(
        self, sockets: Sequence[QueueSocket], geometry: Geometry, infos: Sequence[StageInfo]
    ) -> None:
        """Make UMEM, sockets and counters page, and fill the fill rings.

        Args:
            sockets: one of each port, without a socket yet; owned by this object now.
            geometry: of the UMEM.
            infos: the stages that count on the page.
        """
        self.sockets = tuple(sockets)
        self.page = CountersPage(infos, len(sockets))
        self.umem, xsks = self._make(geometry)
        for socket, xsk in zip(self.sockets, xsks, strict=True):
            socket.xsk = xsk

    def make_record_memory(self, infos: Sequence[StageInfo]) -> None:
        """Make what the worker and the recorders share.

        Raises:
            XdpipeError: no memory for it.
        """
        from xdpipe.record_memory import RecordMemory  # few pipelines record

        for info in infos:
            if info.recording is not None:
                self.record_memory.append(RecordMemory(info.recording))

    def _make(self, geometry: Geometry) -> tuple[Umem, list[Xsk]]:
        """Return a UMEM with fresh sockets over it; where that fails, nothing is left of them."""
        umem = Umem(geometry)
        xsks: list[Xsk] = []
        try:
            for socket in self.sockets:
                xsks.append(socket.make(umem, xsks[0] if xsks else None))
        except BaseException:
            for xsk in xsks:
                xsk.close()
            umem.close()
            raise
        umem.give_all(xsks)
        return umem, xsks

    @property
    def mode(self) -> str:
        """What bind gave: zerocopy or copy; empty while the sockets are not bound."""
        return self.sockets[0].mode if self.sockets else ""

    def bind(self, mode: str, patience_s: float = REOPEN_S) -> None:
        """Bind the sockets to their queues unless they are, and tell the worker; see Xsk.bind."""
        for socket in self.sockets:
            socket.bind(mode, patience_s)
        self.control.send(
            "bound",
            {
                "tx_checksums": [socket.tx_checksum for socket in self.sockets],
                "tx_times": self._tx_times,
            },
        )

    @property
    def _tx_times(self) -> bool:
        return all(socket.tx_times for socket in self.sockets)

    def renew_sockets(self) -> None:
        """Put new sockets, not bound yet, in the place of those that no worker can take over.

        What waits on their rings is lost and counted.

        Raises:
            XdpipeError: no memory for it: the old one's is not free yet.
        """
        self.abandon()
        umem, xsks = self._make(self.umem.geometry)
        for port, (socket, xsk) in enumerate(zip(self.sockets, xsks, strict=True)):
            socket.replace(xsk, self.page.read_port(port))
        self.umem.close()
        self.umem = umem

    @property
    def can_be_adopted(self) -> bool:
        """Whether a next worker can go on with the sockets.

        A zero-copy driver gives back the frames that it has taken from the fill ring only when
        their socket is closed, so nobody could find out which are free.
        """
        return self.mode == "copy" and all(socket.xsk.can_be_mapped for socket in self.sockets)

    @property
    def held_by_kernel(self) -> int:
        """Frames that the kernel holds and that are on no ring."""
        return sum(socket.xsk.held_by_kernel for socket in self.sockets)

    def hurry(self) -> None:
        """Have the kernel go on with what it holds, now that the worker is dead.

        A send call ends when its budget of descriptors is used up, even between two of one packet;
        the kernel keeps what it has of that packet until the next call (xsk_build_skb).
        """
        for socket in self.sockets:
            if socket.xsk.held_by_kernel:
                socket.xsk.kick()

    def hand_over(self, *, adopt: bool) -> None:
        """Give the worker that has said hello what it serves.

        It answers `mapped`; once the sockets are bound and it was told so, `ready`.
        """
        options = self._options
        ring = self.set_ring
        ring_fds = () if ring is None else (ring.fd, ring.event_fd)
        fds = [
            self.umem.fd,
            self.page.fd,
            *ring_fds,
            *(fd for memory in self.record_memory for fd in memory.fds),
            *(fd for socket in self.sockets for fd in socket.fds),
        ]
        assignment = Assignment(
            self.queue, self.core, options.batch_size, options.spin_us, self.umem.geometry, adopt,
            options.need_wakeup, options.busy_poll,
            any(socket.partial_checksums for socket in self.sockets), ring is not None,
            len(self.record_memory), tuple(socket.assignment for socket in self.sockets),
        )  # fmt: skip
        self.control.send("serve", assignment.to_dict(), tuple(fds))

    def serving(self) -> None:
        """Note that the worker has said `ready`."""
        self.state = "serving"
        self.ready_at = self._turned_at = monotonic()

    def still_s(self) -> float:
        """Return for how many seconds the worker has not been seen to make a turn.

        One that is idle makes some each second: its poll has a timeout.
        """
        counters = self.page.read()
        turns = counters["batches"] + counters["polls"]
        if turns != self._turns:
            self._turns, self._turned_at = turns, monotonic()
        return monotonic() - self._turned_at

    def call(self, kind: str, body: Any = None, fds: tuple[int, ...] = ()) -> None:
        """Send the worker a message, and have it look."""
        self.control.send(kind, body, fds)
        self.page.call()

    def gone(self) -> int:
        """Note that the process has ended, and end it if it only talks nonsense.

        Returns:
            Its exit status; negative: a signal.
        """
        self.control.close()
        self.state = "lost"
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.popen.wait(ENDING_S)  # it closed its end, and is about to be gone
        self.popen.kill()
        return self.popen.wait()

    def abandon(self) -> None:
        """Count what a dead worker left behind, since none will follow it."""
        ports = ffi.new(
            "struct xp_port[]",
            [s.to_c(self.page.c_counters(port)) for port, s in enumerate(self.sockets)],
        )
        c = ffi.new(
            "struct xp_worker *",
            {
                "ports": ports, "n_ports": len(self.sockets), "umem": self.umem.c,
                "multi_buffer": self.umem.geometry.multi_buffer,
            },
        )  # fmt: skip
        lib.xp_abandon(c)
        self.umem.adopt(c)
        lib.xp_publish(c)

    def kill(self) -> None:
        """End the process if it still runs."""
        if self.state == "new":
            return
        if self.popen.poll() is None:
            self.popen.kill()
        self.popen.wait()
        self.control.close()

    def close(self) -> None:
        """Kill the process and close sockets, UMEM and page. May be called in any state."""
        self.kill()
        for socket in self.sockets:
            socket.close()
        for name in ("umem", "page", "set_ring"):
            owner = getattr(self, name, None)
            if owner is not None:
                owner.close()
        for memory in self.record_memory:
            memory.close()

    def status(self, attach: str) -> dict[str, Any]:
        """Return what `--json` shows of this worker under `workers`."""
        counters = self.page.read()
        statistics = sum((socket.statistics() for socket in self.sockets), XskStatistics())
        if self.state == "serving":
            self.rss_bytes = self.process.rss_bytes
        frames = {place: counters[f"frames_{place}"] for place in _PLACES}
        return {
            "queue": self.queue,
            "core": self.core,
            "pid": self.process.pid,
            "state": self.state,
            "restarts": self.restarts,
            "mode": self.mode,
            "attach": attach,
            "tx_checksum": (
                "offload" if all(socket.tx_checksum for socket in self.sockets) else "worker"
            ),
            "tx_times": self._tx_times,
            "packets": counters["received"],
            "bytes": counters["received_bytes"],
            "batches": counters["batches"],
            "busy_ns": counters["busy_ns"],
            "polls": counters["polls"],
            "wakeups": counters["wakeups"],
            "busy_polls": counters["busy_polls"],
            "tx_errors": counters["tx_errors"],
            "verdicts": {name: counters[counter] for name, counter in VERDICTS.items()},
            "kernel": vars(statistics),
            "frames": frames,
            "n_frames": self.umem.geometry.n_frames,
            "rss_bytes": self.rss_bytes,
            **({"py_blocks": self.final_report["py_blocks"]} if self.final_report else {}),
        }


def sum_stages(handles: Sequence[WorkerHandle]) -> list[dict[str, Any]]:
    """Return the stages' counts summed over the queues, with what each stage reported."""
    total: list[dict[str, Any]] = []
    for handle in handles:
        stages = handle.page.read_stages()
        if not total:
            total = [{**stage, "reports": []} for stage in stages]
        else:
            for sum_, stage in zip(total, stages, strict=True):
                for key in ("packets", "ns", "errors", "over_budget"):
                    sum_[key] += stage[key]
                sum_["max_ns"] = max(sum_["max_ns"], stage["max_ns"])
                for name, value in stage["counters"].items():
                    sum_["counters"][name] += value
        for sum_ in total:
            report = handle.final_report.get("stages", {}).get(sum_["name"])
            if report:
                sum_["reports"].append({**report, "queue": handle.queue})
    return total
