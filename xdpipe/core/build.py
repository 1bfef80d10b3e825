# SPDX-License-Identifier: Apache-2.0
"""Build the C core as xdpipe.core._core with cffi in API mode; named by setup.py."""

import os
import re
from pathlib import Path

from cffi import FFI

HERE = Path(__file__).parent
PARTS = sorted(
    path.relative_to(HERE).as_posix()
    for room in ("stages", "traffic")
    for path in HERE.glob(f"{room}/*.h")
    if "/* cdef begin */" in path.read_text()
)
"""Headers of native stages, and of what makes traffic, that Python sees; others are shared."""
SOURCES = sorted(
    path.relative_to(HERE).as_posix() for path in HERE.rglob("*.c") if path.name != "_core.c"
)
HEADERS = sorted(path.relative_to(HERE).as_posix() for path in HERE.rglob("*.h"))


def definitions() -> str:
    """Return what stands between the cdef marks: one definition for C and for Python."""
    parts = [
        "#define XP_ABSENT ...\n#define XP_CONTROL ...\n#define XP_BLOCK ...\n"
        "#define XP_HEADROOM ...\n#define XP_TX_METADATA ...\n#define XP_PORTS_MAX ...\n"
        "#define XP_DNS_BUFFER ...\n"
        "#define XP_SET_RING ...\n#define XP_TAP_LEAVING ...\n#define XP_TAPS_MAX ...\n"
        "#define XP_KEY_WORDS ...\n#define XP_KEY_PARTS ...\n#define XP_CHAIN_MAX ...\n"
        "#define XP_HISTOGRAM_SUB_BITS ...\n#define XP_HISTOGRAM_BINS ...\n"
        "#define XP_LATE_BINS ...\n"
        "struct xp_batch { uint32_t n; uint32_t port; uint8_t *base; uint8_t *texts; ...; };\n"
        "struct xp_counters { ...; };\n"
    ]
    for header in ("xp_batch.h", "xp.h", *PARTS):
        text = (HERE / header).read_text()
        inside = re.search(r"/\* cdef begin \*/(.*)/\* cdef end \*/", text, re.DOTALL)
        if inside is None:
            raise SystemExit(f"xdpipe/core/{header}: the cdef marks are missing")
        parts.append(inside.group(1))
    return "".join(parts)


ffi = FFI()
ffi.cdef(definitions())
# Paths relative to the root of the distribution, where setuptools runs.
ffi.set_source(
    "xdpipe.core._core",
    "".join(f'#include "{header}"\n' for header in ("xp.h", *PARTS)),
    sources=[f"xdpipe/core/{name}" for name in SOURCES],
    depends=[f"xdpipe/core/{name}" for name in HEADERS]
    + ["bpf/hints.h", "bpf/inject.h", "bpf/emit.h"],
    include_dirs=["xdpipe/core", "bpf"],
    extra_compile_args=["-O3", "-std=gnu11", *os.environ.get("XDPIPE_CFLAGS", "").split()],
    extra_link_args=os.environ.get("XDPIPE_LDFLAGS", "").split(),
)

if __name__ == "__main__":
    ffi.compile(verbose=True)
