"""One run of the VM: start it, have it do one thing, take back what came of it."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from vm.cache import CACHE, ROOT, VmError
from vm.image import root_image
from vm.kernel import Kernel
from vm.nics import Nics
from vm.qemu import Accelerator, Machine, Qemu, tell
from xdpipe.netns import Namespace

_TROUBLE = re.compile(r"\b(WARNING:|BUG:|Oops:|Call Trace:|Kernel panic|general protection)")


@dataclass(frozen=True)
class Wanted:
    """What a VM shall be.

    Attributes:
        nics: kinds of its pairs of NICs, see vm.nics.
        n_queues: of each NIC.
        kernel: its version.
        out: directory for files that the guest leaves at /out; None: they are lost.
        timeout_s: seconds until the VM is ended.
        n_cpus: virtual CPUs; igb has no more queues than there are.
        memory_mib: RAM.
        packages: Debian packages that it has besides those of vm/packages.txt.
        fed: they are single NICs, to each of which the host sends by a tap, see vm.nics.
    """

    nics: tuple[str, ...] = ()
    n_queues: int = 2
    kernel: str = "7.3"
    out: Path | None = None
    timeout_s: float = 3600.0
    n_cpus: int = 2
    memory_mib: int = 2048
    packages: tuple[str, ...] = ()
    fed: bool = False


@dataclass(frozen=True)
class Result:
    """What came of it.

    Attributes:
        status: the command's exit code.
        release: of the kernel.
        trouble: lines of the kernel's messages that tell of a fault in it.
        seconds: from the start of QEMU to its end.
        accelerator: that was used.
    """

    status: int
    release: str
    trouble: tuple[str, ...]
    seconds: float
    accelerator: str


def run(
    wanted: Wanted,
    command: Sequence[str] | None,
    beside: Callable[[Namespace, Path], None] | None = None,
) -> Result:
    """Start a VM, run a command in it with the working tree at /work, and switch it off.

    Args:
        wanted: the VM.
        command: the program and its arguments; None: a shell on our terminal.
        beside: is called on a thread of its own while the VM runs, with the namespace that its NICs
            hang in and the directory that the guest has at /out.

    Raises:
        VmError: the VM could not be started, or ended without a result.
    """
    qemu, kernel = Qemu.find(), Kernel.get(wanted.kernel)
    accelerator = Accelerator.choose(qemu, kernel)
    root = root_image(wanted.packages)
    tell(qemu, accelerator, kernel)
    with ExitStack() as stack:
        exchange = Path(stack.enter_context(_directory("exchange")))
        out = wanted.out or Path(stack.enter_context(_directory("out")))
        out.mkdir(parents=True, exist_ok=True)
        kept = CACHE / "kept"
        kept.mkdir(mode=0o700, exist_ok=True)
        if command is None:
            (exchange / "shell").touch()
        else:
            environment = "".join(
                f"export {name}={shlex.quote(value)}\n"
                for name, value in os.environ.items() if name.startswith("XDPIPE_")
            )  # fmt: skip
            environment += f"export XDPIPE_VM={accelerator.name}\n"
            environment += f"export XDPIPE_VM_NICS={','.join(wanted.nics)}\n"
            (exchange / "command").write_text(environment + f"exec {shlex.join(command)}\n")
        namespace = Namespace()
        stack.callback(namespace.close)
        nics = Nics(namespace, wanted.n_queues)
        stack.callback(nics.close)
        for place, kind in enumerate(wanted.nics):
            (nics.add_fed if wanted.fed else nics.add)(kind, place)
        errors = stack.enter_context(_into_stderr())
        machine = Machine(
            kernel, accelerator, root, exchange, ROOT, out.resolve(), kept,
            errors.fileno(),
            devices=nics.options,
            memory_mib=wanted.memory_mib,
            cores=max(wanted.n_cpus, wanted.n_queues if wanted.nics else 1),
        )  # fmt: skip
        began = time.monotonic()
        # SIGTERM ends us as Ctrl-C does, and QEMU with us; it dies with us however we die
        stack.enter_context(_as_interrupt(signal.SIGTERM, signal.SIGHUP))
        popen = namespace.popen(
            machine.command(qemu), pass_fds=[*nics.fds, machine.errors_fd],
            stdin=None if command is None else subprocess.DEVNULL,
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        nics.close()
        errors.close()
        if beside is not None:
            threading.Thread(target=beside, args=(namespace, out), daemon=True).start()
        try:
            _, said = popen.communicate(timeout=wanted.timeout_s)
        except subprocess.TimeoutExpired:
            popen.kill()
            _, said = popen.communicate()
            said = f"ended after {wanted.timeout_s:.0f} s. {said}"
        finally:
            popen.kill()
            popen.wait()
        return _read(exchange, said, time.monotonic() - began, accelerator)


def _read(exchange: Path, errors: str, seconds: float, accelerator: Accelerator) -> Result:
    serial = _text(exchange / "serial")
    messages = _text(exchange / "dmesg") or serial
    status = _text(exchange / "status").strip()
    if not status:
        sys.stderr.write(serial[-4000:])
        said = errors.strip().splitlines()[-1:] or ["the guest ended before its command did"]
        raise VmError(f"no result: {said[0]}")
    trouble = tuple(line for line in messages.splitlines() if _TROUBLE.search(line))
    release = _text(exchange / "release").strip()
    return Result(int(status), release, trouble, seconds, accelerator.name)


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""


class _directory:
    """A directory below the cache that goes with us; what a killed run left goes with the next."""

    def __init__(self, name: str) -> None:
        runs = CACHE / "runs"
        runs.mkdir(parents=True, exist_ok=True)
        for old in runs.iterdir():
            if not Path("/proc", old.name.partition("-")[0]).exists():
                shutil.rmtree(old, ignore_errors=True)
        self._path = tempfile.mkdtemp(prefix=f"{os.getpid()}-{name}-", dir=runs)

    def __enter__(self) -> str:
        return self._path

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._path, ignore_errors=True)


@contextmanager
def _into_stderr() -> Iterator[BinaryIO]:
    """Give a pipe whose bytes go to stderr, until all who have it have closed it.

    QEMU writes to a descriptor that is open for writing alone, which a terminal is not.
    """
    read_end, write_end = os.pipe()
    with subprocess.Popen(["cat"], stdin=read_end, stdout=sys.stderr):
        os.close(read_end)
        with os.fdopen(write_end, "wb") as pipe:
            yield pipe


class _as_interrupt:
    """Turn signals into KeyboardInterrupt."""

    def __init__(self, *numbers: signal.Signals) -> None:
        self._numbers = numbers

    def _raise(self, *_: object) -> None:
        raise KeyboardInterrupt

    def __enter__(self) -> None:
        self._former = [signal.signal(number, self._raise) for number in self._numbers]

    def __exit__(self, *_: object) -> None:
        for number, former in zip(self._numbers, self._former, strict=True):
            signal.signal(number, former)
