"""Http2 between programs of nghttp2: what they say they did is what was seen; a flood is not."""

import fcntl
import re
import shutil
import socket
import struct
import termios
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import tshark
from hosts import CLIENT4, HOST4, PATIENCE, PIPELINES, Bench, until
from programs import server, tcpdump
from xdpipe.chain import Chain
from xdpipe.check import CaptureBatches
from xdpipe.stages import Headers, Http2, TcpStreams
from xdpipe.stages.http2 import FRAME

PROGRAMS = ("nghttpd", "nghttp", "h2load")
missing = [name for name in PROGRAMS if shutil.which(name) is None]
pytestmark = pytest.mark.skipif(
    bool(missing), reason=f"no {missing}: install nghttp2-client and nghttp2-server"
)
PORT = 8080
URL = f"http://{HOST4}:{PORT}"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])


@contextmanager
def nghttpd(bench: Bench, tmp_path: Path) -> Iterator[Path]:
    """Serve a directory on the host, without TLS."""
    served = tmp_path / "served"
    served.mkdir()
    with server(
        bench.host,
        PORT,
        "nghttpd",
        "--no-tls",
        f"--address={HOST4}",
        f"--htdocs={served}",
        str(PORT),
    ):
        yield served


def stage(status: dict[str, Any]) -> dict[str, int]:
    counters: dict[str, int] = status["stages"][2]["counters"]
    return counters


class Seen:
    """What Http2 makes of a capture."""

    def __init__(self, capture: Path) -> None:
        http = Http2()
        self.counters: dict[str, int] = {}
        self.statuses: Counter[int] = Counter()
        self.paths: Counter[str] = Counter()
        self.frames: Frames = defaultdict(list)
        chain = None
        for batch in CaptureBatches(capture, 256):
            if chain is None:
                chain = Chain([Headers(), TcpStreams(n_connections=1024), http], batch)
            chain.run()
            self.statuses.update(int(row["status"]) for row in http.messages if row["status"])
            self.paths.update(text for text in batch.text(http.messages["path"]) if text)
            for row in http.frames:
                ports = int(batch.l4_sport[row["packet"]]), int(batch.l4_dport[row["packet"]])
                self.frames[ports].append(tuple(int(row[name]) for name in FIELDS))
        if chain is not None:
            self.counters = chain.read_counts()[2]["counters"]


Frames = dict[tuple[int, int], list[tuple[int, ...]]]
FIELDS = ("type", "flags", "stream", "length")
assert set(FIELDS) <= set(FRAME.names or ())


def frames_by_tshark(capture: Path) -> Frames:
    fields = ("tcp.srcport", "tcp.dstport", "http2.type", "http2.flags", "http2.streamid",
              "http2.length")  # fmt: skip
    frames: Frames = defaultdict(list)
    for packet in tshark.dissect(capture, "-d", f"tcp.port=={PORT},http2", fields=fields):
        rows = zip(*([int(v, 0) for v in packet[field]] for field in fields[2:]), strict=True)
        (source,), (to,) = packet["tcp.srcport"], packet["tcp.dstport"]
        frames[int(source), int(to)] += rows
    return {ports: rows for ports, rows in frames.items() if rows}


def test_what_h2load_and_nghttp_did_is_what_was_seen(bench: Bench, tmp_path: Path) -> None:
    capture = tmp_path / "both.pcap"
    with nghttpd(bench, tmp_path) as served, tcpdump(bench, capture, PORT):
        (served / "file").write_bytes(b"x" * 20000)
        running = bench.run(PIPELINES / "http2.py")
        done = bench.client.run(
            ["h2load", "-n", "400", "-c", "4", "-m", "10", f"{URL}/file"],
            capture_output=True, text=True, timeout=60 * PATIENCE, check=True,
        )  # fmt: skip
        assert "400 done, 400 succeeded" in done.stdout
        said = re.search(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx", done.stdout)
        assert said is not None
        assert said.groups() == ("400", "0", "0")
        done = bench.client.run(
            ["nghttp", "-ns", f"{URL}/file", f"{URL}/missing"],
            capture_output=True, text=True, timeout=60 * PATIENCE, check=True,
        )  # fmt: skip
        assert re.search(r" 404 +\S+ /missing", done.stdout), done.stdout
        # a client of 5 connections; the server's packets go another way
        final = running.end()
        until(lambda: sum(Seen(capture).statuses.values()) == 402, "all answers are in the capture")
    counters = stage(final)
    assert counters["connections"] == 5
    assert counters["opened"] == counters["requests"] == counters["frames_headers"] == 402
    assert counters["responses"] == counters["malformed"] == counters["hpack_lost"] == 0
    assert counters["given_up"] == counters["not_http2"] == counters["flood_packets"] == 0
    assert final["ledger"]["verdicts"]["DROP"] == 0
    assert final["ledger"]["residual"] == 0
    seen = Seen(capture)
    counters = seen.counters
    assert seen.statuses == {200: 401, 404: 1}
    assert seen.paths == {"/file": 401, "/missing": 1}
    assert counters["connections"] == 5
    assert counters["requests"] == counters["responses"] == counters["opened"] == 402
    assert counters["malformed"] == counters["given_up"] == counters["hpack_lost"] == 0
    assert counters["frames_goaway"] >= 1
    if shutil.which("tshark") is not None:
        assert seen.frames == frames_by_tshark(capture)


def resets(first: int, n: int) -> bytes:
    """Return n requests, each of which is reset at once."""
    section = b"\x82\x86\x84\x41\x01a"  # GET http://a/, of HPACK's static table but for a
    return b"".join(
        struct.pack(">HBBBI", 0, len(section), 1, 5, k) + section
        + struct.pack(">HBBBII", 0, 4, 3, 0, k, 8)
        for k in range(first, first + 2 * n, 2)
    )  # fmt: skip


def unacknowledged(sock: socket.socket) -> int:
    """Return how many bytes the other end has not acknowledged (SIOCOUTQ, man 7 tcp)."""
    out: int = struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)))[0]
    return out


def test_a_rapid_reset_is_dropped_and_another_client_served(bench: Bench, tmp_path: Path) -> None:
    with nghttpd(bench, tmp_path) as served:
        (served / "file").write_text("honest")
        running = bench.run(PIPELINES / "http2.py")
        with bench.client.call(lambda: socket.create_connection((HOST4, PORT))) as flood:
            flood.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            flood.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            flood.sendall(PREFACE + resets(1, 20))
            until(lambda: unacknowledged(flood) == 0, "what is within the bound arrives")
            beyond = resets(41, 30)
            flood.sendall(beyond)

            def dropped() -> bool:
                status = running.status()
                return status is not None and status["ledger"]["verdicts"]["DROP"] > 0

            until(dropped, "what is beyond is dropped")
            assert stage(running.status() or {})["rapid_resets"] == 1
            done = bench.client.run(
                ["nghttp", f"{URL}/file"],
                capture_output=True, text=True, timeout=60 * PATIENCE, check=True,
            )  # fmt: skip
            assert done.stdout == "honest"
            assert unacknowledged(flood) == len(beyond)

        def is_gone() -> bool:
            told = bench.host.run(
                ["ss", "-Htn", f"sport = :{PORT}", "dst", CLIENT4], capture_output=True, text=True,
                check=True,
            )  # fmt: skip
            return "ESTAB" not in told.stdout

        until(is_gone, "the server hears that the client has gone")
        final = running.end()
    counters = stage(final)
    assert counters["connections"] == 2
    assert counters["client_resets"] == 50
    assert counters["opened"] == 51
    assert counters["rapid_resets"] == 1
    dropped_packets = final["ledger"]["verdicts"]["DROP"]
    assert 0 < dropped_packets < counters["flood_packets"]  # the client's RST is not
    assert final["ledger"]["residual"] == 0
