"""Where running pipelines are found: a directory each, with a state file and a control socket."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from xdpipe.control import Control
from xdpipe.errors import XdpipeError
from xdpipe.process import Process

ROOT = Path(os.environ.get("XDPIPE_RUN_DIR", "/run/xdpipe"))


def network_namespace() -> int:
    """Return the inode of the calling thread's network namespace, which names it."""
    return os.stat("/proc/thread-self/ns/net").st_ino


@dataclass(frozen=True)
class State:
    """What is written down of a pipeline, for when its supervisor is gone.

    Attributes:
        name: of the pipeline: its file's stem.
        file: the pipeline file.
        dev: interface name.
        ifindex: its number.
        devs: names of all interfaces that it runs on; the first one's directory has the socket that
            it answers on.
        netns: inode of its network namespace.
        supervisor: the process that holds everything.
        workers: the processes that serve its queues.
        program_id: of the XDP program.
    """

    name: str
    file: str
    dev: str
    ifindex: int
    devs: tuple[str, ...]
    netns: int
    supervisor: Process
    workers: tuple[Process, ...] = ()
    program_id: int = 0


class RunDir:
    """The directory of an interface, by network namespace: one pipeline can run on each."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def of(cls, ifindex: int, netns: int | None = None) -> Self:
        """Return the directory for an interface of the calling thread's namespace."""
        return cls(ROOT / f"{netns or network_namespace()}-{ifindex}")

    @classmethod
    def all(cls) -> list[Self]:
        """Return every pipeline's directory there is."""
        paths = ROOT.glob("*/state.json") if ROOT.is_dir() else ()
        return sorted((cls(path.parent) for path in paths), key=lambda run: run.path)

    def claim(self) -> int | None:
        """Make the directory and lock it for as long as the descriptor is open.

        Returns:
            The descriptor, owned by the caller; None if another supervisor has the lock.

        Raises:
            XdpipeError: no privilege to make it.
        """
        while True:
            try:
                self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
                fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue  # removed in between
            except OSError as error:
                raise XdpipeError(f"{self.path}: {error.strerror}; run it as root") from error
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(fd).st_ino == os.stat(self.path).st_ino:
                    return fd
            except BlockingIOError:
                os.close(fd)
                return None
            except FileNotFoundError:
                pass
            os.close(fd)  # we locked a directory that its owner has just removed

    def write(self, state: State) -> None:
        """Write the state down, whole or not at all."""
        try:
            aside = self.path / "state.json.new"
            aside.write_text(json.dumps(asdict(state)))
            aside.rename(self.path / "state.json")
        except OSError as error:
            raise XdpipeError(f"{self.path}: {error.strerror}; run it as root") from error

    def read(self) -> State | None:
        """Return the state, or None if nothing is written down."""
        try:
            data = json.loads((self.path / "state.json").read_text())
        except (OSError, ValueError):
            return None
        return State(
            **{
                **data,
                "supervisor": Process.from_dict(data["supervisor"]),
                "devs": tuple(data["devs"]),
                "workers": tuple(Process.from_dict(worker) for worker in data["workers"]),
            }
        )

    def listen(self) -> socket.socket:
        """Return a listening socket on which the supervisor answers.

        Raises:
            XdpipeError: its path is longer than unix(7) allows.
        """
        path = self.path / "control.sock"
        path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            listener.bind(str(path))
        except OSError as error:
            listener.close()
            raise XdpipeError(
                f"{path}: {error.strerror or error}; have XDPIPE_RUN_DIR name a short path"
            ) from error
        listener.listen()
        return listener

    def ask(self, kind: str, timeout_s: float = 5.0) -> Any:
        """Ask the supervisor something and return its answer's body; None if it is gone."""
        answer = self.talk(kind, None, (), timeout_s)
        return None if answer is None else answer[1]

    def talk(
        self, kind: str, body: Any, fds: tuple[int, ...], timeout_s: float
    ) -> tuple[str, Any, list[int]] | None:
        """Ask the supervisor something and return its answer; None if it is gone.

        Returns:
            Kind and body, and descriptors, which are the caller's.
        """
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
            try:
                sock.connect(str(self.path / "control.sock"))
                control = Control(sock)
                control.send(kind, body, fds)
                return control.receive(timeout_s)
            except (OSError, TimeoutError, XdpipeError):
                return None

    def remove(self) -> None:
        """Remove the directory."""
        shutil.rmtree(self.path, ignore_errors=True)
