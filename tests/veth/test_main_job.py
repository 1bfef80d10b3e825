"""The main job over veth: every packet in the ledger, in order, on its core, without privilege."""

import json
from pathlib import Path

import pytest

from hosts import HOST4, HOST6, PIPELINES, Bench
from traffic import numbered_flows

N_PACKETS, N_FLOWS = 1_000_000, 4096


def status_lines(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {line.partition(":")[0]: line.partition(":")[2].strip() for line in lines}


@pytest.fixture(scope="module")
def million(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("traffic") / "million.pcap"
    numbered_flows(path, N_PACKETS, N_FLOWS, dport=9)
    return path


@pytest.mark.alone  # none is lost where the workers have their cores
def test_a_million_packets_are_all_accounted_for_and_in_order(bench: Bench, million: Path) -> None:
    running = bench.run(PIPELINES / "in_order.py", "--cores", "0-1")
    sent = bench.replay(million, "--queues", "0-1", "--pps", "100000", timeout=120)
    assert (sent["sent"], sent["refused"], sent["too_long"]) == (N_PACKETS, 0, 0)
    final = running.end()
    ledger = final["ledger"]
    assert ledger["residual"] == 0
    assert ledger["redirected"] == N_PACKETS
    assert ledger["received"] + sum(ledger["kernel_drops"].values()) == N_PACKETS
    assert sum(ledger["kernel_drops"].values()) == 0
    assert ledger["verdicts"]["DROP"] == N_PACKETS
    in_order = final["stages"][1]
    assert in_order["counters"] == {"in_order": N_PACKETS, "out_of_order": 0, "flows": N_FLOWS}
    assert in_order["errors"] == 0
    for worker in final["workers"]:
        assert worker["packets"] > N_PACKETS // 4  # flows spread over both queues
        assert sum(worker["frames"].values()) == worker["n_frames"]
        assert worker["rss_bytes"] < 150e6


def test_each_worker_is_pinned_and_has_no_privilege(bench: Bench) -> None:
    status = bench.run(PIPELINES / "in_order.py", "--cores", "1,0").status()
    assert status is not None
    assert [worker["core"] for worker in status["workers"]] == [1, 0]
    for worker in status["workers"]:
        told = status_lines(worker["pid"])
        assert told["Threads"] == "1"
        assert told["Cpus_allowed_list"] == str(worker["core"])
        assert told["NoNewPrivs"] == "1"
        sets = {name: int(told[name], 16) for name in told if name.startswith("Cap")}
        assert sets == {"CapInh": 0, "CapPrm": 0, "CapEff": 0, "CapBnd": 0, "CapAmb": 0}
        assert set(told["Uid"].split()) & {"0"} == set()


def test_packets_that_the_filter_does_not_match_stay_with_the_kernel(bench: Bench) -> None:
    running = bench.run(PIPELINES / "in_order.py")
    for address in (HOST4, HOST6):
        bench.reach(address)
    ledger = running.end()["ledger"]
    assert ledger["received"] == ledger["redirected"] == 0
    assert ledger["to_kernel"]["not_matched"] >= 6
    assert ledger["to_kernel"]["guard_arp"] >= 1
    assert ledger["to_kernel"]["guard_nd"] >= 1
    assert ledger["seen"] == sum(ledger["to_kernel"].values())
    assert ledger["residual"] == 0


def test_duration_ends_it_and_json_is_all_there_is_on_stdout(bench: Bench) -> None:
    done = bench.xdpipe("run", str(PIPELINES / "in_order.py"), "--dev", "h0", "--duration", "0.5",
                        "--json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    final = json.loads(done.stdout)
    assert final["attach"] == "native"
    assert [worker["mode"] for worker in final["workers"]] == ["copy", "copy"]
    assert done.stdout.count("\n") == 1
