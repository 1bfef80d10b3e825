"""Real programs around a pipeline: servers that are awaited, and what passes, by tcpdump."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hosts import Bench, Crossing, until
from xdpipe.netns import Namespace


@contextmanager
def server(namespace: Namespace, port: int, *command: str) -> Iterator[None]:
    """Run a server, which listens on a TCP port before this goes on."""
    with namespace.popen(
        list(command), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as program:

        def listens() -> bool:
            assert program.poll() is None, program.stderr and program.stderr.read()
            done = namespace.run(
                ["ss", "-Htln", f"sport = :{port}"], capture_output=True, text=True, check=True
            )
            return bool(done.stdout)

        try:
            until(listens, f"{command[0]} listens")
            yield
        finally:
            program.kill()
            program.communicate()


def iperf3(
    bench: Crossing, address: str, *options: str, port: int = 5201,
    at: tuple[str, int] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Have the client connect to far, whose server is for this one time.

    Args:
        bench: where.
        address: that the server listens at.
        options: of iperf3's client.
        port: likewise.
        at: address and port that the client knows it by, if others.

    Returns:
        What iperf3 tells at the end.
    """
    known_as, its_port = at or (address, port)
    with server(bench.far, port, "iperf3", "-s", "-1", "-B", address, "-p", str(port)):
        done = bench.client.run(
            ["iperf3", "-c", known_as, "-p", str(its_port), "--json", *options],
            check=False, capture_output=True, text=True,
        )  # fmt: skip
    told = json.loads(done.stdout)
    assert "error" not in told, told
    end: dict[str, Any] = told["end"]
    return end


@contextmanager
def tcpdump(bench: Bench, capture: Path, port: int) -> Iterator[None]:
    """Capture what the client sends and receives by a TCP port."""
    with bench.client.popen(
        ["tcpdump", "--immediate-mode", "-U", "-B", "65536", "-i", "c0", "-w", str(capture),
         f"tcp port {port}"],
        stderr=subprocess.PIPE, text=True,
    ) as program:  # fmt: skip
        assert program.stderr is not None
        assert "listening" in program.stderr.readline()
        try:
            yield
        finally:
            program.kill()
            program.communicate()
