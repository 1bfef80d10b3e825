"""The root file system of the VM: one ext4 image without kernel, made from Debian packages."""

import shutil
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

from vm.archive import MIRROR, SUITE, source
from vm.cache import ROOT, VmError, cached

PYTHON = "3.13"
"""Of SUITE."""
_PROVISION, _PACKAGES = ROOT / "vm/provision.sh", ROOT / "vm/packages.txt"
_SIZE_MIB = 1536
_LEAVE_OUT = ("/usr/share/man/*", "/usr/share/doc/*", "/usr/share/locale/*", "/usr/share/info/*")


def dependencies() -> list[str]:
    """Return xdpipe's Python dependencies, with those of its tests."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted: list[str] = project["dependencies"] + project["optional-dependencies"]["test"]
    return wanted


def inputs() -> list[str | Path]:
    """Return what a system depends on, see vm.cache."""
    return [SUITE, MIRROR, _PROVISION, _PACKAGES, Path(__file__), *dependencies()]


def root_image(packages: Sequence[str] = ()) -> Path:
    """Return the image file, made if need be.

    Args:
        packages: what there shall be besides vm/packages.txt.
    """
    name = "+".join(["root", *sorted(packages)])
    made_from = [*inputs(), *sorted(packages)]
    return cached(name, made_from, lambda place: _make(place, packages)) / "root.ext4"


def _make(place: Path, packages: Sequence[str]) -> None:
    root = place / "root"
    make_system(root, packages)
    image = place / "root.ext4"
    do(
        # root and its owners as they are; read only, so no journal and no reserve
        ["mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-d", str(root),
         str(image), f"{_SIZE_MIB}M"],
        "write the image",
    )  # fmt: skip
    shutil.rmtree(root)


def make_system(root: Path, packages: Sequence[str] = (), hooks: Sequence[str] = ()) -> None:
    """Have mmdebstrap make a Debian system in a directory, and provision it.

    Args:
        root: the directory, which must not be there; another beside it is used for a while.
        packages: what there shall be besides vm/packages.txt.
        hooks: shell commands to run at the end, with the directory as $1.
    """
    wheels = root.with_name("wheels")
    do(
        [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
         "--only-binary=:all:", "--python-version", PYTHON, "--implementation", "cp",
         "--abi", f"cp{PYTHON.replace('.', '')}", "--abi", "abi3", "--abi", "none",
         "--dest", str(wheels), *dependencies()],
        "fetch the Python dependencies",
    )  # fmt: skip
    listed = [line.partition("#")[0].strip() for line in _PACKAGES.read_text().splitlines()]
    given = 'mkdir -p "$1/given/vm" && cp -r'
    do(
        ["mmdebstrap", "--quiet", "--mode=root", "--variant=minbase",
         *(f"--dpkgopt=path-exclude={pattern}" for pattern in _LEAVE_OUT),
         f"--include={','.join([*filter(None, listed), *packages])}",
         f"--customize-hook={given} {wheels} \"$1/given\"",
         f"--customize-hook=cp {_PROVISION} {_PACKAGES} \"$1/given/vm\"",
         f"--customize-hook=cp {ROOT / 'pyproject.toml'} \"$1/given\"",
         "--customize-hook=chroot \"$1\" /given/vm/provision.sh /given /given/wheels",
         # compiling them again at each start would take longer than all else
         "--customize-hook=chroot \"$1\" python3 -m compileall -q -j0 /usr/lib/python3 /opt/xdpipe",
         "--customize-hook=rm -r \"$1/given\"",
         "--customize-hook=mkdir -p \"$1/work\" \"$1/out\" \"$1/exchange\"",
         *(f"--customize-hook={hook}" for hook in hooks),
         SUITE, str(root), source(SUITE)],
        "make the root file system",
    )  # fmt: skip
    shutil.rmtree(wheels)


def do(argv: Sequence[str], what: str) -> None:
    """Run a program, whose output is shown where it fails."""
    done = subprocess.run(
        argv, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode != 0:
        sys.stderr.write(done.stdout)
        raise VmError(f"could not {what}: {argv[0]} ended with {done.returncode}, see above")
