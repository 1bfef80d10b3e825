"""Packets of up to 9000 bytes, which come in several frames."""

import os
import signal
import socket
import time

import pytest

from hosts import CLIENT4, CLIENT6, EXAMPLES, HOST4, HOST6, KERNEL, PIPELINES, Bench, echoes, until

MTU = 9000
SIZES = [0, 100, 1500, 1764, 3800, 3900, 5000, 8000, MTU - 28]
LONGEST6 = MTU - 48
needs_kernel = pytest.mark.skipif(
    KERNEL < (6, 6), reason="packets in several frames take Linux 6.6"
)


@pytest.fixture
def jumbo(bench: Bench) -> Bench:
    """Return the two hosts with an MTU of 9000."""
    for namespace, name in ((bench.host, "h0"), (bench.client, "c0")):
        namespace.run(["ip", "link", "set", name, "mtu", str(MTU)])
    return bench


@pytest.mark.kernel
@pytest.mark.skipif(KERNEL >= (6, 6), reason="this kernel has packets in several frames")
def test_an_older_kernel_is_one_clear_line(jumbo: Bench) -> None:
    done = jumbo.xdpipe("run", str(EXAMPLES / "udp_echo.py"), "--dev", "h0")
    assert (done.returncode, done.stderr) == (
        1,
        "xdpipe: bind h0 queue 0: packets of its MTU, 9000, need several frames of 4096 bytes, and "
        "that takes Linux 6.6; lower the MTU with: ip link set h0 mtu 3818\n",
    )


@needs_kernel
@pytest.mark.parametrize(
    "options",
    [
        pytest.param([], marks=pytest.mark.kernel, id="default"),
        ["--frame-size", "2048"],
        ["--attach", "generic"],
        ["--frame-size", "2304", "--huge-pages"],
    ],
    ids=" ".join,
)
def test_every_datagram_comes_back_byte_for_byte(
    jumbo: Bench, huge_pages: None, options: list[str]
) -> None:
    running = jumbo.run(EXAMPLES / "udp_echo.py", *options)
    n = echoes(jumbo, CLIENT4, HOST4, SIZES)
    n += echoes(jumbo, CLIENT6, HOST6, [min(size, LONGEST6) for size in SIZES])
    final = running.end()
    ledger = final["ledger"]
    assert ledger["verdicts"]["TX"] == ledger["sent"] == n
    assert ledger["residual"] == sum(ledger["refused"].values()) == 0
    for worker in final["workers"]:
        assert sum(worker["frames"].values()) == worker["n_frames"]


@needs_kernel
def test_a_stage_reads_and_writes_beyond_the_first_frame(jumbo: Bench) -> None:
    """The answer's checksum is the kernel's to check: a wrong one would be no answer."""
    running = jumbo.run(PIPELINES / "mark.py")
    n = 0
    for size in (5000, 5004, 8000):
        for text in (b"?", b"!"):
            with jumbo.client.call(
                lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            ) as sock:
                sock.connect((HOST4, 7))
                sock.settimeout(20)
                sock.send(text * size)
                answer, n = sock.recv(65535), n + 1
            asked = text == b"?" and size >= 5004
            expected = bytearray(text * size)
            if asked:
                expected[5000:5004] = b"\xc0\xff\xee\x11"
            assert answer == expected
    final = running.end()
    assert final["stages"][1]["counters"] == {"marked": 2, "in_several_frames": n}
    assert final["ledger"]["residual"] == 0


@needs_kernel
def test_a_killed_worker_loses_whole_packets_and_they_are_counted(jumbo: Bench) -> None:
    running = jumbo.run(EXAMPLES / "udp_echo.py")
    status = running.status()
    assert status is not None
    stop = time.monotonic() + 1.0
    killed = False
    with jumbo.client.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sock:
        while time.monotonic() < stop:
            sock.sendto(b"x" * 8900, (HOST4, 7))
            if not killed and time.monotonic() > stop - 0.5:
                for worker in status["workers"]:
                    os.kill(worker["pid"], signal.SIGKILL)
                killed = True

    def serving() -> bool:
        now = running.status()
        return now is not None and all(
            (w["state"], w["restarts"]) == ("serving", 1) for w in now["workers"]
        )

    until(serving, "other workers serve")
    echoes(jumbo, CLIENT4, HOST4, [8900], rounds=8)
    final = running.end()
    assert final["ledger"]["residual"] == 0, final["ledger"]
    assert [worker["restarts"] for worker in final["workers"]] == [1, 1]
    for worker in final["workers"]:
        assert sum(worker["frames"].values()) == worker["n_frames"]
