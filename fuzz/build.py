"""Compile the driver with the core's C files, and lay a target's image beside it.

All lies in build/fuzz, by compiler: a program for each target, which is a link to the one driver.
What has not changed is not compiled again.
"""

import hashlib
import os
import shutil
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from fuzz.image import image
from fuzz.targets import Target

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build" / "fuzz"
DRIVER = tuple(
    ROOT / "fuzz" / f"{name}.c"
    for name in ("driver", "target", "input", "lay", "check", "said", "sums")
)
FILES_MAIN = ROOT / "fuzz" / "files.c"
_FLAGS = (
    "-std=gnu11", "-g", "-fno-omit-frame-pointer", "-fno-sanitize-recover=all",
    f"-I{ROOT / 'xdpipe' / 'core'}", f"-I{ROOT / 'bpf'}", f"-I{ROOT / 'fuzz'}",
)  # fmt: skip


class BuildError(Exception):
    """The driver does not compile; the compiler's words."""


@dataclass(frozen=True)
class Compiler:
    """A compiler and what it makes of the driver.

    Attributes:
        name: of the program.
        compile: its own flags for a file.
        seen: further ones for a file of the core, where libFuzzer sees what has been reached.
        link: for the whole.
        main: the file that has main(), where libFuzzer has not.
    """

    name: str
    compile: tuple[str, ...]
    seen: tuple[str, ...]
    link: tuple[str, ...]
    main: tuple[Path, ...] = ()

    def lacks(self) -> str | None:
        """Return what there is not, or None."""
        if shutil.which(self.name) is None:
            return f"no {self.name}"
        empty = "int LLVMFuzzerTestOneInput(const void *p, unsigned long n)\n{ return !p && n; }\n"
        if self.main:
            empty += "int main(void)\n{ return 0; }\n"
        done = subprocess.run(
            [self.name, *self.compile, *self.link, "-x", "c", "-", "-o", os.devnull],
            input=empty, text=True, capture_output=True, check=False,
        )  # fmt: skip
        return None if done.returncode == 0 else f"{self.name} has no {' '.join(self.link)}"


CLANG = Compiler(
    "clang", ("-fsanitize=address,undefined",), ("-fsanitize=fuzzer-no-link",),
    ("-fsanitize=fuzzer,address,undefined",),
)  # fmt: skip
GCC = Compiler(
    "gcc", ("-fsanitize=address,undefined",), (), ("-fsanitize=address,undefined",), (FILES_MAIN,)
)


def _core() -> list[Path]:
    paths = (ROOT / "xdpipe" / "core").rglob("*.c")
    return sorted(path for path in paths if path.name != "_core.c")


def _hash_of(paths: Sequence[Path], *words: str) -> str:
    hash_ = hashlib.sha256("\0".join(words).encode())
    for path in paths:
        hash_.update(path.read_bytes())
    return hash_.hexdigest()[:16]


def _compile(compiler: Compiler, source: Path, headers: str, place: Path) -> Path:
    """Compile one file, unless that has been done; return the object file."""
    ours = source.parent == ROOT / "fuzz"
    argv = [
        compiler.name,
        *_FLAGS,
        *compiler.compile,
        *(("-O2",) if ours else ("-O1", *compiler.seen)),
    ]
    argv += ["-c", str(source)]
    stem = "-".join(source.relative_to(ROOT).parts) if source.is_relative_to(ROOT) else source.name
    done = place / f"{stem}-{_hash_of([source], headers, *argv)}.o"
    if not done.exists():
        for old in place.glob(f"{stem}-{'[0-9a-f]' * 16}.o"):
            old.unlink(missing_ok=True)
        new = done.with_suffix(f".{os.getpid()}")
        _run([*argv, "-o", str(new)])
        new.rename(done)
    return done


def _run(argv: list[str]) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BuildError(f"{' '.join(argv)}\n{done.stderr}")


def build(compiler: Compiler, *extra: Path, place: Path | None = None) -> Path:
    """Build the driver; return its path.

    Args:
        compiler: CLANG or GCC.
        extra: further C files, for tests.
        place: directory for the driver; None: beside the object files, in build/fuzz.

    Raises:
        BuildError: it does not compile.
    """
    objects_in = BUILD / compiler.name
    objects_in.mkdir(parents=True, exist_ok=True)
    place = place or objects_in
    version = subprocess.run(
        [compiler.name, "--version"], capture_output=True, text=True, check=True
    ).stdout
    trees = (ROOT / "xdpipe" / "core", ROOT / "bpf", ROOT / "fuzz")
    headers = _hash_of(sorted(path for tree in trees for path in tree.rglob("*.h")), version)
    sources = [*_core(), *DRIVER, *compiler.main, *extra]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(
            pool.map(lambda path: _compile(compiler, path, headers, objects_in), sources)
        )
    names = hashlib.sha256(" ".join(path.name for path in objects).encode()).hexdigest()[:16]
    driver = place / f"driver.{names}"
    if not driver.exists():
        for old in place.glob("driver.*"):
            old.unlink(missing_ok=True)
        new = place / f"new-{os.getpid()}"
        _run([compiler.name, *compiler.link, "-rdynamic", *map(str, objects), "-o", str(new)])
        new.rename(driver)
    return driver


def program(driver: Path, name: str, target: Target) -> Path:
    """Return a target's program: a link to the driver, with the image beside it.

    Raises:
        ImageError: the states of its stages cannot be written down.
    """
    path = driver.with_name(name)
    new = driver.with_name(f"{name}.{os.getpid()}.new")
    new.write_text(image(name, target))
    new.rename(f"{path}.image")
    new.symlink_to(driver.name)
    new.rename(path)
    return path
