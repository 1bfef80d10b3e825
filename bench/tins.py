"""libtins beside xdpipe's stages: a C++ program that is compiled when it is needed."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

import harness

HERE = Path(__file__).resolve().parent
PROGRAM = HERE.parent / "build" / "bench" / "tins"
PROTOCOLS = ("headers", "dns")


def build() -> None:
    """Compile it, optimised as the core is."""
    source = HERE / "tins.cpp"
    if PROGRAM.exists() and PROGRAM.stat().st_mtime > source.stat().st_mtime:
        return
    PROGRAM.parent.mkdir(parents=True, exist_ok=True)
    argv = ["g++", "-std=c++17", "-O3", str(source), "-ltins", "-o", str(PROGRAM)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        harness.fail(f"tins.cpp does not compile; libtins-dev is missing?\n{done.stderr}")


class Tins:
    """The program, with packets for one protocol."""

    def __init__(self, protocol: str, packets: Sequence[bytes]) -> None:
        self._protocol = protocol
        self._file = PROGRAM.with_name(f"{protocol}.packets")
        self._file.write_bytes(b"".join(len(p).to_bytes(4, "little") + p for p in packets))

    def _run(self, seconds: float) -> list[str]:
        argv = [str(PROGRAM), self._protocol, str(self._file), str(seconds)]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode:
            harness.fail(done.stderr.strip())
        return done.stdout.split()

    def digest(self, names: Sequence[str]) -> dict[str, int]:
        """Return what readers.digest does; `names`: of the fields, in their order."""
        return dict(zip(("packets", *names), map(int, self._run(0)[:-1]), strict=True))

    def cpu_ns(self, seconds: float) -> float:
        """Return ns of CPU time for a packet."""
        return float(self._run(seconds)[-1])
