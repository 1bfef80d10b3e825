"""The supervisor: loads, attaches, starts, watches, restarts, stops; everything privileged."""

from __future__ import annotations

import os
import selectors
import socket
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from xdpipe.control import Control, ControlClosed
from xdpipe.errors import XdpipeError
from xdpipe.ledger import Ledger
from xdpipe.ports import Ports
from xdpipe.set_keeper import SetKeeper, in_memory, read_all
from xdpipe.set_ring import SetRing
from xdpipe.stage_info import StageInfo
from xdpipe.steering import Steering
from xdpipe.worker_handle import WorkerHandle, sum_stages
from xdpipe.xsk import QueueBusy

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from _typeshed import FileDescriptorLike

    from xdpipe.link_watch import LinkWatch
    from xdpipe.port import Port
    from xdpipe.recorder_handle import RecorderHandle
    from xdpipe.run_options import RunOptions
    from xdpipe.tap_keeper import TapKeeper

CARRIER_TIMEOUT_S = 10.0
"""How long a NIC may take to have its carrier back after it was set up for AF_XDP."""
SETTLE_TIMEOUT_S = 1.0
"""How long a stopping pipeline waits for packets that are under way to its sockets."""
STOP_TIMEOUT_S = 5.0
"""How long a worker may take to drain its queue."""
STEADY_S = 1.0
QUICK_DEATHS_MAX = 3
"""A queue is given up when its worker dies so often within STEADY_S of its start."""
STUCK_S = 2.0
"""A worker that makes no turn for so long loses its queue to the kernel until it makes one."""


class Supervisor:
    """One running pipeline on its interfaces; a context manager that leaves nothing behind.

    Start, then poll until it is time, then stop. All of it happens on the calling thread, which
    must be the main one: workers die with the thread that started them.

    Args:
        options: what to run, and how.
        tell: told in one line what happens (a worker died, for one).
        interrupted: asked while it starts whether to give up.
    """

    def __init__(
        self,
        options: RunOptions,
        tell: Callable[[str], None],
        interrupted: Callable[[], bool] = lambda: False,
    ) -> None:
        self._options = options
        self._tell = tell
        self._interrupted = interrupted
        self._stack = ExitStack()
        self._selector = selectors.DefaultSelector()
        self._stack.callback(self._selector.close)
        self._handles: list[WorkerHandle] = []
        self._sets: SetKeeper | None = None
        self._taps: TapKeeper | None = None
        self._recorders: list[RecorderHandle] = []
        self._listener: socket.socket | None = None
        self.started_at = 0.0
        self.stop_asked = False
        """Somebody asked by `xdpipe down` that it ends."""
        self.error = ""
        """Why it cannot go on and must be stopped: the interface is gone."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    # Start

    def start(self) -> None:
        """Bring the pipeline up; when this returns, packets go to the workers.

        Raises:
            XdpipeError: it cannot run like that; nothing is left attached.
        """
        self._ports = Ports(self._options)
        self._options = self._ports.complete(self._options)
        self._geometry = self._ports.geometry(self._options)
        self._ports.claim(self._stack)
        self._ports.write_state(self._options.file, self._handles)
        self._leave_cores()
        for queue, core in zip(self._options.queues, self._options.cores, strict=True):
            handle = WorkerHandle(queue, core, self._options)
            self._handles.append(handle)
            self._stack.callback(handle.close)
            handle.spawn()
        hellos = [handle.expect("hello", self._interrupted) for handle in self._handles]
        self._learn(hellos[0])
        self._mode = self._ports.bind_mode(self._options.mode)
        for handle in self._handles:
            sockets = [port.socket(handle.queue) for port in self._ports]
            handle.open_sockets(sockets, self._geometry, self._infos)
            if self._sets is not None:
                handle.set_ring = ring = SetRing()
                keys_came = partial(self._sets.take, ring)
                self._selector.register(ring.event_fd, selectors.EVENT_READ, keys_came)
            if self._recorders:
                handle.make_record_memory(self._infos)
            handle.hand_over(adopt=False)
        for recorder in self._recorders:
            recorder.start()
        for handle in self._handles:
            handle.expect("mapped", self._interrupted)
            handle.bind(self._mode)
        for port in self._ports:
            if warning := port.caveat(self._handles[0].mode):
                self._tell(warning)
            watch = port.watch(CARRIER_TIMEOUT_S, self._interrupted, self._geometry)
            self._stack.callback(watch.close)
            changed = partial(self._link_changed, port, watch)
            self._selector.register(watch, selectors.EVENT_READ, changed)
        for handle in self._handles:
            handle.expect("ready", self._interrupted)
            self._watch(handle)
            self._take(handle)
        self.started_at = time.monotonic()
        self._ports.write_state(self._options.file, self._handles)
        self._listener = self._ports.first.run_dir.listen()
        self._stack.callback(self._listener.close)
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)

    def _learn(self, hello: Any) -> None:
        """Take in what the pipeline's file declares, and attach the programs that it wants.

        Raises:
            XdpipeError: it has other ports than there are interfaces for.
        """
        self._ports.order(hello["ports"], self._options.file)
        self._infos = tuple(StageInfo.from_dict(info) for info in hello["stages"])
        self.default = hello["default"]
        steerings = [Steering.from_dict(fields) for fields in hello["steering"]]
        declared = {name: each for s in steerings for name, each in s.sets.items()}
        if declared:
            self._sets = SetKeeper(declared)
            self._stack.callback(self._sets.close)
        for port, steering in zip(self._ports, steerings, strict=True):
            port.attach(
                steering, self._geometry, self._tell, self._stack, wants_hints=hello["hints"],
                passes=self.default == "PASS", leaves=self.default != "DROP",
                set_maps=self._sets.maps if self._sets else {},
            )  # fmt: skip

        devs = [port.link.name for port in self._ports]
        kinds = {info.recording.kind for info in self._infos if info.recording is not None}
        for kind in sorted(kinds):
            from xdpipe.recorder_handle import RecorderHandle  # few pipelines record

            recorder = RecorderHandle(
                kind, self._options, self._infos, devs, self._handles, self._selector, self._tell
            )
            self._recorders.append(recorder)
            self._stack.callback(recorder.close)

    def _leave_cores(self) -> None:
        """Stay off the workers' cores ourselves, as far as there are others."""
        allowed = os.sched_getaffinity(0)
        others = allowed - set(self._options.cores)
        if others:
            os.sched_setaffinity(0, others)
            self._stack.callback(os.sched_setaffinity, 0, allowed)

    def _watch(self, handle: WorkerHandle) -> None:
        self._selector.register(
            handle.control, selectors.EVENT_READ, lambda: self._worker_spoke(handle)
        )

    def _take(self, handle: WorkerHandle) -> None:
        handle.serving()
        self._ports.redirect(handle)
        if self._taps is not None:
            self._taps.attach(handle)

    # Watch

    def poll(self, timeout_s: float) -> None:
        """Deal with what happens within timeout_s.

        Workers that die or hang, changes of the interface, questions of commands.
        """
        for key, _ in self._selector.select(timeout_s):
            key.data()
        if self._sets is not None:
            self._sets.sweep()
        for handle in self._handles:
            if handle.state == "waiting":
                self._try_hand_over(handle)
            elif handle.state == "mapped":
                self._try_bind(handle)
            elif handle.state in ("serving", "stuck") and not self._stopping:
                self._look_for_turns(handle)

    def wake(self, source: FileDescriptorLike) -> None:
        """Have poll return as soon as this is readable, the first time that it is."""
        self._selector.register(
            source, selectors.EVENT_READ, lambda: self._selector.unregister(source)
        )

    def _look_for_turns(self, handle: WorkerHandle) -> None:
        """Let the kernel have the packets of a worker that hangs; end one that does not recover."""
        watchdog_s = self._options.watchdog_s
        still_s = handle.still_s()
        who = f"queue {handle.queue}: its worker (pid {handle.process.pid})"
        if watchdog_s and still_s >= watchdog_s:
            self._tell(f"{who} made no turn for {still_s:.0f} s and is killed")
            handle.popen.kill()
        elif handle.state == "serving" and still_s >= STUCK_S:
            handle.state = "stuck"
            self._ports.release(handle)
            self._tell(
                f"{who} has made no turn for {still_s:.0f} s, in a stage that hangs or on a core "
                "that others hold; its packets go to the kernel until it does"
            )
        elif handle.state == "stuck" and still_s < STUCK_S:
            handle.state = "serving"
            self._ports.redirect(handle)
            self._tell(f"{who} turns again and serves")

    def _link_changed(self, port: Port, watch: LinkWatch) -> None:
        former = port.link.name
        lines, gone = port.changes()
        for line in lines:
            self._tell(line)
        if gone:
            self.error = lines[-1]
            self._selector.unregister(watch)
        elif port.link.name != former:
            self._ports.write_state(self._options.file, self._handles)

    def _worker_spoke(self, handle: WorkerHandle) -> None:
        try:
            kind, body = handle.control.receive_plain(0)
        except ControlClosed:
            self._worker_died(handle)
            return
        if kind == "hello" and handle.state == "starting":
            self._returned(handle, body)
        elif kind == "mapped" and handle.state == "starting":
            handle.state = "mapped"
        elif kind == "ready" and handle.state == "starting":
            self._take(handle)
            self._ports.write_state(self._options.file, self._handles)
            self._tell(f"queue {handle.queue}: served again by pid {handle.process.pid}")
        elif kind == "done" and self._stopping and isinstance(body, dict):
            handle.final_report = body
            handle.state = "done"
        elif kind == "error":
            self._tell(f"queue {handle.queue}: {body}")

    def _worker_died(self, handle: WorkerHandle) -> None:
        """Let the kernel have the queue's packets, and start another worker."""
        self._selector.unregister(handle.control)
        was = handle.state
        if was == "done":
            handle.popen.wait()
            return
        self._ports.release(handle)
        status = handle.gone()
        how = f"signal {-status}" if status < 0 else f"status {status}"
        quick = was not in ("serving", "stuck") or time.monotonic() - handle.ready_at < STEADY_S
        deaths = handle.quick_deaths = handle.quick_deaths + 1 if quick else 0
        text = f"queue {handle.queue}: its worker (pid {handle.process.pid}) died of {how}; "
        if self._stopping:
            self._tell(text + "its packets are lost")
        elif deaths >= QUICK_DEATHS_MAX:
            self._tell(text + f"{deaths} in a row did, so its packets go to the kernel from now on")
        else:
            self._tell(text + "its packets go to the kernel until the next one serves")
            handle.spawn()
            self._watch(handle)

    _stopping = False

    def _returned(self, handle: WorkerHandle, hello: Any) -> None:
        known = [info.to_dict() for info in self._infos]
        if not isinstance(hello, dict) or hello.get("stages") != known:
            self._tell(
                f"queue {handle.queue}: {self._options.file} has other stages now; "
                "its packets go to the kernel until the pipeline is started again"
            )
            handle.quick_deaths = QUICK_DEATHS_MAX
            handle.popen.kill()
            return
        handle.state = "waiting"

    def _try_hand_over(self, handle: WorkerHandle) -> None:
        """Hand the queue over as soon as that can be done without losing a frame."""
        adopt = handle.can_be_adopted
        if adopt and handle.held_by_kernel:
            handle.hurry()
            return  # under way; the next poll looks again
        if not adopt:
            try:
                handle.renew_sockets()
            except XdpipeError as error:
                self._give_up(handle, error)
                return
        handle.state = "starting"
        handle.hand_over(adopt=adopt)

    def _try_bind(self, handle: WorkerHandle) -> None:
        """Bind the sockets that a worker is about to serve, if they are new ones."""
        try:
            handle.bind(self._mode, patience_s=0)
            handle.state = "starting"
        except QueueBusy:
            pass  # the driver is still at work on the old socket's end; the next poll tries again
        except ControlClosed:
            pass  # its death is dealt with where its control socket is read
        except XdpipeError as error:
            self._give_up(handle, error)

    def _give_up(self, handle: WorkerHandle, error: XdpipeError) -> None:
        """Leave a queue that cannot be served any more to the kernel."""
        self._tell(f"queue {handle.queue}: {error}; its packets go to the kernel from now on")
        handle.quick_deaths = QUICK_DEATHS_MAX
        handle.popen.kill()

    def _accept(self) -> None:
        assert self._listener is not None
        connection, _ = self._listener.accept()
        control = Control(connection)
        try:
            kind, body, fds = control.receive(1.0)
            if kind == "stop":
                self.stop_asked = True
                control.send("stopping", {"pid": os.getpid()})
            elif kind == "set":
                self._answer_set(control, body, fds)
            elif kind == "tap":
                self._open_tap(control, body)
                return
            else:
                control.send("status", self.status(reports=True))
        except (XdpipeError, OSError):
            pass  # the one who asked is gone
        control.close()

    def _open_tap(self, control: Control, body: Any) -> None:
        if self._taps is None:
            from xdpipe.tap_keeper import TapKeeper  # most pipelines start without

            stages = [info.name for info in self._infos]
            devs = [port.link.name for port in self._ports]
            self._taps = TapKeeper(self._selector, self._handles, stages, devs)
            self._stack.callback(self._taps.close)
        self._taps.open(control, body)

    def _answer_set(self, control: Control, body: Any, fds: list[int]) -> None:
        try:
            data = b"".join(read_all(fd) for fd in fds)
            if self._sets is None:
                raise XdpipeError(f"{Path(self._options.file).name} declares no sets")
            answer, entries = self._sets.answer(body, data)
        except XdpipeError as error:
            control.send("error", str(error))
            return
        told = in_memory(entries)
        try:
            control.send("set", answer, (told,))
        finally:
            os.close(told)

    # Tell

    def status(self, *, reports: bool = False) -> dict[str, Any]:
        """Return how things stand, as `--json` shows it.

        Args:
            reports: ask the workers for what their stages report, too; else what they said last.
        """
        if reports and not self._stopping:
            self._ask_reports()
        first = self._ports.first
        ledgers = self._ports.ledgers(self._handles)
        return {
            "name": Path(self._options.file).stem,
            "file": self._options.file,
            "dev": first.link.name,
            "driver": first.link.driver,
            "filter": first.steering.filter,
            "default": self.default,
            "attach": first.attached.mode,
            "hints": first.attached.hints,
            "guard": self._options.guard,
            "uptime_s": round(time.monotonic() - self.started_at, 3),
            "ledger": Ledger.total(ledgers).to_dict(),
            "ports": [
                port.status(ledger) for port, ledger in zip(self._ports, ledgers, strict=True)
            ],
            "sets": self._sets_status(),
            "recordings": [each for recorder in self._recorders for each in recorder.status()],
            "taps": [] if self._taps is None else self._taps.status(),
            "workers": [handle.status(first.attached.mode) for handle in self._handles],
            "stages": sum_stages(self._handles),
            "error": self.error or None,
        }

    def _sets_status(self) -> list[dict[str, Any]]:
        if self._sets is None:
            return []
        rings = [handle.set_ring for handle in self._handles if handle.set_ring is not None]
        return self._sets.status([port.program for port in self._ports], rings)

    def _ask_reports(self) -> None:
        asked = [handle for handle in self._handles if handle.state == "serving"]
        for handle in asked:
            try:
                handle.call("report")
                self._selector.unregister(handle.control)
            except (ControlClosed, KeyError):
                continue
            try:
                kind, body = handle.control.receive_plain(1.0)
                if kind == "report" and isinstance(body, dict):
                    handle.final_report = body
            except (ControlClosed, TimeoutError):
                pass  # its death is dealt with by poll
            self._watch(handle)

    # Stop

    def stop(self) -> dict[str, Any]:
        """Give the queues back, drain them, end the workers, detach; return the final status.

        In this order: the program no longer redirects; what is under way arrives; the workers
        finish what they have; the program goes.
        """
        for handle in self._handles:
            self._ports.release(handle)
        self._settle()
        self.status()  # reads resident memory while the workers live
        self._stopping = True
        for handle in self._handles:
            if handle.state == "serving":
                try:
                    handle.call("stop", {"drain_rx": True})
                except ControlClosed:
                    continue
        end = time.monotonic() + STOP_TIMEOUT_S
        while any(h.state == "serving" for h in self._handles) and time.monotonic() < end:
            self.poll(0.05)
        for handle in self._handles:
            handle.kill()
            if handle.state != "done":
                handle.abandon()
        self._ports.detach()
        for recorder in self._recorders:
            recorder.finish()
        final = self.status()
        self._stack.close()
        return final

    def _settle(self) -> None:
        """Wait until every packet that was redirected has reached a socket or was dropped."""
        end = time.monotonic() + SETTLE_TIMEOUT_S
        while time.monotonic() < end:
            ledger = Ledger.total(self._ports.ledgers(self._handles))
            waiting = sum(s.xsk.n_rx for handle in self._handles for s in handle.sockets)
            there = ledger.received + sum(ledger.kernel_drops.values()) + waiting
            if there == ledger.redirected:
                return
            time.sleep(0.005)
