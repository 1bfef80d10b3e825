"""QEMU: where it comes from, which accelerator it can use here, and a machine's command line."""

import contextlib
import functools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vm.archive import MIRROR, SUITE, source
from vm.cache import CACHE, VmError, cached, say
from vm.kernel import Kernel

_BINARY = "qemu-system-x86_64"
# What costs TCG more than a guest gains by it: wide registers, most of all where they are saved and
# restored, and checks at each access to memory.
_SLOW = "-avx,-avx2,-fma,-f16c,-vaes,-xsave,-mpx,-pku,-smap,-smep,-svm"
PROBE_S = 20.0
"""How long a kernel under KVM may take to say something; one that boots takes 2 s."""
_MARK = b"Linux version"
_LIBRARY = Path("/usr/lib/x86_64-linux-gnu")


@dataclass(frozen=True)
class Qemu:
    """A QEMU that has the NICs that are wanted.

    Attributes:
        command: what starts it.
        origin: where it comes from, to be told.
    """

    command: tuple[str, ...]
    origin: str

    @classmethod
    @functools.cache
    def find(cls) -> "Qemu":
        """Return the host's QEMU if it has igb (QEMU 8 or newer), else Debian 13's.

        The latter is unpacked into the cache and started by its own loader with its own libraries,
        so nothing is installed. Debian 12's QEMU is 7.2.
        """
        path = shutil.which(_BINARY)
        if path is not None and _has_igb((path,)):
            return cls((path,), path)
        place = cached(f"qemu-{SUITE}", [SUITE, MIRROR], _unpack) / "root"
        library = place / _LIBRARY.relative_to("/")
        command = (
            *_with_modules_of(library),
            str(library / "ld-linux-x86-64.so.2"), "--library-path", str(library),
            str(place / "usr/bin" / _BINARY), "-L", str(place / "usr/share/qemu"),
            "-L", str(place / "usr/share/seabios"),
        )  # fmt: skip
        if not _has_igb(command):
            raise VmError(
                f"{place}: Debian 13's QEMU does not start here; remove {CACHE} and retry"
            )
        why = "the host's has no igb" if path else "the host has none"
        return cls(command, f"Debian 13's, in {place} ({why})")


def _with_modules_of(library: Path) -> tuple[str, ...]:
    """Return what starts a program with the QEMU modules of `library` in place of the host's.

    QEMU looks into the host's directory for modules that it has nowhere else, and cannot do with
    those of another version.
    """
    theirs = _LIBRARY / "qemu"
    if not theirs.exists():
        return ()
    script = 'mount --bind "$1" "$2" && shift 2 && exec "$@"'
    return ("unshare", "--mount", "sh", "-c", script, "sh", str(library / "qemu"), str(theirs))


def _has_igb(command: Sequence[str]) -> bool:
    done = subprocess.run(
        [*command, "-device", "help"], check=False, capture_output=True, text=True
    )
    return '"igb"' in done.stdout


def _unpack(place: Path) -> None:
    if shutil.which("mmdebstrap") is None:
        raise VmError(
            "mmdebstrap is missing; install it, or a qemu-system-x86 of version 8 or newer"
        )
    done = subprocess.run(
        ["mmdebstrap", "--quiet", "--variant=extract",
         "--include=qemu-system-x86,seabios,ipxe-qemu", SUITE, str(place / "root"), source(SUITE)],
        check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    if done.returncode != 0:
        raise VmError(f"could not fetch Debian 13's QEMU: {done.stdout.strip()[-300:]}")


@dataclass(frozen=True)
class Accelerator:
    """What runs the guest's instructions.

    Attributes:
        name: `kvm` or `tcg`.
        why: it was chosen, to be told.
    """

    name: str
    why: str

    @classmethod
    def choose(cls, qemu: Qemu, kernel: Kernel) -> "Accelerator":
        """Return KVM where a kernel really boots with it, else TCG.

        /dev/kvm may be there and take KVM_CREATE_VM on a host that is itself a paravirtual guest
        (kvm_pvm), and yet no kernel boots: QEMU stays paused and does not end.
        """
        forced = os.environ.get("XDPIPE_VM_ACCEL")
        if forced:
            return cls(forced, "XDPIPE_VM_ACCEL says so")
        if not os.access("/dev/kvm", os.R_OK | os.W_OK):
            return cls("tcg", "there is no /dev/kvm that we may open")
        if not any(Path(f"/sys/module/{name}").exists() for name in ("kvm_intel", "kvm_amd")):
            return cls("tcg", "/dev/kvm is there, but neither kvm_intel nor kvm_amd")
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()
        asked = cached("kvm", [boot], lambda place: _probe(place, qemu, kernel)) / "boots"
        if asked.read_text() == "yes":
            return cls("kvm", "a kernel boots with it")
        return cls("tcg", f"with KVM no kernel says anything for {PROBE_S:.0f} s")

    @property
    def options(self) -> list[str]:
        """QEMU's options for it."""
        if self.name == "kvm":
            return ["-M", "q35,accel=kvm", "-cpu", "host"]
        return ["-M", "q35", "-accel", "tcg,thread=multi", "-cpu", f"max,{_SLOW}"]


def _probe(place: Path, qemu: Qemu, kernel: Kernel) -> None:
    said = b""
    with tempfile.TemporaryDirectory() as empty:
        with contextlib.suppress(subprocess.TimeoutExpired):
            said = subprocess.run(
                [*qemu.command, "-M", "q35,accel=kvm", "-cpu", "host", "-m", "512", "-nodefaults",
                 "-nographic", "-no-user-config", "-no-reboot", "-monitor", "none",
                 "-serial", f"file:{empty}/serial", "-kernel", str(kernel.vmlinux),
                 "-append", "console=ttyS0 panic=-1"],
                check=False, timeout=PROBE_S, capture_output=True,
            ).stderr  # fmt: skip
        serial = Path(empty, "serial")
        said += serial.read_bytes() if serial.exists() else b""
    (place / "boots").write_text("yes" if _MARK in said else "no")


# virtio_net sends a zero-copy packet behind a header that lies in the module itself (xsk_hdr in
# drivers/net/virtio_net.c; seen up to Linux 7.3), and has that mapped for the device as if modules
# lay where the kernel's own image does. So the device reads something else, 1 GiB further up, and
# where that happens not to be 0, it drops all that is sent. Without KASLR it is always that place,
# and nobody uses it when the kernel is told to keep off: it stays 0.
VIRTIO_HEADER = "nokaslr memmap=64M$0x40000000"
_BOOT = "console=ttyS0 loglevel=5 panic=-1 cryptomgr.notests"
"""The kernel's tests of its ciphers, with all variants for a processor, take TCG a second."""


@dataclass
class Machine:
    """A virtual machine to be started.

    Attributes:
        kernel: that it boots.
        accelerator: that it runs with.
        root: image of the root file system; not written to.
        exchange: directory for what to do and what came of it.
        tree: the working tree; not written to.
        out: directory that the guest may write to.
        kept: directory for what guests compile, which the next one finds again.
        cores: virtual CPUs.
        memory_mib: RAM.
        errors_fd: file descriptor for what the guest's command writes to stderr.
        devices: further options, such as those of NICs.
    """

    kernel: Kernel
    accelerator: Accelerator
    root: Path
    exchange: Path
    tree: Path
    out: Path
    kept: Path
    errors_fd: int
    cores: int = 2
    memory_mib: int = 2048
    devices: list[str] = field(default_factory=list)

    def command(self, qemu: Qemu) -> list[str]:
        """Return the command line.

        The guest's hvc0 is QEMU's stdin and stdout, and hvc1 what `errors_fd` is, which QEMU has to
        inherit.
        """
        session = "/work/vm/guest/session"
        return [
            *qemu.command, *self.accelerator.options, "-smp", str(self.cores),
            "-m", f"{self.memory_mib}M", "-nodefaults", "-no-user-config", "-display", "none",
            "-monitor", "none", "-no-reboot",
            "-kernel", str(self.kernel.vmlinux), "-initrd", str(self.kernel.initrd),
            "-append", f"{VIRTIO_HEADER} {_BOOT} xdpipe.session={session}",
            "-serial", f"file:{self.exchange}/serial",
            "-chardev", "stdio,id=terminal,signal=off",
            "-add-fd", f"fd={self.errors_fd},set=1",
            "-chardev", "file,id=errors,path=/dev/fdset/1,append=on",
            "-device", "virtio-serial-pci,romfile=", "-device", "virtconsole,chardev=terminal",
            "-device", "virtconsole,chardev=errors",
            "-drive", f"if=none,id=root,format=raw,readonly=on,file={self.root}",
            "-device", "virtio-blk-pci,drive=root,romfile=",
            *_share("tree", self.tree, readonly=True), *_share("out", self.out),
            *_share("exchange", self.exchange), *_share("kept", self.kept),
            *self.devices,
        ]  # fmt: skip


def _share(tag: str, path: Path, *, readonly: bool = False) -> list[str]:
    options = f"local,path={path},security_model=none,mount_tag={tag}"
    return ["-virtfs", options + (",readonly=on" if readonly else "")]


def tell(qemu: Qemu, accelerator: Accelerator, kernel: Kernel) -> None:
    """Say what is used, and why."""
    say(f"QEMU: {qemu.origin}")
    say(f"accelerator: {accelerator.name} ({accelerator.why}); kernel: {kernel.release}")
