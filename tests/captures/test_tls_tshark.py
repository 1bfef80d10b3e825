"""Tls against tshark: every hello of the captures, field by field, and JA4 made of tshark's fields.

DIFFERENCES has what is allowed to differ, and why; an entry that no hello needs is an error.
"""

import hashlib
from collections import Counter
from pathlib import Path

from tshark import Frame, all_frames
from xdpipe.batch import ENUMS, Batch
from xdpipe.chain import Chain
from xdpipe.check import CaptureBatches
from xdpipe.errors import XdpipeError
from xdpipe.stages import Decap, Headers, TcpStreams, Tls

HELLO = {name: value for name, (value, _) in ENUMS["tls_hello"].items()}

DIFFERENCES: dict[str, str] = {
    "STARTTLS": "a stream that begins in the clear is left out by Tls",
    "SSL 2.0": "its hello, which is no record, is left out by Tls",
    "draft": "ServerHellos of TLS 1.3 before draft 22 had another form, and are malformed",
    "port": "tshark takes what comes by port 80 for HTTP; Tls looks at what it is",
    "record": "tshark waits for the whole record; Tls reads the hello in it when that is there",
    "signatures": "tshark has those of extensions 34 and 50 in the field, too, so JA4 cannot be "
    "made of it",
}


def is_grease(value: int) -> bool:
    return value & 0x0F0F == 0x0A0A and value >> 8 == value & 0xFF


def numbers(frame: Frame, field: str) -> list[int]:
    return [int(value, 0) for value in frame[field]]


def ja4(frame: Frame) -> str:
    """Return the fingerprint by the fields of a frame that has a ClientHello and nothing else."""

    def digest(text: str) -> str:
        return hashlib.sha256(text.encode()).hexdigest()[:12] if text else "0" * 12

    def joined(values: list[int]) -> str:
        return ",".join(f"{value:04x}" for value in values)

    def known(field: str) -> list[int]:
        return [value for value in numbers(frame, field) if not is_grease(value)]

    ciphers, extensions = known("tls.handshake.ciphersuite"), known("tls.handshake.extension.type")
    offered = known("tls.handshake.extensions.supported_version")
    version = max(offered or numbers(frame, "tls.handshake.version")[:1])
    names = {0x304: "13", 0x303: "12", 0x302: "11", 0x301: "10", 0x300: "s3"}
    first = (frame["tls.handshake.extensions_alpn_str"] or ("00",))[0]
    others = sorted(set(extensions) - {0, 16})
    assert (first[0] + first[-1]).isalnum()
    c = joined(others)
    if c and numbers(frame, "tls.handshake.sig_hash_alg"):
        c += "_" + joined(known("tls.handshake.sig_hash_alg"))
    return (
        f"t{names.get(version, '00')}{'d' if 0 in extensions else 'i'}"
        f"{min(len(ciphers), 99):02}{min(len(extensions), 99):02}{first[0]}{first[-1]}"
        f"_{digest(joined(sorted(ciphers)))}_{digest(c)}"
    )


def row(batch: Batch, i: int) -> dict[str, object]:
    only = batch.addr == batch.addr[i]
    return {
        "hello": int(batch.tls_hello[i]),
        "malformed": int(batch.tls_malformed[i]),
        "version": int(batch.tls_legacy_version[i]),
        "cipher": int(batch.tls_cipher[i]),
        "ciphers": batch.numbers("tls_ciphers", only)[0].tolist(),
        "extensions": batch.numbers("tls_extensions", only)[0].tolist(),
        "sni": batch.text("tls_sni", only)[0],
        "alpn": batch.text("tls_alpn", only)[0],
        "ja4": batch.text("tls_ja4", only)[0],
        "alert": int(batch.tls_alert[i]),
    }


def from_xdpipe(path: Path) -> dict[int, dict[str, object]]:
    """Return by frame number what Tls says of those with a hello, an alert, or a fault."""
    rows = {}
    batches = CaptureBatches(path, 64)
    chain = Chain([Headers(), Decap(), TcpStreams(), Tls()], batches.batch)
    n_before = 0
    for batch in batches:
        chain.run()
        for i in range(len(batch)):
            if batch.tls_hello[i] or batch.tls_malformed[i] or batch.tls_alert[i]:
                rows[n_before + i] = row(batch, i)
        n_before += len(batch)
    batches.close()
    return rows


def from_tshark(frame: Frame) -> dict[str, object] | None:
    """Return what tshark says of a frame with a hello, in the same terms."""
    types = [kind for kind in frame["tls.handshake.type"] if kind]
    if not types or types[0] not in ("1", "2") or not frame["tcp.stream"]:  # DTLS, QUIC
        return None
    if not frame["tls.handshake.version"]:
        return None  # it does not dissect what says that it is one
    client = types[0] == "1"
    return {
        "version": numbers(frame, "tls.handshake.version")[0],
        "cipher": 0 if client else numbers(frame, "tls.handshake.ciphersuite")[0],
        "ciphers": numbers(frame, "tls.handshake.ciphersuite") if client else [],
        "extensions": numbers(frame, "tls.handshake.extension.type"),
        "sni": "".join(frame["tls.handshake.extensions_server_name"][:1]).lower() if client else "",
        "alpn": ",".join(frame["tls.handshake.extensions_alpn_str"]),
        "ja4": ja4(frame) if client else "",
    }


def excused(path: Path, frame: Frame, mine: dict[str, object], different: list[str]) -> str | None:
    """Return which of DIFFERENCES applies to a hello."""
    if numbers(frame, "tls.handshake.version")[0] == 2 or not frame["tls.handshake.extension.type"]:
        return "SSL 2.0" if not mine["hello"] and "ssl" in path.name else None
    if not mine["hello"] and "starttls" in path.name:
        return "STARTTLS"
    if mine["malformed"] and "draft" in path.name:
        return "draft"
    others = {34, 50}.intersection(numbers(frame, "tls.handshake.extension.type"))
    return "signatures" if different == ["ja4"] and others else None


def test_every_hello_is_as_tshark_sees_it(captures: Path) -> None:
    needed: Counter[str] = Counter()
    compared: Counter[str] = Counter()
    wrong = []
    for path, frames in all_frames(captures).items():
        try:
            ours = from_xdpipe(path)
        except XdpipeError:
            continue  # another link type
        early: dict[str, dict[str, object]] = {}  # by stream, a hello that tshark has later
        for number, frame in enumerate(frames):
            theirs = from_tshark(frame)
            mine = ours.get(number, {"hello": 0, "malformed": 0})
            if theirs is None:
                if mine["hello"] and "80" in frame["tcp.dstport"]:
                    needed["port"] += 1
                elif mine["hello"]:
                    early[frame["tcp.stream"][0]] = mine
                continue
            if not mine["hello"] and frame["tcp.stream"][0] in early:
                mine = early.pop(frame["tcp.stream"][0])
                needed["record"] += 1
            different = [name for name in theirs if theirs[name] != mine.get(name)]
            if not different:
                compared["client" if theirs["ja4"] else "server"] += 1
                continue
            excuse = excused(path, frame, mine, different)
            if excuse:
                needed[excuse] += 1
                continue
            wrong.append(
                f"{path.name} {number + 1}: malformed {mine['malformed']} "
                + "; ".join(
                    f"{name}: {mine.get(name)}, tshark {theirs[name]}" for name in different
                )
            )
        wrong += [f"{path.name}: {mine}, tshark has no hello" for mine in early.values()]
    assert not wrong, "\n".join(wrong)
    assert compared["client"] > 60
    assert compared["server"] > 50
    assert set(needed) == set(DIFFERENCES), needed
