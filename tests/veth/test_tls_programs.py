"""Tls between openssl's client and server: what the client says it sent is what was seen."""

import re
import shutil
import subprocess
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from hosts import HOST4, PATIENCE, PIPELINES, Bench, until
from programs import server, tcpdump
from xdpipe.batch import ENUMS
from xdpipe.chain import Chain
from xdpipe.check import CaptureBatches
from xdpipe.stages import Headers, TcpStreams, Tls

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl: install it")
PORT = 8443
HELLO = {name: value for name, (value, _) in ENUMS["tls_hello"].items()}
FATAL = 2  # RFC 8446, 6
MANY = [f"protocol-{k:03}" for k in range(250)]
"""Of ALPN; more than 1460 bytes, so that the hello comes in several segments."""


@dataclass(frozen=True)
class Talk:
    """What the client is told to offer, and what is to come of it."""

    name: str
    options: tuple[str, ...]
    alpn: tuple[str, ...] = ()
    agreed: str = ""
    version: int = 0
    cipher: int = 0
    ciphers: tuple[int, ...] | None = None
    retried: bool = False
    refused: bool = False


TALKS = (
    # the groups that OpenSSL 3.5 offers by itself make its hello too long for one segment
    Talk("plain.example", ("-tls1_3", "-groups", "X25519"), version=0x0304, cipher=0x1302,
         ciphers=(0x1302, 0x1303, 0x1301, 0x00FF)),
    Talk("alpn.example", ("-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"),
         alpn=("h2", "http/1.1"), agreed="h2", version=0x0303, cipher=0xC02B,
         ciphers=(0xC02B, 0x00FF)),
    Talk("retry.example", ("-tls1_3", "-groups", "P-256:P-384"), version=0x0304, cipher=0x1302,
         retried=True),
    Talk("long.example", ("-tls1_2", "-cipher", "ECDHE-ECDSA-CHACHA20-POLY1305"),
         alpn=(*MANY, "http/1.1"), agreed="http/1.1", version=0x0303, cipher=0xCCA9,
         ciphers=(0xCCA9, 0x00FF)),
    Talk("old.example", ("-tls1_1", "-cipher", "ALL:@SECLEVEL=0"), refused=True),
)  # fmt: skip
NAMES = {0x1302: "TLS_AES_256_GCM_SHA384", 0xC02B: "ECDHE-ECDSA-AES128-GCM-SHA256",
         0xCCA9: "ECDHE-ECDSA-CHACHA20-POLY1305"}  # fmt: skip


def talk(bench: Bench, with_whom: Talk, alerts: list[int]) -> Counter[str]:
    """Have openssl's client say what it is told to; return what it says that it sent.

    The alerts that it says it got are added to those given.
    """
    alpn = ("-alpn", ",".join(with_whom.alpn)) if with_whom.alpn else ()
    done = bench.client.run(
        ["openssl", "s_client", "-connect", f"{HOST4}:{PORT}", "-servername", with_whom.name,
         *alpn, *with_whom.options, "-msg"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
        timeout=60 * PATIENCE, check=False,
    )  # fmt: skip
    said = done.stdout + done.stderr
    assert (done.returncode == 0) is not with_whom.refused, said
    if with_whom.refused:
        alerts += [int(number) for number in re.findall(r"SSL alert number (\d+)", said)]
    else:
        assert f"Cipher is {NAMES[with_whom.cipher]}" in said, said
        assert (f"ALPN protocol: {with_whom.agreed}" in said) is bool(with_whom.agreed)
    return Counter(re.findall(r"^>>> .*?(RecordHeader|ClientHello)", said, re.M))


class Seen:
    """What Tls makes of a capture."""

    def __init__(self, capture: Path) -> None:
        self.clients: list[tuple[str, str, tuple[int, ...], str]] = []
        self.servers: list[tuple[int, int, str]] = []
        self.alerts: list[int] = []
        self.counters: dict[str, int] = {}
        batches = CaptureBatches(capture, 256)
        chain = Chain([Headers(), TcpStreams(n_connections=1024), Tls()], batches.batch)
        for batch in batches:
            chain.run()
            client = batch.tls_hello == HELLO["CLIENT"]
            self.clients += zip(
                batch.text("tls_sni", client), batch.text("tls_alpn", client),
                (tuple(row.tolist()) for row in batch.numbers("tls_ciphers", client)),
                batch.text("tls_ja4", client), strict=True,
            )  # fmt: skip
            answer = batch.tls_hello == HELLO["SERVER"]
            self.servers += zip(
                batch.tls_version[answer].tolist(), batch.tls_cipher[answer].tolist(),
                batch.text("tls_alpn", answer), strict=True,
            )  # fmt: skip
            self.alerts += batch.tls_alert[batch.tls_alert != 0].tolist()
        self.counters = chain.read_counts()[2]["counters"]
        batches.close()


def test_what_openssl_says_it_sent_is_what_was_seen(bench: Bench, tmp_path: Path) -> None:
    key, certificate, capture = (tmp_path / name for name in ("key", "certificate", "both.pcap"))
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-keyout", str(key), "-out", str(certificate), "-days", "2",
         "-subj", "/CN=plain.example"],
        check=True, capture_output=True,
    )  # fmt: skip
    serve = ("openssl", "s_server", "-accept", f"{HOST4}:{PORT}", "-key", str(key),
             "-cert", str(certificate), "-alpn", "h2,http/1.1", "-groups", "P-384:X25519",
             "-quiet", "-www")  # fmt: skip
    said: Counter[str] = Counter()
    alerts: list[int] = []
    with server(bench.host, PORT, *serve), tcpdump(bench, capture, PORT):
        running = bench.run(PIPELINES / "tls.py")
        for one in TALKS:
            said += talk(bench, one, alerts)
        n_retried = sum(one.retried for one in TALKS)
        n_answers = sum(not one.refused for one in TALKS)

        def seen_by_both() -> bool:
            status = running.status()
            live = status["stages"][2]["counters"] if status is not None else {}
            return live.get("records") == said["RecordHeader"]

        until(seen_by_both, "all records that the client sent are seen")
        until(lambda: len(Seen(capture).alerts) == 1, "the last answer is in the capture")
        final = running.end()

    live = final["stages"][2]["counters"]  # only what the client sends comes by
    assert live["records"] == said["RecordHeader"]
    assert live["client_hellos"] == said["ClientHello"] == len(TALKS) + n_retried
    assert live["streams"] == len(TALKS)
    assert live["put_together"] == 1
    assert live["server_hellos"] == live["malformed"] == live["given_up"] == live["not_tls"] == 0
    assert final["ledger"]["verdicts"]["DROP"] == final["ledger"]["residual"] == 0

    seen = Seen(capture)
    asked = [one for one in TALKS for _ in range(1 + one.retried)]
    assert [(sni, alpn) for sni, alpn, _, _ in seen.clients] == [
        (one.name, ",".join(one.alpn)) for one in asked
    ]
    for one, (_, alpn, ciphers, ja4) in zip(asked, seen.clients, strict=True):
        assert one.ciphers in (None, ciphers)
        first = alpn.partition(",")[0]
        version = {0x0304: "13", 0x0303: "12"}.get(one.version, "11")
        assert ja4.startswith(f"t{version}d{len(ciphers):02}")
        assert ja4.partition("_")[0].endswith(first[0] + first[-1] if first else "00")
    assert seen.servers == [
        (one.version, one.cipher, one.agreed if one.version < 0x0304 else "")
        for one in TALKS if not one.refused
    ]  # fmt: skip
    assert len(alerts) == 1
    assert seen.alerts == [FATAL << 8 | alerts[0]]
    assert seen.counters["retries"] == n_retried
    assert seen.counters["server_hellos"] == n_answers
    assert seen.counters["streams"] == 2 * n_answers + 2
    assert seen.counters["malformed"] == seen.counters["given_up"] == 0
