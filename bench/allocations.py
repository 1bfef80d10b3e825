"""Count what native stages allocate: every call of glibc's allocator while their C code runs.

By a library that stands before the allocator (malloc_count.c), preloaded into a process of its own:
this file, started once more.
"""

import ctypes
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import harness
from laid import BATCH, Laid

from xdpipe.chain import Chain
from xdpipe.core._core import ffi, lib
from xdpipe.stage import Stage

HERE = Path(__file__).resolve().parent
COUNTER = HERE.parent / "build" / "bench" / "malloc_count.so"
Make = Callable[[], Sequence[Stage]]


def count(chains: Mapping[str, tuple[Make, Sequence[bytes]]]) -> dict[str, tuple[int, int]]:
    """Return for each chain how many packets went through it, and how often it allocated.

    In the process that has the counter preloaded.
    """
    counter = ctypes.CDLL(str(COUNTER))
    counter.count_calls.restype = ctypes.c_uint64
    counter.count_calls.argtypes = (ctypes.c_void_p,) * 3 + (ctypes.c_uint32,)
    if counter.count_calls(ctypes.cast(counter.allocate, ctypes.c_void_p), None, None, 7) != 1:
        harness.fail("malloc_count.so is not preloaded, or counts wrongly")
    run = int(ffi.cast("uintptr_t", ffi.addressof(lib, "xp_run_stages")))
    result = {}
    for name, (make, packets) in chains.items():
        laid = Laid(packets, -(-len(packets) // BATCH) * BATCH)
        chain = Chain(make(), laid.batch)
        where = [int(ffi.cast("uintptr_t", it)) for it in (laid.batch.c, chain.c_stages)]
        calls = n_packets = 0
        for _ in laid.batches():
            calls += counter.count_calls(run, *where, len(chain.stages))
            n_packets += len(laid.batch)
        result[name] = (n_packets, calls)
    return result


def counted(names: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Return the same, from a process that is started for it; names are those of stages.NATIVE."""
    COUNTER.parent.mkdir(parents=True, exist_ok=True)
    argv = ["gcc", "-O2", "-fno-builtin", "-shared", "-fPIC", str(HERE / "malloc_count.c"),
            "-o", str(COUNTER)]  # fmt: skip
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        harness.fail(f"malloc_count.c does not compile\n{done.stderr}")
    done = subprocess.run(
        [sys.executable, __file__, *names], env={**os.environ, "LD_PRELOAD": str(COUNTER)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        harness.fail(f"counting allocations failed\n{done.stderr}")
    return {name: (n, calls) for name, (n, calls) in json.loads(done.stdout).items()}


def main() -> None:
    from packets import Traffic
    from stages import NATIVE

    traffic = Traffic()
    chains = {name: (NATIVE[name].make, traffic.of(NATIVE[name].traffic)) for name in sys.argv[1:]}
    print(json.dumps(count(chains)))


if __name__ == "__main__":
    main()
