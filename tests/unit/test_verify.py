"""`xdpipe verify` as a user runs it: record, change the pipeline, be told which packets differ."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import ARP, Ether
from scapy.utils import wrpcap

from hosts import until
from xdpipe import __version__
from xdpipe.errors import XdpipeError
from xdpipe.pipeline import load_pipeline
from xdpipe.verify import observe, read, write

MACS = {"dst": "02:00:00:00:00:01", "src": "02:00:00:00:00:02"}
PIPELINE = """
from xdpipe import DROP, PASS, TX, Batch, Pipeline, Stage, Steering
from xdpipe.stages import Headers

class DropOdd(Stage):
    requires = ("l4_sport", "payload")
    counters = ("odd", "marked")
    def process(self, batch: Batch) -> None:
        self.count("odd", batch.drop(batch.l4_sport % 2 == 1))
        where = batch.undecided & (batch.l4_sport % 4 == 0)
        self.count("marked", batch.put_u16(batch.payload + 1, 0xBEEF, where))

pipeline = Pipeline(Steering("udp"), [Headers(), DropOdd()], default=TX)
"""
TWO_PORTS = """
from xdpipe import FORWARD, Pipeline, Steering
from xdpipe.stages import Headers
pipeline = Pipeline(Steering(""), [Headers()], default=FORWARD, ports=("inside", "outside"))
"""


def udp(sport: int, dport: int = 9, payload: bytes = b"payload") -> Ether:
    ip = IP(src="10.0.0.1", dst="10.0.0.2", id=1)
    return Ether(**MACS) / ip / UDP(sport=sport, dport=dport, chksum=0) / payload


def capture(path: Path, packets: list[Ether]) -> Path:
    for number, packet in enumerate(packets):
        packet.time = 1_700_000_000 + number
    wrpcap(str(path), packets)
    return path


@pytest.fixture
def pcap(tmp_path: Path) -> Path:
    """Return a capture of 8 datagrams, from ports 1000 on, with an ARP request in between."""
    packets = [udp(1000 + i) for i in range(8)]
    return capture(tmp_path / "some.pcap", [*packets[:4], Ether(**MACS) / ARP(), *packets[4:]])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return changed(tmp_path / "drop_odd.py")


@pytest.fixture
def expect(file: Path, pcap: Path, tmp_path: Path) -> Path:
    path = tmp_path / "some.json"
    write(observe(load_pipeline(file), pcap), path)
    return path


def changed(path: Path, *changes: tuple[str, str]) -> Path:
    """Write the pipeline, with texts in place of others that it has."""
    text = PIPELINE
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)
    return path


def run(*args: str | Path, **options: Any) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "xdpipe", "verify", *map(str, args)],
        capture_output=True, text=True, check=False, **options,
    )  # fmt: skip


def verify(*args: str | Path, code: int = 0) -> dict[str, Any]:
    done = run(*args, "--json")
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def refused(*args: str | Path, code: int = 1) -> str:
    done = run(*args)
    assert done.returncode == code, done.stdout
    assert done.stdout == ""
    [line] = done.stderr.strip().splitlines()
    return line


def numbers(result: dict[str, Any]) -> list[int]:
    return [each["number"] for each in result["differences"]]


def test_what_is_recorded_can_be_read(file: Path, pcap: Path, tmp_path: Path) -> None:
    expect = tmp_path / "some.json"
    result = verify(file, "--pcap", pcap, "--record", expect)
    assert result == {
        "file": str(file), "capture": str(pcap), "recorded": str(expect), "packets": 9,
        "verdicts": {"DROP": 4, "NOT_TAKEN": 1, "TX": 4}, "rewritten": 2,
    }  # fmt: skip
    told = json.loads(expect.read_text())
    assert len(told["capture"].pop("sha256")) == 64
    stages = told.pop("stages")
    assert told == {
        "format": 1,
        "xdpipe": __version__,
        "capture": {"name": "some.pcap", "bytes": pcap.stat().st_size, "packets": 9},
        "port": "",
        "batch": 512,
        "default": "TX",
        "verdicts": {"DROP": 4, "NOT_TAKEN": 1, "TX": 4},
        "sets": {},
        "packets": ["1 TX", "2 DROP", "3 TX", "4 DROP", "5 NOT_TAKEN", "6 TX", "7 DROP", "8 TX",
                    "9 DROP"],
        "rewritten": ["1 43=beef", "6 43=beef"],
    }  # fmt: skip
    assert list(stages) == ["Headers", "DropOdd"]
    assert stages["Headers"] == {
        "packets": 8, "errors": 0, "counters": {"ipv4": 8, "udp": 8},
    }  # fmt: skip
    assert stages["DropOdd"] == {"packets": 8, "errors": 0, "counters": {"odd": 4, "marked": 2}}
    assert ' "1 TX",\n' in expect.read_text()


def test_neighbours_that_became_the_same_stand_on_one_line(tmp_path: Path, file: Path) -> None:
    pcap = capture(tmp_path / "a.pcap", [udp(sport) for sport in (2, 4, 6, 1, 3, 2)])
    verify(file, "--pcap", pcap, "--record", tmp_path / "a.json")
    told = json.loads((tmp_path / "a.json").read_text())
    assert told["packets"] == ["1-3 TX", "4-5 DROP", "6 TX"]


def test_the_same_pipeline_is_equal(file: Path, pcap: Path, expect: Path) -> None:
    result = verify(file, "--pcap", pcap, "--expect", expect)
    assert result["equal"] is True
    assert (result["packets"], result["compared"], result["different"]) == (9, 9, 0)
    assert result["differences"] == result["counters"] == result["ignored"] == []
    assert result["live"] is None
    done = run(file, "--pcap", pcap, "--expect", expect)
    assert done.stdout == f"{pcap}: 9 packets as recorded (DROP 4, NOT_TAKEN 1, TX 4)\n"


def test_it_is_equal_in_batches_of_any_size(file: Path, pcap: Path, tmp_path: Path) -> None:
    told = []
    for size in (1, 3, 512):
        verify(file, "--pcap", pcap, "--record", tmp_path / "e.json", "--batch", str(size))
        told.append(json.loads((tmp_path / "e.json").read_text()))
        assert told[-1].pop("batch") == size
    assert told[0] == told[1] == told[2]


def test_other_verdicts_name_their_packets(file: Path, pcap: Path, expect: Path) -> None:
    changed(file, ("% 2 == 1", "== 1002"))
    result = verify(file, "--pcap", pcap, "--expect", expect, code=3)
    assert result["equal"] is False
    assert result["different"] == 5
    assert numbers(result) == [2, 3, 4, 7, 9]
    assert result["differences"][1] == {
        "number": 3,
        "time_ns": 1_700_000_002_000_000_000,
        "summary": "10.0.0.1:1002 > 10.0.0.2:9 UDP, 49 bytes",
        "recorded": "TX",
        "now": "DROP",
        "rewriting": None,
        "byte": None,
    }
    assert result["counters"] == [{"name": "DropOdd.odd", "recorded": 4, "now": 1}]
    assert result["verdicts"] == {
        "recorded": {"DROP": 4, "NOT_TAKEN": 1, "TX": 4},
        "now": {"DROP": 1, "NOT_TAKEN": 1, "TX": 7},
    }


@pytest.mark.parametrize(
    ("old", "new", "packets", "byte", "words"),
    [
        ("0xBEEF", "0xBE01", [1, 6], 44, "byte 44: ef6c6f6164, now 016c6f6164"),
        ("payload + 1", "payload + 2", [1, 6], 43, "byte 43: beef6c6f6164, now 61beef6f6164"),
        ("% 4 == 0", "== 1000", [6], 43, "byte 43: beef6c6f6164, now 61796c6f6164"),
        ("% 4 == 0", "% 4 == 4", [1, 6], 43, "byte 43: beef6c6f6164, now 61796c6f6164"),
        ("% 4 == 0", "!= 1000", [1, 3, 8], 43, None),
    ],
)
def test_other_bytes_name_their_packets_and_the_place(
    file: Path, pcap: Path, expect: Path, old: str, new: str, packets: list[int], byte: int,
    words: str | None,
) -> None:  # fmt: skip
    changed(file, (old, new))
    result = verify(
        file, "--pcap", pcap, "--expect", expect, "--ignore-counter", "DropOdd.marked", code=3
    )
    assert numbers(result) == packets
    assert result["counters"] == []
    for each in result["differences"]:
        assert each["recorded"] == each["now"] == "TX"
        assert each["byte"] == byte
        assert words is None or each["rewriting"] == words


def test_another_length_is_told(file: Path, pcap: Path, expect: Path) -> None:
    changed(
        file,
        ("import Headers", "import Headers, SetVlan"),
        ("[Headers(), DropOdd()]", "[Headers(), DropOdd(), SetVlan(5, push=True)]"),
    )
    result = verify(file, "--pcap", pcap, "--expect", expect, code=3)
    assert numbers(result) == [1, 3, 6, 8]
    assert {each["rewriting"] for each in result["differences"]} == {
        "byte 12: 0800450000230001, now 8100000508004500; 49 bytes, now 53"
    }
    assert {"name": "SetVlan.(packets)", "recorded": 0, "now": 8} in result["counters"]


def test_what_was_much_rewritten_is_told_by_its_hash(tmp_path: Path, file: Path) -> None:
    pcap = capture(tmp_path / "long.pcap", [udp(2, payload=bytes(1000)), udp(1)])
    every = (
        "self.count('marked', sum(batch.put_u8(at, {}, batch.undecided) for at in range(50, 900)))"
    )
    last = 'self.count("marked", batch.put_u16(batch.payload + 1, 0xBEEF, where))'
    changed(file, (last, every.format(1)))
    verify(file, "--pcap", pcap, "--record", tmp_path / "e.json")
    [line] = json.loads((tmp_path / "e.json").read_text())["rewritten"]
    assert line.startswith("1 1042 bytes ")
    assert verify(file, "--pcap", pcap, "--expect", tmp_path / "e.json")["equal"] is True
    changed(file, (last, every.format(2)))
    result = verify(file, "--pcap", pcap, "--expect", tmp_path / "e.json", code=3)
    [difference] = result["differences"]
    assert difference["byte"] is None
    assert difference["rewriting"].startswith(f"left as {line[2:]}; now as 1042 bytes ")


def test_what_the_filter_takes_is_part_of_it(file: Path, pcap: Path, expect: Path) -> None:
    changed(file, ('"udp"', '"udp src port 1000 or arp"'))
    result = verify(file, "--pcap", pcap, "--expect", expect, code=3)
    assert [(each["number"], each["recorded"], each["now"]) for each in result["differences"]] == [
        (2, "DROP", "NOT_TAKEN"), (3, "TX", "NOT_TAKEN"), (4, "DROP", "NOT_TAKEN"),
        (5, "NOT_TAKEN", "TX"), (6, "TX", "NOT_TAKEN"), (7, "DROP", "NOT_TAKEN"),
        (8, "TX", "NOT_TAKEN"), (9, "DROP", "NOT_TAKEN"),
    ]  # fmt: skip
    summaries = [each["summary"] for each in result["differences"]]
    assert summaries[3] == f"{MACS['src']} > {MACS['dst']} ARP, 42 bytes"


def test_another_default_is_told(file: Path, pcap: Path, expect: Path) -> None:
    changed(file, ("default=TX", "default=PASS"))
    result = verify(file, "--pcap", pcap, "--expect", expect, code=3)
    assert [(each["number"], each["now"]) for each in result["differences"]] == [
        (number, "PASS") for number in (1, 3, 6, 8)
    ]
    assert result["counters"] == []


def test_the_port_that_packets_go_out_of_is_recorded(tmp_path: Path, pcap: Path) -> None:
    file, expect = tmp_path / "two.py", tmp_path / "two.json"
    file.write_text(TWO_PORTS)
    verify(file, "--pcap", pcap, "--record", expect, "--port", "outside")
    told = json.loads(expect.read_text())
    assert (told["port"], told["packets"]) == ("outside", ["1-9 FORWARD inside"])
    assert verify(file, "--pcap", pcap, "--expect", expect)["equal"] is True
    file.write_text(TWO_PORTS.replace('"inside"', '"within"'))
    result = verify(file, "--pcap", pcap, "--expect", expect, code=3)
    assert {each["now"] for each in result["differences"]} == {"FORWARD within"}
    shown = run(file, "--pcap", pcap, "--expect", expect).stdout
    assert "--steer --port outside --write FORWARD=forward.pcap\n" in shown
    file.write_text(TWO_PORTS.replace('"outside"', '"beyond"'))
    assert "--port outside: the pipeline's ports are: inside, beyond" in refused(
        file, "--pcap", pcap, "--expect", expect
    )


def test_counters_alone_may_differ_and_be_ignored(file: Path, pcap: Path, expect: Path) -> None:
    changed(file, ('self.count("odd"', 'self.count("odd", 1); self.count("odd"'))
    args = (file, "--pcap", pcap, "--expect", expect)
    result = verify(*args, code=3)
    assert (result["different"], result["differences"]) == (0, [])
    assert result["counters"] == [{"name": "DropOdd.odd", "recorded": 4, "now": 5}]
    for pattern in ("DropOdd.odd", "Drop*", "*.o?d"):
        assert verify(*args, "--ignore-counter", pattern)["ignored"] == ["DropOdd.odd"]
    assert verify(*args, "--ignore-counter", "DropOdd.marked", code=3)["ignored"] == []
    line = refused(*args, "--ignore-counter", "DropOdd.old")
    assert "--ignore-counter DropOdd.old: there is none" in line
    assert "DropOdd.odd, DropOdd.marked" in line


def test_a_counter_that_is_gone_and_one_that_is_new(file: Path, pcap: Path, expect: Path) -> None:
    changed(file, ('"marked"', '"written"'), ('"odd", "written"', '"odd", "never", "written"'))
    result = verify(file, "--pcap", pcap, "--expect", expect, code=3)
    assert result["counters"] == [  # one that is new and 0 is none
        {"name": "DropOdd.written", "recorded": 0, "now": 2},
        {"name": "DropOdd.marked", "recorded": 2, "now": None},
    ]


def test_a_stage_that_raises_is_a_difference(file: Path, pcap: Path, expect: Path) -> None:
    changed(file, ("where = ", "raise KeyError; where = "))
    done = run(file, "--pcap", pcap, "--expect", expect, "--json")
    assert done.returncode == 3
    assert "stage DropOdd raised; the batch goes on without it" in done.stderr
    result = json.loads(done.stdout)
    assert numbers(result) == [1, 6]
    assert {"name": "DropOdd.(errors)", "recorded": 0, "now": 1} in result["counters"]


def test_so_many_packets_are_shown_as_asked_for(file: Path, tmp_path: Path) -> None:
    pcap = capture(tmp_path / "many.pcap", [udp(1000 + i) for i in range(50)])
    expect = tmp_path / "many.json"
    verify(file, "--pcap", pcap, "--record", expect)
    changed(file, ("default=TX", "default=DROP"))
    args = (file, "--pcap", pcap, "--expect", expect)
    assert numbers(verify(*args, code=3)) == list(range(1, 41, 2))
    assert numbers(verify(*args, "--show", "3", code=3)) == [1, 3, 5]
    assert verify(*args, "--show", "0", code=3)["different"] == 25
    done = run(*args, "--show", "3")
    assert done.returncode == 3
    assert f"{pcap}: 25 of 50 packets are not as recorded in {expect}\n" in done.stdout
    assert "and 22 packets more; --show N shows more of them" in done.stdout
    assert f"tshark -r {pcap} -Y 'frame.number in {{1,3,5}}'\n" in done.stdout
    assert f"xdpipe check {file} --pcap {pcap} --steer --write DROP=drop.pcap\n" in done.stdout
    assert done.stdout.count("10.0.0.1:") == 3


def test_what_the_file_prints_does_not_spoil_json(file: Path, pcap: Path, expect: Path) -> None:
    file.write_text("print('at import')\n" + file.read_text())
    assert verify(file, "--pcap", pcap, "--expect", expect)["equal"] is True


def test_a_capture_that_ends_early_is_the_same_capture(
    file: Path, pcap: Path, tmp_path: Path
) -> None:
    pcap.write_bytes(pcap.read_bytes()[:-10])
    verify(file, "--pcap", pcap, "--record", tmp_path / "cut.json")
    result = verify(file, "--pcap", pcap, "--expect", tmp_path / "cut.json")
    assert (result["packets"], result["equal"]) == (8, True)


def test_an_empty_capture_is_equal_to_itself(file: Path, tmp_path: Path) -> None:
    pcap = capture(tmp_path / "one.pcap", [udp(1)])
    pcap.write_bytes(pcap.read_bytes()[:24])
    verify(file, "--pcap", pcap, "--record", tmp_path / "none.json")
    result = verify(file, "--pcap", pcap, "--expect", tmp_path / "none.json")
    assert (result["packets"], result["equal"]) == (0, True)


def test_another_capture_is_told(file: Path, pcap: Path, expect: Path, tmp_path: Path) -> None:
    other = capture(tmp_path / "other.pcap", [udp(1)])
    line = refused(file, "--pcap", other, "--expect", expect)
    assert f"{other}: another capture than the one that {expect} is about: some.pcap, " in line
    renamed = pcap.rename(tmp_path / "renamed.pcap")
    assert verify(file, "--pcap", renamed, "--expect", expect)["equal"] is True


def test_a_capture_that_can_be_read_but_once_is_refused(file: Path, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo.pcap"
    os.mkfifo(fifo)
    fd = os.open(fifo, os.O_RDWR)  # else opening it would wait for a writer
    line = refused(file, "--pcap", fifo, "--record", tmp_path / "e.json")
    os.close(fd)
    assert "not a file; save the capture in one first" in line


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda told: told.pop("packets"), "'packets' is missing"),
        (lambda told: told["capture"].pop("sha256"), "'sha256' is missing"),
        (lambda told: told["packets"].pop(), "packets ends with 8 of 9"),
        (lambda told: told["packets"].pop(3), "'5 NOT_TAKEN' cannot come behind packet 3 of 9"),
        (lambda told: told["packets"].append("10 TX"), "'10 TX' cannot come behind packet 9 of 9"),
        (lambda told: told["packets"].__setitem__(0, "1 BACK"), "verdicts has none of that name"),
        (lambda told: told["packets"].__setitem__(0, "1 DROP"), "verdicts says"),
        (lambda told: told["packets"].__setitem__(0, 7), "damaged"),
        (lambda told: told["packets"].__setitem__(8, "9-999999999 DROP"), "cannot come behind"),
        (lambda told: told["rewritten"].reverse(), "no change of a packet behind 6"),
        (lambda told: told["rewritten"].append("10 1=00"), "no change of a packet behind 6"),
        (lambda told: told["rewritten"].__setitem__(0, "1 some"), "no change of a packet"),
        (lambda told: told["stages"]["DropOdd"]["counters"].__setitem__("odd", "4"), "no count"),
        (lambda told: told["stages"].__setitem__("DropOdd", []), "damaged"),
        (lambda told: told.__setitem__("batch", 0), "batches of 0 packets"),
        (lambda told: told["verdicts"].__setitem__("TX", 5), "verdicts says"),
        (lambda told: told["capture"].__setitem__("packets", -1), "no count"),
    ],
)
def test_a_file_that_does_not_agree_with_itself_is_refused(
    expect: Path, damage: Any, message: str
) -> None:
    told = json.loads(expect.read_text())
    damage(told)
    expect.write_text(json.dumps(told))
    with pytest.raises(XdpipeError) as error:
        read(expect)
    assert str(error.value).startswith(f"{expect}: damaged: ")
    assert message in str(error.value)
    assert str(error.value).endswith("; record it anew")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"packets": []}', "[" * 100_000, "\x00\xff"])
def test_what_is_no_such_file_is_refused(
    file: Path, pcap: Path, expect: Path, content: str
) -> None:
    expect.write_text(content, encoding="latin-1")
    line = refused(file, "--pcap", pcap, "--expect", expect)
    assert f"{expect}: not what --record writes" in line


def test_a_file_of_another_format_is_refused(file: Path, pcap: Path, expect: Path) -> None:
    told = json.loads(expect.read_text())
    expect.write_text(json.dumps({**told, "format": 0, "xdpipe": "0.0.1"}))
    line = refused(file, "--pcap", pcap, "--expect", expect)
    assert "written by xdpipe 0.0.1 in format 0, and this is " in line
    assert "which reads format 1; record it anew" in line
    expect.write_text(json.dumps({**told, "xdpipe": "0.0.1"}))
    assert verify(file, "--pcap", pcap, "--expect", expect)["equal"] is True


def test_files_that_are_not_there_are_told(file: Path, pcap: Path, tmp_path: Path) -> None:
    none = tmp_path / "none"
    assert f"record it first: xdpipe verify FILE --pcap CAPTURE --record {none}" in refused(
        file, "--pcap", pcap, "--expect", none
    )
    assert "No such file" in refused(file, "--pcap", none, "--record", tmp_path / "e.json")
    assert "No such file" in refused(file, "--pcap", pcap, "--record", none / "e.json")
    assert "no such file" in refused(none, "--pcap", pcap, "--record", tmp_path / "e.json")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["drop_odd.py", "some.pcap"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((), "--pcap CAPTURE is missing"),
        (("--pcap", "p"), "say --expect EXPECT to compare, or --record EXPECT"),
        (("--pcap", "p", "--expect", "e", "--record", "e"), "say --expect EXPECT to compare"),
        (("--pcap", "p", "--dir", "d"), "--dir DIR goes without --pcap"),
        (("--pcap", "p", "--expect", "e", "--record-all"), "--record-all goes with --dir DIR"),
        (("--pcap", "p", "--record", "e", "--live"), "--live compares; record without it"),
        (("--pcap", "p", "--expect", "e", "--batch", "3"), "are as recorded"),
        (("--pcap", "p", "--expect", "e", "--port", "x"), "are as recorded"),
    ],
)
def test_options_that_make_no_sense_are_told(
    file: Path, args: tuple[str, ...], message: str
) -> None:
    assert message in refused(file, *args, code=2)


@pytest.mark.parametrize("option", ["--record", "--expect"])
def test_interrupted_it_writes_nothing(
    file: Path, pcap: Path, expect: Path, tmp_path: Path, option: str
) -> None:
    before = expect.read_bytes()
    reached = tmp_path / "reached"
    file.write_text(
        file.read_text().replace(
            "        self.count(\"odd\"",
            f"        open({str(reached)!r}, 'w').close()\n"
            "        import time; time.sleep(300)\n        self.count(\"odd\"",
        )
    )  # fmt: skip
    popen = subprocess.Popen(
        [sys.executable, "-m", "xdpipe", "verify", file, "--pcap", pcap, option, expect],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    until(reached.exists, "the stage runs")
    popen.send_signal(signal.SIGINT)
    out, err = popen.communicate(timeout=30)
    assert popen.returncode == 1
    assert out == ""
    assert "Traceback" not in err
    assert expect.read_bytes() == before
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["drop_odd.py", "reached", "some.json", "some.pcap"]


def test_a_directory_of_captures(file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "captures"
    folder.mkdir()
    assert "no captures in it" in refused(file, "--dir", folder)
    first = capture(folder / "a.pcap", [udp(1), udp(2)])
    second = capture(folder / "b.pcap", [udp(3)])
    assert f"{first}: nothing is recorded of it" in refused(file, "--dir", folder)
    written = verify(file, "--dir", folder, "--record-all")
    assert [each["recorded"] for each in written["captures"]] == [
        f"{first}.expect.json", f"{second}.expect.json",
    ]  # fmt: skip
    assert "equal" not in written
    result = verify(file, "--dir", folder)
    assert result["equal"] is True
    assert [each["capture"] for each in result["captures"]] == [str(first), str(second)]
    changed(file, ("% 2 == 1", "== 1"))
    result = verify(file, "--dir", folder, code=3)
    assert result["equal"] is False
    assert [each["equal"] for each in result["captures"]] == [True, False]
    assert numbers(result["captures"][1]) == [1]
    second.unlink()
    assert f"{second}: gone, but b.pcap.expect.json is there" in refused(file, "--dir", folder)


def without_privilege(*args: str | Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs", sys.executable,
         "-m", "xdpipe", "verify", *map(str, args)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_it_needs_no_privilege_but_live(file: Path, pcap: Path, expect: Path) -> None:
    args = (file, "--pcap", pcap, "--expect", expect, "--json")
    done = without_privilege(*args)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["equal"] is True
    done = without_privilege(*args, "--live")
    assert (done.returncode, done.stdout) == (1, "")
    [line] = done.stderr.splitlines()
    assert "make a network namespace: Operation not permitted; it takes root" in line
