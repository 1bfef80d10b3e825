"""`xdpipe craft` as a user runs it, as far as it needs no interface."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from xdpipe.capture import CaptureReader
from xdpipe.cli import main

DNS = 'IP(dst="10.0.0.2")/UDP(dport=53)/DNS(qd=DNSQR(qname="example.com"))'


def craft(*args: str) -> Result:
    return CliRunner().invoke(main, ["craft", *args])


def test_packets_are_written_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "out.pcap"
    done = craft(
        DNS, "--vary", "IP.src=10.0.0.0/16", "--vary", "UDP.sport=1024-65535", "--flows", "1000",
        "--count", "1e4", "--size", "imix", "-w", str(path), "--json",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    # the query has 71 bytes, and so is longer than 7 of 12 sizes
    longer = sum(k % 12 in (0, 2, 3, 5, 7, 9, 11) for k in range(10_000))
    with CaptureReader(path) as reader:
        lens = [len(p.data) for p in reader]
    assert Counter(lens).keys() == {71, 590, 1514}
    assert (told["packets"], told["bytes"], told["flows"]) == (10_000, sum(lens), 1000)
    assert (told["templates"], told["file"], told["interrupted"]) == (1, str(path), False)
    assert told["members"] == [{"name": "packet", "packets": 10_000}]
    assert told["longer"] == lens.count(71)
    assert abs(told["longer"] - longer) <= 12


def test_a_capture_goes_to_standard_output_and_nothing_else() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "xdpipe", "craft", "IP()/UDP()", "--vary", "UDP.sport=1-9",
         "-w", "-"],
        capture_output=True, check=True,
    )  # fmt: skip
    assert len(done.stdout) == 24 + 9 * (16 + 42)
    assert b"9 packets" in done.stderr


def test_each_flow_comes_once_unless_told_otherwise(tmp_path: Path) -> None:
    path = tmp_path / "out.pcap"
    done = craft("IP()/UDP()", "--vary", "UDP.sport=1-70", "-w", str(path), "--json")
    assert json.loads(done.stdout)["packets"] == 70


def test_a_list_of_scapys_is_a_packet_for_each(tmp_path: Path) -> None:
    path = tmp_path / "out.pcap"
    done = craft('IP(dst="10.0.0.0/30")/TCP(dport=[80, 443])', "-w", str(path), "--json")
    assert json.loads(done.stdout)["packets"] == 8
    with CaptureReader(path) as reader:
        assert len({p.data for p in reader}) == 8


def test_the_mixes_are_listed() -> None:
    told = json.loads(craft("--list", "--json").stdout)["mixes"]
    names = [mix["name"] for mix in told]
    assert names == [
        "imix", "dns", "syn-flood", "fragments", "vlan", "ipv6-extensions", "malformed",
    ]  # fmt: skip
    assert all(name in craft("--list").output for name in names)
    [one] = json.loads(craft("--list", "--mix", "malformed", "--json").stdout)["mixes"]
    assert {"name": "dns IP.len=0", "weight": 1, "bytes": 71} in one["members"]
    assert len(one["members"]) > 250


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["-w", "x"], "say a template, or --mix NAME"),
        (["IP()", "--mix", "dns", "-w", "x"], "say a template, or --mix NAME"),
        (["IP()"], "say where to: -w FILE or --dev DEV"),
        (["IP()", "-w", "x", "--dev", "y"], "say where to"),
        (["IP()", "-w", "-", "--json"], "both are for standard output"),
        (["IP()", "-w", "x", "--count", "0"], "no whole number from 1 on"),
        (["IP()", "-w", "x", "--count", "1.5"], "no whole number from 1 on"),
        (["IP()", "-w", "x", "--flows", "1e99"], "no whole number from 1 on"),
    ],
)
def test_options_that_do_not_fit_are_a_line_and_exit_code_2(args: list[str], message: str) -> None:
    done = craft(*args)
    assert done.exit_code == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--mix", "dsn", "-w", "x"], "--mix dsn: there are imix, dns"),
        (["IP()", "--vary", "IP.src=random", "-w", "x"], "say how many: --count 1e6"),
        (["IP()", "-w", "/nowhere/x"], "/nowhere/x: No such file or directory"),
        (["IP()", "--dev", "no-such-dev"], "no-such-dev"),
    ],
)
def test_what_cannot_be_is_a_line_and_exit_code_1(args: list[str], message: str) -> None:
    done = craft(*args)
    assert done.exit_code == 1
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
