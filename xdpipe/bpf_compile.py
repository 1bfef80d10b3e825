"""Compile the programs in bpf/ with bcc, without kernel headers.

bcc asks for the running kernel's headers, which a cloud kernel may have none of. XDP programs need
only what the kernel shows to user space, which Debian's linux-libc-dev has. So bcc is shown a tree
(laid out as its kbuild_helper.cc expects, seen in 0.26) of just those files that must be other than
the kernel's or linux-libc-dev's own, and is told to look for the rest in /usr/include last:

    include/linux/kconfig.h       what bcc's prologue needs: CONFIG_BPF_SYSCALL and types
    include/linux/log2.h          empty
    include/uapi/linux/bpf.h      empty: bcc brings its own
    arch/ARCH/include/asm/page.h  empty
    rest/uapi                     a link to /usr/include, for `#include <uapi/linux/…>`

It is made anew in a temporary directory for each compilation: nothing to keep up to date, to race
for, or to trust. (Links to each single header instead cost 30 to 600 ms, as the disk was busy.)
"""

import atexit
import contextlib
import ctypes
import json
import os
import platform
import sysconfig
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from xdpipe.bpf import Map, MapSpec, require_privilege
from xdpipe.bpf_module import Compiled
from xdpipe.bpf_program import renumber_maps
from xdpipe.errors import XdpipeError

INCLUDE = Path("/usr/include")
"""Where linux-libc-dev's headers are."""

_KCONFIG = """\
#define CONFIG_BPF_SYSCALL 1
#ifndef __ASSEMBLY__
typedef signed char s8;
typedef unsigned char u8;
typedef short s16;
typedef unsigned short u16;
typedef int s32;
typedef unsigned int u32;
typedef long long s64;
typedef unsigned long long u64;
typedef _Bool bool;
typedef unsigned long size_t;
typedef unsigned long uintptr_t;
#endif
"""

# What bcc calls the architecture (kbuild_helper.cc): the kernel's name of its directory.
_ARCHITECTURES = {
    "x86_64": "x86",
    "aarch64": "arm64",
    "ppc64le": "powerpc",
    "s390x": "s390",
    "riscv64": "riscv",
    "loongarch64": "loongarch",
}

_lock = threading.Lock()
"""Held while bcc compiles: it changes the process's directory, environment and stderr."""


class CompileError(XdpipeError):
    """bcc did not compile a program; the message ends with what clang says."""


def import_bcc() -> ModuleType:
    """Return the module bcc.

    Raises:
        XdpipeError: it is missing, or PyPI's package of that name is in its place.
    """
    cure = (
        "install python3-bpfcc (apt-get install python3-bpfcc) and use the system's python3, or a "
        "virtual environment made by: /usr/bin/python3 -m venv --system-site-packages"
    )
    try:
        import bcc
    except ImportError as error:
        raise XdpipeError(f"no bcc for this Python ({error}); {cure}") from error
    except OSError as error:
        raise XdpipeError(f"bcc: {error}; {cure}") from error
    if not hasattr(bcc, "BPF"):
        raise XdpipeError(
            f"{bcc.__file__} is not the BPF Compiler Collection but PyPI's unrelated package "
            f"`bcc`; pip uninstall bcc, then {cure}"
        )
    module: ModuleType = bcc
    return module


@contextlib.contextmanager
def kernel_tree() -> Iterator[tuple[Path, list[str]]]:
    """Make the tree described above, for as long as the context lasts.

    Yields:
        The tree, and the compiler's options that belong to it.

    Raises:
        XdpipeError: linux-libc-dev is not installed.
    """
    machine = platform.machine()
    multiarch = sysconfig.get_config_var("MULTIARCH") or f"{machine}-linux-gnu"
    asm = INCLUDE / multiarch  # elsewhere than with Debian and its kin, asm/ is in /usr/include
    if not (INCLUDE / "linux/if_ether.h").is_file():
        raise XdpipeError(
            f"no kernel headers for user space in {INCLUDE}; install them: "
            "apt-get install linux-libc-dev"
        )
    with tempfile.TemporaryDirectory(prefix="xdpipe-kernel-") as name:
        tree = Path(name)
        arch = _ARCHITECTURES.get(machine, machine)
        for path, text in {
            "include/linux/kconfig.h": _KCONFIG,
            "include/linux/log2.h": "",
            "include/uapi/linux/bpf.h": "",
            f"arch/{arch}/include/asm/page.h": "",
        }.items():
            (tree / path).parent.mkdir(parents=True, exist_ok=True)
            (tree / path).write_text(text)
        (tree / "rest").mkdir()
        (tree / "rest/uapi").symlink_to(INCLUDE)
        yield tree, [f"-idirafter{directory}" for directory in (tree / "rest", INCLUDE, asm)]


def compile_source(source: str, include: Path) -> Compiled:
    """Compile.

    Args:
        source: C, with bcc's macros for maps.
        include: directory of its own headers.

    Raises:
        CompileError: clang refuses it.
        XdpipeError: bcc or the headers are missing; not permitted.
    """
    bcc = import_bcc()
    require_privilege()
    with _lock, kernel_tree() as (tree, options), _environment(tree), _stderr() as said:
        # -Wno-everything: bcc's own headers warn under newer clangs.
        cflags = [f"-I{include.resolve()}", *options, "-Wno-everything"]
        try:
            module: Any = bcc.BPF(text=source.encode(), cflags=cflags)
        except Exception as error:
            raise CompileError(_first_error(said(), error)) from error
    try:
        return _take(bcc.lib, module)
    finally:
        # bcc keeps each module, and with it the maps that it made, until the process ends, unless
        # told otherwise.
        atexit.unregister(module.cleanup)
        module.cleanup()


def _take(lib: Any, module: Any) -> Compiled:
    """Copy what bcc holds (bcc's bpf_common.h; its Python module knows some of it only by name)."""
    lib.bpf_num_tables.restype = lib.bpf_table_fd_id.restype = ctypes.c_int
    lib.bpf_num_tables.argtypes = [ctypes.c_void_p]
    lib.bpf_table_fd_id.argtypes = lib.bpf_table_name.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    lib.bpf_table_name.restype = ctypes.c_char_p
    maps: list[MapSpec] = []
    places: dict[int, int] = {}
    for place in range(lib.bpf_num_tables(module.module)):
        name: bytes = lib.bpf_table_name(module.module, place)
        fd = lib.bpf_table_fd_id(module.module, place)
        with Map(os.dup(fd)) as made:
            info = made.info
        leaf = json.loads(lib.bpf_table_leaf_desc(module.module, name))
        fields = tuple(field[0] for field in leaf[1]) if isinstance(leaf, list) else ()
        places[fd] = place
        maps.append(MapSpec(
            name.decode(), info.type, info.key_size, info.value_size, info.max_entries,
            info.map_flags, fields,
        ))  # fmt: skip
    functions = {}
    for number in range(lib.bpf_num_functions(module.module)):
        name = lib.bpf_function_name(module.module, number)
        functions[name.decode()] = renumber_maps(module.dump_func(name), places)
    return Compiled(functions, tuple(maps))


@contextlib.contextmanager
def _environment(tree: Path) -> Iterator[None]:
    former = os.environ.get("BCC_KERNEL_SOURCE")
    os.environ["BCC_KERNEL_SOURCE"] = str(tree)
    try:
        yield
    finally:
        if former is None:
            del os.environ["BCC_KERNEL_SOURCE"]
        else:
            os.environ["BCC_KERNEL_SOURCE"] = former


@contextlib.contextmanager
def _stderr() -> Iterator[Any]:
    """Catch what C writes to descriptor 2; yields a function that returns it."""
    with tempfile.TemporaryFile() as file:
        former = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:

            def said() -> str:
                file.seek(0)
                return file.read().decode(errors="replace")

            yield said
        finally:
            os.dup2(former, 2)
            os.close(former)


def _first_error(said: str, error: Exception) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if "error:" in line] or lines
    return f"compile an eBPF program: {'; '.join(errors[:3]) or error}"
