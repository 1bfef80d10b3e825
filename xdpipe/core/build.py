# SPDX-License-Identifier: Apache-2.0
"""Build the C core as xdpipe.core._core with cffi in API mode; named by setup.py."""

import os
import re
from pathlib import Path

from cffi import FFI

HERE = Path(__file__).parent
SOURCES = sorted(path.name for path in HERE.glob("*.c") if path.name != "_core.c")


def definitions() -> str:
    """Return the part of xp.h between its cdef marks: one definition for C and for Python."""
    text = (HERE / "xp.h").read_text()
    inside = re.search(r"/\* cdef begin \*/(.*)/\* cdef end \*/", text, re.DOTALL)
    if inside is None:
        raise SystemExit("xdpipe/core/xp.h: the cdef marks are missing")
    return (
        "#define XP_ABSENT ...\n#define XP_CONTROL ...\n#define XP_BLOCK ...\n"
        "#define XP_TX_METADATA ...\n#define XP_PORTS_MAX ...\n"
        "#define XP_SET_RING ...\n#define XP_TAP_LEAVING ...\n#define XP_TAPS_MAX ...\n"
        "struct xp_batch { ...; };\nstruct xp_counters { ...; };\n" + inside.group(1)
    )


ffi = FFI()
ffi.cdef(definitions())
# Paths relative to the root of the distribution, where setuptools runs.
ffi.set_source(
    "xdpipe.core._core",
    '#include "xp.h"\n',
    sources=[f"xdpipe/core/{name}" for name in SOURCES],
    depends=[f"xdpipe/core/{path.name}" for path in sorted(HERE.glob("*.h"))]
    + ["bpf/hints.h", "bpf/inject.h"],
    include_dirs=["xdpipe/core", "bpf"],
    extra_compile_args=["-O3", "-std=gnu11", *os.environ.get("XDPIPE_CFLAGS", "").split()],
    extra_link_args=os.environ.get("XDPIPE_LDFLAGS", "").split(),
)

if __name__ == "__main__":
    ffi.compile(verbose=True)
