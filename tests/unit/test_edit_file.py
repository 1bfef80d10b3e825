"""A user's function over a capture: in order, in parallel, kept by content; faults are one line."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from scapy.compat import raw
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from test_capture_source import SECOND, capture, kept

from crafted import udp
from hosts import until
from xdpipe.capture import CaptureReader, CaptureWriter, Packet
from xdpipe.errors import XdpipeError
from xdpipe.process import Process
from xdpipe.traffic.capture_source import CaptureSource
from xdpipe.traffic.edit_file import Edited, edited
from xdpipe.traffic.edits import Edits, parse_map_ip

BY_PORT = """
from scapy.layers.inet import UDP

def edit(packet):
    port = packet[UDP].sport
    print("seen", port)  # goes to stderr
    if port % 3 == 0:
        return None
    if port % 3 == 1:
        return packet
    other = packet.copy()
    other[UDP].dport = 9
    del other[UDP].chksum
    return [packet, other]
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDPIPE_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache" / "edited"


def function(tmp_path: Path, code: str, name: str = "edit.py") -> Path:
    path = tmp_path / name
    path.write_text(code)
    return path


def packets_of(path: Path) -> list[Packet]:
    with CaptureReader(path) as reader:
        return list(reader)


def get(path: Path, file: Path, **options: object) -> tuple[list[Packet], Edited, list[int]]:
    """Return the packets, what is told of them, and how often progress was told."""
    told: list[int] = []
    with edited(path, file, progress=lambda n, total: told.append(n), **options) as made:  # type: ignore[arg-type]
        return packets_of(made.path), made, told


def expected(ports: Sequence[int]) -> list[tuple[int, bytes]]:
    """Return what BY_PORT makes of packets from these ports, a nanosecond apart."""
    made = []
    for i, port in enumerate(ports):
        packet = udp(sport=port)
        if port % 3:
            made.append((SECOND + i, packet))
        if port % 3 == 2:
            other = Ether(packet)
            other[UDP].dport = 9
            del other[UDP].chksum
            made.append((SECOND + i, raw(other)))
    return made


@pytest.mark.parametrize(("n", "jobs"), [(0, 2), (1, 2), (128, 1), (1000, 2), (1000, 5)])
def test_order_times_and_counts_are_as_of_one_process(tmp_path: Path, n: int, jobs: int) -> None:
    ports = [1000 + i for i in range(n)]
    path = capture(tmp_path / "a.pcap", [udp(sport=port) for port in ports])
    made, told, progress = get(path, function(tmp_path, BY_PORT), jobs=jobs)
    want = expected(ports)
    assert [(packet.time_ns, packet.data) for packet in made] == want
    n_removed = sum(port % 3 == 0 for port in ports)
    n_added = sum(port % 3 == 2 for port in ports)
    assert (told.read, told.filtered, told.removed, told.added) == (n, 0, n_removed, n_added)
    assert told.read + told.added == told.removed + len(made)
    assert progress == sorted(progress)
    assert progress[-1:] == ([n] if n else [])


def test_it_is_kept_until_something_changes(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "beside.py").write_text("TTL = 3\n")
    code = (
        "from scapy.layers.inet import IP\nfrom beside import TTL\n\n"
        "def edit(packet):\n    packet[IP].ttl = TTL\n    return packet\n"
    )
    file = function(tmp_path, code)
    path = capture(tmp_path / "a.pcap", [udp()] * 3)

    def ttl_and_whether_it_was_made(**options: str) -> tuple[int, bool]:
        made, _, told = get(path, file, **options)
        return IP(made[0].data[14:]).ttl, bool(told)

    assert ttl_and_whether_it_was_made() == (3, True)
    assert ttl_and_whether_it_was_made() == (3, False)
    os.utime(file)
    os.utime(path)
    assert ttl_and_whether_it_was_made() == (3, False)
    (tmp_path / "beside.py").write_text("TTL = 44\n")
    assert ttl_and_whether_it_was_made() == (44, True)
    assert ttl_and_whether_it_was_made() == (44, False)
    file.write_text(code.replace("= TTL", "= TTL + 1"))
    assert ttl_and_whether_it_was_made() == (45, True)
    assert ttl_and_whether_it_was_made(filter="udp") == (45, True)
    capture(path, [udp(size=7)] * 3)
    assert ttl_and_whether_it_was_made() == (45, True)
    assert ttl_and_whether_it_was_made() == (45, False)
    file.write_text(code)
    assert len(list(cache.glob("*/edited.pcap"))) == 4


def test_the_filter_is_asked_before_the_function(tmp_path: Path) -> None:
    code = (
        "from scapy.layers.inet import UDP\n\n"
        "def edit(packet):\n    assert packet[UDP].dport == 53\n    packet[UDP].dport = 54\n"
        "    return packet\n"
    )
    path = capture(tmp_path / "a.pcap", [udp(dport=53), udp(dport=99), udp(dport=53)])
    edits = Edits(
        filter="dst port 53", edit=function(tmp_path, code),
        map_ip=(parse_map_ip("10.0.0.0/8=11.0.0.0/8"),),
    )  # fmt: skip
    source = CaptureSource(path, edits, batch_size=1)
    for _ in range(2):
        made = [Ether(data) for _, data in kept(source)]
        assert [(p[IP].src, p[IP].dst, p[UDP].dport) for p in made] == [
            ("11.0.0.1", "11.0.0.2", 54)
        ] * 2
        assert (source.read, source.added, source.left_out, source.n_packets) == (
            3, 0, {"filter": 1, "edit": 0}, 2,
        )  # fmt: skip
    source.close()


def test_a_source_outlives_what_is_kept(tmp_path: Path, cache: Path) -> None:
    file = function(tmp_path, BY_PORT)
    path = capture(tmp_path / "a.pcap", [udp(sport=1000)] * 3)
    source = CaptureSource(path, Edits(edit=file))
    assert len(kept(source)) == 3
    [entry] = cache.glob("*/edited.pcap")
    entry.unlink()
    assert len(kept(source)) == 3
    source.close()


def test_where_nothing_can_be_kept_it_works_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDPIPE_CACHE_DIR", "/proc/nowhere")
    path = capture(tmp_path / "a.pcap", [udp(sport=1000)] * 3)
    source = CaptureSource(path, Edits(edit=function(tmp_path, BY_PORT)))
    for _ in range(2):
        assert len(kept(source)) == 3
    source.close()


SAME = "def edit(packet):\n    return packet\n"
ODD = [
    b"", b"\x01" * 5, b"\x02" * 13, b"\x02" * 14,
    udp() + b"padding", udp(size=90)[:70],
    b"\x02" * 12 + b"\x00\x26" + b"\xaa\xaa\x03" + bytes(40),
    b"\x02" * 12 + b"\x88\x63" + b"\x11\x09\x00\x00\x00\x30" + b"\x01\x01\xff\xff" * 4,
    udp()[:34] + b"\x00\x35\x00\x35\x00\x13\x00\x00" + b"\xc0\x0c" * 30,
]  # fmt: skip


def test_what_the_function_does_not_change_stays_byte_for_byte(tmp_path: Path) -> None:
    path = tmp_path / "a.pcap"
    with CaptureWriter(path) as writer:
        for i, data in enumerate(ODD):
            writer.write(i * 123_456_789, data, len(data) + 1000 * (i % 2))
    made, _, _ = get(path, function(tmp_path, SAME))
    assert made == packets_of(path)


def test_the_function_is_told_time_and_length(tmp_path: Path) -> None:
    code = (
        "from scapy.packet import Raw\n\n"
        "def edit(packet):\n"
        "    return packet.copy() / Raw(f'{packet.time} {packet.wirelen}'.encode())\n"
    )
    path = tmp_path / "a.pcap"
    with CaptureWriter(path) as writer:
        writer.write(1_700_000_000_123_456_789, b"\x02" * 14, 2000)
    [made], _, _ = get(path, function(tmp_path, code))
    assert made.data[14:] == b"1700000000.123456789 2000"
    assert (made.time_ns, made.wire_len) == (1_700_000_000_123_456_789, len(made.data))


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("def edit(packet):\n    return packet[99]\n", "edit.py:2: IndexError: "),
        ("import missing_module\n", "edit.py:1: ModuleNotFoundError: No module named"),
        ("def edit(packet)\n", "edit.py:1: SyntaxError: expected ':'"),
        ("edit = 7\n", "has no function edit; write: def edit(packet): …"),
        ("raise SystemExit(3)\n", "edit.py:1: SystemExit: 3"),
        ("def edit(packet):\n    return 7\n", "edit returned int: a packet of scapy's, a list of "
         "them, or None (packet 1)"),
        ("def edit(packet):\n    return [b'']\n", "edit returned bytes"),
        ("def edit(packet):\n    packet.type = 'x'\n    return packet\n", "(packet 1)"),
        ("def edit(packet):\n    return packet / (b'x' * 262144)\n", "262144 are the most"),
        ("import os\n\ndef edit(packet):\n    os._exit(1)\n", "the process that ran it died"),
    ],
)  # fmt: skip
def test_a_fault_is_one_clear_line_and_nothing_is_kept(
    tmp_path: Path, cache: Path, code: str, told: str
) -> None:
    path = capture(tmp_path / "a.pcap", [udp()] * 3)
    with pytest.raises(XdpipeError) as raised:
        get(path, function(tmp_path, code))
    assert told in str(raised.value)
    assert "\n" not in str(raised.value)
    assert [entry.name for entry in cache.iterdir()] == ["lock"] or not list(cache.iterdir())


def test_of_several_faults_the_first_packets_is_told(tmp_path: Path) -> None:
    code = (
        "from scapy.layers.inet import UDP\n\n"
        "def edit(packet):\n"
        "    if packet[UDP].sport >= 1700:\n"
        "        raise ValueError(f'port {packet[UDP].sport}')\n"
        "    return packet\n"
    )
    path = capture(tmp_path / "a.pcap", [udp(sport=1000 + i) for i in range(1500)])
    file = function(tmp_path, code)
    with pytest.raises(XdpipeError) as raised:
        get(path, file, jobs=2)
    assert str(raised.value) == f"{file}:5: ValueError: port 1700 (packet 701)"


@pytest.mark.parametrize(
    ("name", "told"), [("none.py", "none.py: no such file"), ("edit.txt", "must end in .py")]
)
def test_a_file_that_is_no_python_file(tmp_path: Path, name: str, told: str) -> None:
    function(tmp_path, SAME, "edit.txt")
    path = capture(tmp_path / "a.pcap", [udp()])
    with pytest.raises(XdpipeError, match=told):
        get(path, tmp_path / name)


def test_what_is_no_capture_is_told_before_anything_is_run(tmp_path: Path) -> None:
    file = function(tmp_path, SAME)
    with pytest.raises(XdpipeError, match="not a capture file"):
        get(file, file)
    with pytest.raises(XdpipeError, match="no such file; what --edit is for is read twice"):
        get(tmp_path / "none.pcap", file)


def test_where_the_capture_ends_early_is_told_of_what_came_of_it(tmp_path: Path) -> None:
    path = capture(tmp_path / "a.pcap", [udp(sport=1000)] * 4)
    path.write_bytes(path.read_bytes()[:-10])
    source = CaptureSource(path, Edits(edit=function(tmp_path, BY_PORT)))
    assert len(kept(source)) == 3
    assert source.truncated is not None
    assert source.truncated.startswith("after packet 3, at byte ")
    source.close()


SLOW = """
import os, pathlib, time

def edit(packet):
    (pathlib.Path(__file__).parent / f"pid{os.getpid()}").touch()
    time.sleep(300)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_who_is_ended_meanwhile_leaves_no_process_behind(
    tmp_path: Path, cache: Path, number: signal.Signals
) -> None:
    file = function(tmp_path, SLOW)
    path = capture(tmp_path / "a.pcap", [udp()] * 300)
    popen = subprocess.Popen(
        [sys.executable, "-P", "-m", "xdpipe", "replay", str(path), "-w",
         str(tmp_path / "out.pcap"), "--edit", str(file)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    until(lambda: list(tmp_path.glob("pid*")), "the function is called")
    processes = [Process.of(int(place.name[3:])) for place in tmp_path.glob("pid*")]
    popen.send_signal(number)
    out, error = popen.communicate(timeout=30)
    assert (popen.returncode, out) == (1 if number == signal.SIGINT else -number, "")
    assert "Traceback" not in error
    until(lambda: not any(process.alive for process in processes), "its processes are gone")
    left = [entry.name[:4] for entry in cache.iterdir() if entry.name != "lock"]
    assert left == ([] if number == signal.SIGINT else ["new-"])
    # what a killed one left goes with the next
    with edited(path, function(tmp_path, SAME)) as made:
        assert made.read == 300
    assert not list(cache.glob("new-*"))
