"""Sets of addresses, in which the XDP program looks, fed by stages and by `xdpipe set`."""

import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hosts import CLIENT4, CLIENT6, HOST4, HOST6, PATIENCE, PIPELINES, Bench, until

SETS = PIPELINES / "with_sets.py"


class Client:
    """A socket on the client that asks port 7 of the host."""

    def __init__(self, bench: Bench, local: str = CLIENT4) -> None:
        family, self.remote = (socket.AF_INET6, HOST6) if ":" in local else (socket.AF_INET, HOST4)
        self.sock = bench.client.call(lambda: socket.socket(family, socket.SOCK_DGRAM))
        self.sock.bind((local, 0))

    def answered(self, data: bytes = b"good", port: int = 7, timeout_s: float = 0.3) -> bool:
        self.sock.settimeout(timeout_s * PATIENCE)
        self.sock.sendto(data, (self.remote, port))
        try:
            return self.sock.recv(2000) == data
        except (TimeoutError, ConnectionRefusedError):
            return False


@pytest.fixture
def client(bench: Bench) -> Iterator[Client]:
    client = Client(bench)
    yield client
    client.sock.close()


@pytest.fixture
def client6(bench: Bench) -> Iterator[Client]:
    client = Client(bench, CLIENT6)
    yield client
    client.sock.close()


def set_(bench: Bench, *args: str, code: int = 0) -> dict[str, Any]:
    done = bench.xdpipe("set", "with_sets", *args, "--json")
    assert done.returncode == code, done.stderr
    return dict(json.loads(done.stdout)) if done.stdout else {"stderr": done.stderr}


def status_of(bench: Bench, name: str) -> dict[str, Any]:
    status = bench.started[-1].status()
    assert status is not None
    [found] = [each for each in status["sets"] if each["name"] == name]
    return dict(found)


def test_an_offender_is_dropped_in_the_kernel_until_its_time_is_over(
    bench: Bench, client: Client, client6: Client
) -> None:
    running = bench.run(SETS)
    assert client.answered()
    assert not client.answered(b"bad!", timeout_s=0.05)
    until(lambda: status_of(bench, "offenders")["entries"] == 1, "it is in the set")
    before = running.status()
    assert before is not None
    for _ in range(5):
        assert not client.answered(timeout_s=0.02)
    assert client6.answered()  # another source is not
    told = status_of(bench, "offenders")
    assert (told["packets"], told["added"]) == (5, 1)
    after = running.status()
    assert after is not None
    assert after["ledger"]["received"] == before["ledger"]["received"] + 1
    assert after["ledger"]["set_dropped"] == 5
    until(client.answered, "its time is over")
    until(lambda: status_of(bench, "offenders")["expired"] == 1, "it is removed")
    final = running.end()
    assert final["ledger"]["residual"] == 0
    assert final["stages"][1]["counters"] == {"bad": 1}


def test_the_command_adds_lists_removes_and_flushes(bench: Bench, client: Client) -> None:
    running = bench.run(SETS)
    assert set_(bench, "blocked", "list")["list"] == []
    told = set_(bench, "blocked", "add", "10.1.0.0/16", "2001:db8::1/32", "192.0.2.7")
    assert told == {"set": "blocked", "added": 3, "given": 3}
    assert not client.answered()
    listed = {each["entry"]: each["left_s"] for each in set_(bench, "blocked", "list")["list"]}
    assert listed == {"10.1.0.0/16": None, "2001:db8::/32": None, "192.0.2.7": None}
    assert set_(bench, "blocked", "del", "10.1.0.0/16", "10.9.0.0/16")["deleted"] == 1
    assert client.answered()
    set_(bench, "blocked", "add", CLIENT4, "--ttl", "100")
    [left] = [e["left_s"] for e in set_(bench, "blocked", "list")["list"] if e["entry"] == CLIENT4]
    assert 0 < left <= 100
    assert not client.answered()
    assert set_(bench, "blocked", "flush")["deleted"] == 3
    assert client.answered()
    assert running.end()["ledger"]["residual"] == 0


def test_the_first_set_that_has_an_address_decides(bench: Bench, client: Client) -> None:
    """`trusted` stands before `blocked`: those packets go to the kernel, which has a service."""
    running = bench.run(SETS)
    set_(bench, "blocked", "add", "0.0.0.0/0")
    assert not client.answered()
    set_(bench, "trusted", "add", CLIENT4)
    with bench.host.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as service:
        service.bind((HOST4, 7))
        service.settimeout(5 * PATIENCE)
        client.sock.sendto(b"hello", (HOST4, 7))
        assert service.recv(100) == b"hello"
    final = running.end()
    assert final["ledger"]["to_kernel"]["set_passed"] == 1
    assert final["ledger"]["set_dropped"] == 1
    assert final["ledger"]["residual"] == 0


def test_a_take_set_takes_what_the_filter_does_not(bench: Bench, client: Client) -> None:
    running = bench.run(SETS)
    assert not client.answered(port=9)
    set_(bench, "late", "add", HOST4)
    assert client.answered(port=9)
    set_(bench, "late", "del", HOST4)
    assert not client.answered(port=9)
    final = running.end()
    assert final["ledger"]["residual"] == 0
    [late] = [each for each in final["sets"] if each["name"] == "late"]
    assert late["packets"] == 1


def test_a_million_prefixes_load_in_seconds(bench: Bench, client: Client, tmp_path: Path) -> None:
    running = bench.run(SETS)
    file = tmp_path / "list.txt"
    n = 1_000_000 if PATIENCE == 1 else 20_000
    with file.open("w") as out:
        out.write("# a list\n\n")
        for number in range(n):
            out.write(f"11.{number >> 16}.{number >> 8 & 255}.{number & 255}/32  # one\n")
    began = time.monotonic()
    assert set_(bench, "blocked", "load", str(file))["added"] == n
    assert time.monotonic() - began < 60 * PATIENCE
    assert set_(bench, "blocked", "list")["entries"] == n
    assert client.answered()  # the workers serve meanwhile
    set_(bench, "blocked", "load", str(tmp_path / "more"), code=1)
    (tmp_path / "more").write_text(f"{CLIENT4}/24\n")
    assert set_(bench, "blocked", "load", str(tmp_path / "more"))["added"] == 1
    assert not client.answered()
    assert running.end()["ledger"]["residual"] == 0


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["nothing", "list"], "nothing: no such set; the pipeline's sets: trusted, offenders, "),
        (["blocked", "add"], "say what"),
        (["blocked", "add", "10.1.0.0/33"], "10.1.0.0/33: no length of a prefix, 0 to 32"),
        (["blocked", "add", "example.com"], "example.com: no address"),
        (["offenders", "add", "10.0.0.0/8"], "offenders holds addresses; declare it with prefixes"),
        (["blocked", "load", "/nowhere"], "No such file"),
    ],
)
def test_what_cannot_be_done_with_a_set_is_told(bench: Bench, args: list[str], told: str) -> None:
    running = bench.run(SETS)
    stderr = set_(bench, *args, code=1)["stderr"]
    assert told in stderr
    assert stderr.count("\n") == 1
    running.end()


def test_a_line_that_is_no_address_is_told_by_its_number_and_nothing_is_added(
    bench: Bench, tmp_path: Path
) -> None:
    running = bench.run(SETS)
    (tmp_path / "list").write_text("10.0.0.1\n\nten\n")
    assert (
        "list:3: ten: no address"
        in set_(bench, "blocked", "load", str(tmp_path / "list"), code=1)["stderr"]
    )
    assert set_(bench, "blocked", "list")["list"] == []
    running.end()


def test_a_set_that_is_full_refuses_and_counts(bench: Bench) -> None:
    running = bench.run(SETS)
    done = bench.xdpipe("set", "h0", "small", "add", *(f"10.0.0.{n}" for n in range(9)), "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout) == {"set": "small", "added": 4, "given": 9}
    assert "set small is full: 5 found no room" in done.stderr
    told = status_of(bench, "small")
    assert (told["entries"], told["refused"]) == (4, 5)
    running.end()


def test_sets_live_on_when_a_worker_dies(bench: Bench, client: Client) -> None:
    running = bench.run(SETS)
    set_(bench, "blocked", "add", CLIENT4)
    for worker in running.wait_ready()["workers"]:
        os.kill(worker["pid"], signal.SIGKILL)

    def served_again() -> bool:
        workers = running.wait_ready()["workers"]
        return all(w["restarts"] == 1 and w["state"] == "serving" for w in workers)

    until(served_again, "other workers serve")
    assert not client.answered()
    set_(bench, "blocked", "del", CLIENT4)
    assert client.answered()
    assert not client.answered(b"bad!", timeout_s=0.05)
    until(lambda: status_of(bench, "offenders")["entries"] == 1, "the next worker's ring works")
    assert running.end()["ledger"]["residual"] == 0


def test_of_a_pipeline_that_does_not_run_it_is_told(bench: Bench) -> None:
    done = bench.xdpipe("set", "with_sets", "blocked", "list")
    assert (done.returncode, done.stderr) == (
        1, "xdpipe: with_sets: no such pipeline runs; see: xdpipe status\n"
    )  # fmt: skip
