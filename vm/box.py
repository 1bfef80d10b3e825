"""The Vagrant box: the system of the VM with an init, sshd and a boot loader, on a disk of its own.

It boots by itself, so libvirt needs no kernel from a place that its QEMU may not read.
"""

import io
import json
import shutil
import tarfile
from pathlib import Path

from vm.cache import CACHE, ROOT, cached
from vm.image import do, inputs, make_system
from vm.kernel import DEFAULT, Kernel
from vm.qemu import VIRTIO_HEADER

PACKAGES = (
    "systemd-sysv", "udev", "dbus", "openssh-server", "ifupdown", "dhcpcd-base", "sudo", "rsync",
    "grub-pc-bin",
)  # fmt: skip
"""What Vagrant wants of a box, and what boots it."""
_SETUP = ROOT / "vm/guest/box-setup"
_DISK_MIB, _START_SECTOR, _SECTOR = 4096, 2048, 512
_GRUB = "usr/lib/grub/i386-pc"
_FOR_VIRTIO = VIRTIO_HEADER.replace("$", r"\$")  # GRUB would take it for a variable
_BOOT = f"""\
set root=(hd0,msdos1)
linux /boot/vmlinuz root=/dev/vda1 {_FOR_VIRTIO} console=tty0 console=ttyS0 loglevel=5 net.ifnames=0
initrd /boot/initrd
boot
"""


def box(kernel: str = DEFAULT) -> Path:
    """Return the box file, made if need be.

    Args:
        kernel: see vm.kernel.Kernel.get.
    """
    booted = Kernel.get(kernel)
    made_from = [*inputs(), *PACKAGES, _BOOT, _SETUP, Path(__file__), booted.initrd, booted.release]
    place = cached("box", made_from, lambda place: _make(place, booted))
    link = CACHE / "xdpipe.box"  # where the Vagrantfile looks
    link.unlink(missing_ok=True)
    link.symlink_to(place.relative_to(CACHE) / "xdpipe.box")
    return link


def _make(place: Path, kernel: Kernel) -> None:
    root, disk = place / "root", place / "disk"
    make_system(
        root, PACKAGES,
        [f'cp {_SETUP} "$1/tmp/box-setup"', 'chroot "$1" /tmp/box-setup',
         'rm "$1/tmp/box-setup"'],
    )  # fmt: skip
    shutil.copy(kernel.vmlinuz, root / "boot/vmlinuz")
    shutil.copy(kernel.initrd, root / "boot/initrd")
    _write_disk(root, disk)
    shutil.rmtree(root)
    image = place / "box.img"
    do(["qemu-img", "convert", "-c", "-O", "qcow2", str(disk), str(image)], "compress the disk")
    disk.unlink()
    told = {"provider": "libvirt", "format": "qcow2", "virtual_size": _DISK_MIB // 1024}
    with tarfile.open(place / "xdpipe.box", "w") as file:
        for name, text in (("metadata.json", json.dumps(told)), ("Vagrantfile", "")):
            member = tarfile.TarInfo(name)
            member.size = len(text)
            file.addfile(member, io.BytesIO(text.encode()))
        file.add(image, "box.img")
    image.unlink()


def _write_disk(root: Path, disk: Path) -> None:
    """Write a system to a disk image with one partition that a BIOS boots; nothing is mounted.

    GRUB's boot.img goes to sector 0 and its core image to those that follow, which is where either
    looks for the rest unless told otherwise (GRUB manual, "BIOS installation").
    """
    (root / "boot/grub.cfg").write_text(_BOOT)
    do(
        ["chroot", str(root), "grub-mkimage", "--format", "i386-pc", "--output", "/boot/core.img",
         "--config", "/boot/grub.cfg", "--prefix", "(hd0,msdos1)/boot/grub",
         "biosdisk", "part_msdos", "ext2", "linux"],
        "make the boot loader",
    )  # fmt: skip
    boot, core = (root / _GRUB / "boot.img").read_bytes(), (root / "boot/core.img").read_bytes()
    assert len(core) <= (_START_SECTOR - 1) * _SECTOR
    with disk.open("wb") as file:
        file.truncate(_DISK_MIB << 20)
    layout = f"label: dos\nstart={_START_SECTOR}, type=83, bootable\n"
    do(["sh", "-c", f"printf '{layout}' | sfdisk --quiet {disk}"], "write the partition table")
    offset = _START_SECTOR * _SECTOR
    do(
        ["mke2fs", "-q", "-F", "-t", "ext4", "-m", "0", "-d", str(root), "-E", f"offset={offset}",
         str(disk), f"{_DISK_MIB - (offset >> 20)}M"],
        "write the file system",
    )  # fmt: skip
    with disk.open("r+b") as file:
        file.write(boot[:440])  # what follows is the partition table's
        file.seek(_SECTOR)
        file.write(core)
