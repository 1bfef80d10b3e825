"""The unit tests of the C core once more, under AddressSanitizer and UBSan."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CORE_TESTS = (
    "test_ring.py", "test_ring_verbs.py", "test_batch.py", "test_batch_edges.py",
    "test_headers.py", "test_headers_cut.py", "test_headers_link.py", "test_taps.py",
    "test_batch_writer.py", "test_craft.py",
    *sorted(path.name for path in Path(__file__).parent.glob("test_stage_*.py")),
)  # fmt: skip
FLAGS = "-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -g -O1"
OPTIONS = {
    # The interpreter keeps memory until it ends, and cffi's modules are loaded late. To keep tables
    # of many MiB after they were freed costs more than all else: a few of them will do.
    "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1:quarantine_size_mb=16:"
    "thread_local_quarantine_size_kb=64",
    "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
}


@pytest.fixture(scope="module")
def libasan() -> str:
    """Return the runtime that must be there before Python starts."""
    if shutil.which("gcc") is None:
        pytest.skip("no gcc")
    found = subprocess.run(
        ["gcc", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
    ).stdout.strip()
    if not Path(found).is_absolute():
        pytest.skip("gcc has no libasan")
    return found


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory, libasan: str) -> Path:
    """Return a copy of the package whose core is built with the sanitizers."""
    tree = tmp_path_factory.mktemp("sanitized")
    ignore = shutil.ignore_patterns("*.so", "_core.c", "__pycache__", "*.o")
    for name in ("xdpipe", "bpf", "examples"):
        shutil.copytree(ROOT / name, tree / name, ignore=ignore)
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    subprocess.run(
        [sys.executable, "-W", "ignore", "setup.py", "--quiet", "build_ext", "--inplace"],
        cwd=tree, check=True, capture_output=True,
        env={**os.environ, "XDPIPE_CFLAGS": FLAGS, "XDPIPE_LDFLAGS": FLAGS},
    )  # fmt: skip
    return tree


def run(tree: Path, libasan: str, *argv: str) -> "subprocess.CompletedProcess[str]":
    env = {**os.environ, **OPTIONS, "LD_PRELOAD": libasan, "PYTHONPATH": str(tree)}
    return subprocess.run(
        [sys.executable, *argv], cwd=tree, env=env, capture_output=True, text=True, check=False
    )


@pytest.mark.timeout(1500)  # it has what others leave of the cores
def test_the_core_is_clean(tree: Path, libasan: str) -> None:
    where = run(tree, libasan, "-c", "import xdpipe.core._core as c; print(c.__file__)")
    assert where.stdout.startswith(str(tree)), where.stderr
    done = run(
        tree, libasan, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", "/dev/null",
        *(str(ROOT / "tests" / "unit" / name) for name in CORE_TESTS),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


def test_a_read_beyond_a_packet_would_be_found(tree: Path, libasan: str) -> None:
    """Tell the core that a packet is longer than its memory: the sanitizer must end the process."""
    done = run(
        tree, libasan, "-c",
        "from xdpipe.core._core import ffi, lib\n"
        "memory = ffi.new('uint8_t[]', 64)\n"
        "arena = ffi.new('uint8_t[]', lib.xp_batch_bytes(1))\n"
        "batch = lib.xp_batch_init(arena, 1, memory, 64)\n"
        "lib.xp_batch_set_n(batch, 1)\n"
        "names = [ffi.string(lib.xp_columns[i].name) for i in range(lib.xp_n_columns)]\n"
        "length = ffi.cast('int32_t *', lib.xp_batch_column(batch, names.index(b'len')))\n"
        "length[0] = 4096\n"
        "out = ffi.new('uint8_t[]', 4096)\n"
        "lib.xp_load_bytes(batch, ffi.new('int32_t *', 0), 0, out, 4096)\n",
    )  # fmt: skip
    assert done.returncode != 0
    assert "heap-buffer-overflow" in done.stderr
