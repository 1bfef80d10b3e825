"""Debian's kernels for the VM: a kernel, the modules that are wanted, and a first file system."""

import re
import shutil
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

from vm.archive import Archive
from vm.cache import ROOT, VmError, cached
from vm.image import root_image

DEFAULT = "7.3"
"""The one with zero copy on both NICs; of trixie-backports."""
KERNELS = {"6.1": "bookworm", "6.12": "trixie", DEFAULT: "trixie-backports"}

BOOT = ("virtio_pci", "virtio_blk", "crc32c_generic", "ext4", "9p", "9pnet_virtio", "overlay",
        "virtio_console")  # fmt: skip
"""Modules without which there is no root file system and no console; loaded in this order."""
MODULES = (*BOOT, "virtio_net", "igb", "vmxnet3", "e1000e", "veth", "tun", "xsk_diag",
           "sch_ingress", "sch_netem", "cls_bpf", "8021q", "ptp")  # fmt: skip
_PACKED = {b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd", b"\x1f\x8b": "gzip"}
"""What unpacks a kernel, by how it begins."""
_INIT = ROOT / "vm/guest/init"


@dataclass(frozen=True)
class Kernel:
    """A kernel that can be booted.

    Attributes:
        version: as asked for, such as `7.3`.
        vmlinuz: the kernel, as boot loaders want it.
        vmlinux: the same, unpacked; QEMU starts it by PVH.
        initrd: the first file system, with the modules, which it puts into the root's.
    """

    version: str
    vmlinuz: Path
    vmlinux: Path
    initrd: Path

    @classmethod
    def get(cls, version: str = DEFAULT) -> "Kernel":
        """Return a kernel, fetched and unpacked if need be.

        Args:
            version: the first numbers of it; the newest such in Debian's suites is taken, since
                old ones vanish from backports.
        """
        inputs = [version, *MODULES, _INIT, Path(__file__)]
        place = cached(f"linux-{version}", inputs, lambda place: _make(version, place))
        return cls(version, place / "vmlinuz", place / "vmlinux", place / "initrd")

    @property
    def release(self) -> str:
        """What uname -r says in it."""
        return (self.vmlinuz.parent / "release").read_text().strip()


def _make(version: str, place: Path) -> None:
    archive = Archive()
    there = archive.versions("linux-image-amd64")
    found = [each for each in there if re.match(rf"{re.escape(version)}(\.|-|$)", each)]
    if not found:
        raise VmError(f"no kernel {version} in Debian's suites; there are: {', '.join(there)}")
    # the meta package names the kernel's, from 7.x on one for each part
    [image] = [
        name for name in archive.depends("linux-image-amd64", found[0])
        if name.startswith("linux-image-")
    ]  # fmt: skip
    release = image.removeprefix("linux-image-")
    parts = [f"linux-{part}-{release}" for part in ("binary", "modules", "base")]
    unpacked = place / "unpacked"
    archive.extract(parts if archive.versions(parts[0]) else [image], unpacked)
    modules = unpacked / "usr/lib/modules" / release
    if not modules.exists():  # before Debian 13
        modules = unpacked / "lib/modules" / release
    for kernel in (modules / "vmlinuz", unpacked / f"boot/vmlinuz-{release}"):
        if kernel.exists():
            shutil.copy(kernel, place / "vmlinuz")
    _unpack(place / "vmlinuz", place / "vmlinux")
    (place / "release").write_text(release)
    _make_initrd(place, modules, release)
    shutil.rmtree(unpacked)


def _unpack(vmlinuz: Path, vmlinux: Path) -> None:
    """Unpack a kernel, which an emulated processor takes 2 s for, each time it boots.

    Where it lies, and how it is packed: Documentation/arch/x86/boot.rst, payload_offset.
    """
    data = vmlinuz.read_bytes()
    sectors = data[0x1F1] or 4
    offset, length = struct.unpack_from("<2I", data, 0x248)
    start = (sectors + 1) * 512 + offset
    packed = data[start : start + length - 4]  # behind it lies its length when unpacked
    [program] = [name for magic, name in _PACKED.items() if packed.startswith(magic)]
    with vmlinux.open("wb") as out:
        subprocess.run([program, "-dc"], input=packed, stdout=out, check=True)


def _make_initrd(place: Path, modules: Path, release: str) -> None:
    """Pack busybox, the wanted modules with what they need, and vm/guest/init."""
    root = place / "initrd.root"
    for name in ("bin", "proc", "sys", "dev", "lower", "rw", "root"):
        (root / name).mkdir(parents=True)
    shutil.copy(_INIT, root / "init")
    (root / "init").chmod(0o755)
    subprocess.run(
        ["debugfs", "-R", f"dump -p /bin/busybox {root}/bin/busybox", root_image()],
        check=True, capture_output=True,
    )  # fmt: skip
    (root / "bin/busybox").chmod(0o755)
    target = root / "lib/modules" / release
    target.mkdir(parents=True)
    subprocess.run(["depmod", "-b", modules.parents[2], release], check=True)
    files = _by_name(modules)  # what is in neither is built in
    (root / "boot-modules").write_text("".join(f"{name}\n" for name in BOOT if name in files))
    for path in _with_dependencies(modules, [files[name] for name in MODULES if name in files]):
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(modules / path, target / path)
        if path.endswith(".xz"):  # busybox's modprobe does not read them
            subprocess.run(["xz", "--decompress", target / path], check=True)
    for name in ("modules.builtin", "modules.order", "modules.builtin.modinfo"):
        if (modules / name).exists():
            shutil.copy(modules / name, target / name)
    subprocess.run(["depmod", "-b", root, release], check=True)
    with open(place / "initrd", "wb") as out:
        files = subprocess.run(["find", "."], cwd=root, check=True, capture_output=True).stdout
        packed = subprocess.run(
            [root / "bin/busybox", "cpio", "-o", "-H", "newc"],
            cwd=root, input=files, check=True, capture_output=True,
        ).stdout  # fmt: skip
        subprocess.run(["gzip", "-1"], input=packed, stdout=out, check=True)
    shutil.rmtree(root)


def _by_name(modules: Path) -> dict[str, str]:
    """Return the file of each module, by its name."""
    paths = [line.partition(":")[0] for line in (modules / "modules.dep").read_text().splitlines()]
    return {Path(path).name.partition(".")[0].replace("-", "_"): path for path in paths}


def _with_dependencies(modules: Path, wanted: list[str]) -> list[str]:
    """Return these files of modules and those of the modules that they need."""
    needs: dict[str, list[str]] = {}
    for line in (modules / "modules.dep").read_text().splitlines():
        path, _, rest = line.partition(":")
        needs[path] = rest.split()
    found: set[str] = set()
    wanted = list(wanted)
    while wanted:
        path = wanted.pop()
        if path not in found:
            found.add(path)
            wanted += needs[path]
    return sorted(found)
