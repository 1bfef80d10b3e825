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
from xdpipe.drivers import quirks
from xdpipe.errors import XdpipeError
from xdpipe.ledger import VERDICTS
from xdpipe.netdev import XSK_TX_CHECKSUM, XSK_TX_TIMESTAMP, xsk_features
from xdpipe.process import Process
from xdpipe.umem import Umem
from xdpipe.xsk import REOPEN_S, Xsk, XskStatistics

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from xdpipe.inject import Injector
    from xdpipe.link import Link
    from xdpipe.run_options import RunOptions
    from xdpipe.stage_info import StageInfo
    from xdpipe.umem import Geometry

HELLO_TIMEOUT_S = 60.0
"""How long a worker may take to import the user's file."""
_SLICE_S = 0.1
ENDING_S = 0.2
"""How long a process may take to end after it has closed its control socket."""
_ENVIRONMENT = ("PATH", "LANG", "LC_", "TZ", "PYTHON", "VIRTUAL_ENV")
"""What a worker gets of our environment, which may hold secrets."""
_BEFORE = (
    "received_before", "received_more_before", "filled_before", "tx_submitted_before",
    "tx_submitted_more_before", "tx_completed_before", "tx_completed_more_before",
)  # fmt: skip
"""Fields of struct xp_worker: the counters that go with the ring indices, as the socket began."""
_PLACES = ("free", "fill", "kernel", "rx", "batch", "tx", "completion")


class WorkerHandle:
    """One queue: the socket, UMEM and counters page, and the process that serves them now.

    Args:
        queue: number of the queue.
        core: CPU for the worker.
        options: how the pipeline runs.
    """

    def __init__(self, queue: int, core: int, options: RunOptions) -> None:
        self.queue = queue
        self.core = core
        self._options = options
        self.mode = ""
        """What bind gave: zerocopy or copy; empty while the socket is not bound."""
        self.injector: Injector | None = None
        """By which the worker gives packets back to the kernel; None: it cannot."""
        self.tx_checksum = self.tx_times = False
        """NIC or kernel fill in checksums of packets that leave, and tell when they do."""
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
        with theirs:
            self.popen = subprocess.Popen(
                [
                    sys.executable, "-P", "-m", "xdpipe.worker",
                    str(theirs.fileno()), str(os.getpid()), self._options.user,
                    self._options.file,
                ],
                pass_fds=[theirs.fileno()],
                env={k: v for k, v in os.environ.items() if k.startswith(_ENVIRONMENT)},
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

    def open_socket(
        self,
        link: Link,
        geometry: Geometry,
        infos: Sequence[StageInfo],
        injector: Injector | None,
    ) -> None:
        """Make UMEM, socket and counters page, and fill the fill ring.

        Args:
            link: the interface.
            geometry: of the UMEM.
            infos: the stages that count on the page.
            injector: by which the worker gives packets back, owned by this object now; None: it
                cannot.
        """
        self.injector = injector
        self.partial_checksums = quirks(link.driver).partial_checksums
        self.page = CountersPage(infos)
        self._new_socket(geometry)
        self._past = XskStatistics()
        self._before = dict.fromkeys(_BEFORE, 0)

    def _new_socket(self, geometry: Geometry) -> None:
        """Make UMEM and socket; where that fails, those that there were stay."""
        umem = Umem(geometry)
        try:
            xsk = Xsk.open(umem, tx_metadata=True)
            if self._options.busy_poll:
                xsk.busy_poll()
        except BaseException:
            umem.close()
            raise
        umem.give_all(xsk)
        self.umem, self.xsk = umem, xsk

    def bind(self, link: Link, mode: str, patience_s: float = REOPEN_S) -> None:
        """Bind the socket to the queue unless it is, and tell the worker; see Xsk.bind."""
        if not self.mode:
            self.mode = self.xsk.bind(
                link, self.queue, mode, patience_s, need_wakeup=self._options.need_wakeup
            )
            self._ask_what_leaves(link)
        self.control.send("bound", {"tx_checksum": self.tx_checksum, "tx_times": self.tx_times})

    def _ask_what_leaves(self, link: Link) -> None:
        """Find out what is done for packets that leave: in copy mode by the kernel itself."""
        features = 0
        if self.xsk.tx_metadata:
            copy = self.mode == "copy"
            features = XSK_TX_CHECKSUM | XSK_TX_TIMESTAMP if copy else xsk_features(link)
        self.tx_checksum = bool(features & XSK_TX_CHECKSUM)
        self.tx_times = bool(features & XSK_TX_TIMESTAMP)

    def renew_socket(self) -> None:
        """Put a new socket, not bound yet, in the place of one that no other worker can take over.

        What waits on its rings is lost and counted.

        Raises:
            XdpipeError: no memory for it: the old one's is not free yet.
        """
        self.abandon()
        past, old_xsk, old_umem = self.statistics(), self.xsk, self.umem
        self._new_socket(old_umem.geometry)
        old_xsk.close()
        old_umem.close()
        self._past = past
        self.mode = ""
        counters = self.page.read()
        self._before = {name: counters[name.removesuffix("_before")] for name in _BEFORE}

    @property
    def can_be_adopted(self) -> bool:
        """Whether a next worker can go on with the socket.

        A zero-copy driver gives back the frames that it has taken from the fill ring only when
        their socket is closed, so nobody could find out which are free.
        """
        return self.mode == "copy" and self.xsk.can_be_mapped

    def statistics(self) -> XskStatistics:
        """Return what the kernel counted on the queue's socket, and on those before it."""
        return self._past + self.xsk.statistics()

    def hand_over(self, *, adopt: bool, hints: bool) -> None:
        """Give the worker that has said hello what it serves.

        It answers `mapped`; once the socket is bound and it was told so, `ready`.
        """
        options = self._options
        fds: tuple[int, ...] = (self.xsk.fd, self.umem.fd, self.page.fd)
        way_back = 0
        if self.injector is not None:
            fds += self.injector.way_back.fds
            way_back = self.injector.way_back.ifindex
        assignment = Assignment(
            self.queue, self.core, options.batch_size, options.spin_us, self.umem.geometry, adopt,
            options.need_wakeup, options.busy_poll, hints, self.partial_checksums, way_back,
            self._before,
        )  # fmt: skip
        self.control.send("serve", assignment.to_dict(), fds)

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

    def call(self, kind: str, body: Any = None) -> None:
        """Send the worker a message, and have it look."""
        self.control.send(kind, body)
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
        c = ffi.new(
            "struct xp_worker *",
            {
                "xsk": self.xsk.c, "umem": self.umem.c, "counters": self.page.c_counters,
                "multi_buffer": self.umem.geometry.multi_buffer,
                "pass": self.injector.way_back.c if self.injector is not None else ffi.NULL,
                **self._before,
            },
        )  # fmt: skip
        lib.xp_abandon(c)
        self.umem.adopt(self.xsk)
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
        """Kill the process and close socket, UMEM and page. May be called in any state."""
        self.kill()
        for name in ("xsk", "umem", "page", "injector"):
            owner = getattr(self, name, None)
            if owner is not None:
                owner.close()

    def status(self, attach: str) -> dict[str, Any]:
        """Return what `--json` shows of this worker under `workers`."""
        counters = self.page.read()
        statistics = self.statistics()
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
            "tx_checksum": "offload" if self.tx_checksum else "worker",
            "tx_times": self.tx_times,
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
                for key in ("packets", "ns", "errors"):
                    sum_[key] += stage[key]
                for name, value in stage["counters"].items():
                    sum_["counters"][name] += value
        for sum_ in total:
            report = handle.final_report.get("stages", {}).get(sum_["name"])
            if report:
                sum_["reports"].append({**report, "queue": handle.queue})
    return total
