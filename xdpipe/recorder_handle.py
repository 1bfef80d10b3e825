"""The supervisor's side of a recorder: its process, and directories and rings for it."""

from __future__ import annotations

import os
import selectors
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xdpipe.control import Control, ControlClosed
from xdpipe.errors import XdpipeError
from xdpipe.pcapng import Interface
from xdpipe.privilege import find_user
from xdpipe.process import plain_environment
from xdpipe.recorder import FINISH_S
from xdpipe.recording import FlowRecording, Recording

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from xdpipe.block_ring import BlockRing
    from xdpipe.run_options import RunOptions
    from xdpipe.stage_info import StageInfo
    from xdpipe.worker_handle import WorkerHandle

_READY_S = 30.0
_END_S = 2.0
"""How long it may take to end once it has written everything, or nobody wants it any more."""
_USELESS_MAX = 3
"""Recorders in a row that die without having written anything, and are replaced."""


NAMES = {Recording.kind: "recorder", FlowRecording.kind: "recorder of flows"}
"""What to call the process that writes all of a kind."""


class RecorderHandle:
    """The recorder of a pipeline that has stages which have files written, for one kind of those.

    Args:
        kind: see `Files.kind`.
        options: how the pipeline runs.
        infos: its stages.
        devs: names of its interfaces, one of each port.
        handles: its workers'.
        selector: that the supervisor waits with.
        tell: told in a line what happens.
    """

    def __init__(
        self,
        kind: str,
        options: RunOptions,
        infos: Sequence[StageInfo],
        devs: Sequence[str],
        handles: Sequence[WorkerHandle],
        selector: selectors.BaseSelector,
        tell: Callable[[str], None],
    ) -> None:
        self._options = options
        self._devs = devs
        self._handles = handles
        self._selector = selector
        self._tell = tell
        self._name = NAMES[kind]
        all_ = [(info.name, info.recording) for info in infos if info.recording is not None]
        self._recordings = {
            place: (stage, recording)
            for place, (stage, recording) in enumerate(all_) if recording.kind == kind
        }  # fmt: skip
        self._directories: list[int] = []
        self._n_useless = 0
        self._written_before = 0
        self.popen: subprocess.Popen[bytes] | None = None
        self.by = ""
        """What writes: io_uring or threads."""

    def start(self) -> None:
        """Make the directories and start the process; return when it writes.

        Raises:
            XdpipeError: it may not write there, or does not start.
        """
        entry = find_user(self._options.user)
        self._keep_apart()
        for _, recording in self._recordings.values():
            path = Path(recording.directory)
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
            try:
                new = not path.is_dir()
                if new:  # what we give away is what we have made, whoever else may write beside it
                    path.mkdir(parents=True)
                    flags |= os.O_NOFOLLOW
                self._directories.append(fd := os.open(path, flags))
                if new and entry is not None:
                    os.fchown(fd, entry.pw_uid, entry.pw_gid)
            except OSError as error:
                raise XdpipeError(f"{path}: {error.strerror}") from error
        self._spawn()
        try:
            kind, body = self.control.receive_plain(_READY_S)
        except (ControlClosed, TimeoutError) as error:
            raise XdpipeError(f"the {self._name} does not start") from error
        if kind != "ready":
            raise XdpipeError(str(body))
        self.by = body["by"]
        self._selector.register(self.control, selectors.EVENT_READ, self._spoke)

    def _keep_apart(self) -> None:
        """Refuse two stages that would write the same files."""
        handle, seen = self._handles[0], set()
        for stage, recording in self._recordings.values():
            name = f"{recording.directory}/{self._prefix(handle, stage, recording)}"
            if name in seen:
                raise XdpipeError(f"{name}: two stages would write files of that name")
            seen.add(name)

    def _spawn(self) -> None:
        self.control, theirs = Control.pair()
        with theirs:
            self.popen = subprocess.Popen(
                [
                    sys.executable, "-P", "-m", "xdpipe.recorder",
                    str(theirs.fileno()), self._options.user,
                ],
                pass_fds=[theirs.fileno()],
                env=plain_environment(),
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                stdout=sys.stderr.fileno(),
            )  # fmt: skip
        self._written_before = self._n_written
        n_streams = len(self._handles) * len(self._recordings)
        for handle in self._handles:
            streams: list[dict[str, Any]] = []
            fds: list[int] = []
            for number, (place, (stage, recording)) in enumerate(self._recordings.items()):
                streams.append(
                    {
                        "user": self._options.user,
                        "recording": recording.to_dict(),
                        "prefix": self._prefix(handle, stage, recording),
                        "interfaces": self._interfaces(handle, stage, recording),
                    }
                )
                ring, *table = handle.record_memory[place].fds
                fds += [ring, self._directories[number], *table]
            body = {"n_streams": n_streams, "streams": streams}
            self.control.send("record", body, tuple(fds))
        self.control.send("start")

    def _prefix(
        self, handle: WorkerHandle, stage: str, recording: Recording | FlowRecording
    ) -> str:
        """Return what names of a queue's files begin with."""
        if isinstance(recording, FlowRecording) and recording.stem:
            return f"{recording.stem}-{self._devs[0]}-q{handle.queue}"
        name = f"{Path(self._options.file).stem}-{self._devs[0]}"
        return f"{name}-{stage.replace('#', '')}-q{handle.queue}"

    def _interfaces(
        self, handle: WorkerHandle, stage: str, recording: Recording | FlowRecording
    ) -> list[dict[str, Any]]:
        """Return the interfaces of a capture: one of each port."""
        if isinstance(recording, FlowRecording):
            return []
        interfaces = [
            Interface(
                f"{dev}-q{handle.queue}-{stage}",
                f"packets of {dev}, queue {handle.queue}, at the stage {stage}",
                recording.order.snaplen,
            )
            for dev in self._devs
        ]
        return [asdict(interface) for interface in interfaces]

    @property
    def _rings(self) -> list[BlockRing]:
        return [
            handle.record_memory[place].ring
            for handle in self._handles
            for place in self._recordings
        ]

    @property
    def _n_written(self) -> int:
        return sum(ring.position.packets for ring in self._rings)

    @property
    def _n_waiting(self) -> int:
        return sum(ring.n_packets for ring in self._rings) - self._n_written

    def _spoke(self) -> None:
        try:
            kind, body = self.control.receive_plain(0)
        except ControlClosed:
            self._died()
            return
        if kind in ("told", "error"):
            self._tell(str(body))

    def _died(self) -> None:
        """Have another one go on, unless none lives for long."""
        assert self.popen is not None
        self._selector.unregister(self.control)
        self.control.close()
        self.popen.kill()
        status = self.popen.wait()
        how = f"signal {-status}" if status < 0 else f"status {status}"
        text = f"the {self._name} (pid {self.popen.pid}) died of {how}; "
        self.popen = None
        stood_still = self._n_written == self._written_before and self._n_waiting
        self._n_useless = self._n_useless + 1 if stood_still else 0
        if self._n_useless >= _USELESS_MAX:
            self._tell(
                text + f"{self._n_useless} in a row wrote nothing, so nothing is recorded any more"
            )
        else:
            self._spawn()
            self._selector.register(self.control, selectors.EVENT_READ, self._spoke)
            self._tell(text + "another one goes on where it was")

    def finish(self) -> None:
        """Have it write what there is, and end."""
        deadline = time.monotonic() + FINISH_S + 1
        while self.popen is not None:
            try:
                self.control.send("stop")
                kind = ""
                while kind != "done":
                    left_s = max(0.001, deadline - time.monotonic())
                    kind, body = self.control.receive_plain(left_s)
                    if kind == "told":
                        self._tell(str(body))
                self.popen.wait(_END_S)
                return
            except ControlClosed:
                self._died()  # another one finishes
            except (TimeoutError, subprocess.TimeoutExpired):
                self._tell(f"the {self._name} does not end; what it has not written is lost")
                return

    def status(self) -> list[dict[str, Any]]:
        """Return what `--json` shows under `recordings`."""
        return [
            {
                "stage": stage,
                "kind": recording.kind,
                "queue": handle.queue,
                "directory": recording.directory,
                "by": self.by,
                "pid": None if self.popen is None else self.popen.pid,
                "packets": ring.position.packets,
                "waiting": ring.n_packets - ring.position.packets,
                "lost": ring.n_lost,
                "file": ring.position.file,
            }
            for handle in self._handles
            for place, (stage, recording) in self._recordings.items()
            for ring in (handle.record_memory[place].ring,)
        ]

    def close(self) -> None:
        """End the process if it runs, and let go of the directories. May be called twice."""
        if self.popen is not None:
            self.control.close()  # it writes what there is and ends, as when we were killed
            try:
                self.popen.wait(_END_S)
            except subprocess.TimeoutExpired:
                self.popen.kill()
                with suppress(subprocess.TimeoutExpired):  # it hangs in a file system
                    self.popen.wait(_END_S)
        self.popen = None
        for fd in self._directories:
            os.close(fd)
        self._directories.clear()
