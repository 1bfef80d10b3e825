"""The stages that count and limit, in workers: what they report is what was sent."""

from collections import Counter
from pathlib import Path

from hosts import PIPELINES, Bench, until
from traffic import numbered_flows

N_PACKETS, N_FLOWS = 20_000, 40


def test_reports_of_all_queues_add_up_to_what_was_sent(bench: Bench, tmp_path: Path) -> None:
    capture = tmp_path / "flows.pcap"
    numbered_flows(capture, N_PACKETS, N_FLOWS, dport=9)
    running = bench.run(PIPELINES / "counting.py", "--queues", "0-1")
    bench.replay(capture, "--queues", "0-1", "--pps", "20000")

    def all_came() -> bool:
        status = running.status()
        return status is not None and status["stages"][2]["counters"]["counted"] == N_PACKETS

    until(all_came, "all packets are counted")
    asked = running.status()
    final = running.end()
    assert final["ledger"]["residual"] == 0
    for status in (asked, final):
        assert status is not None
        stages = {stage["name"]: stage for stage in status["stages"]}
        assert all(stage["kind"] == "native" and not stage["errors"] for stage in stages.values())
        ports: Counter[int] = Counter()
        for report in stages["Count"]["reports"]:
            ports.update({row["l4_sport"]: row["packets"] for row in report["keys"]})
        assert ports == {1024 + flow: N_PACKETS // N_FLOWS for flow in range(N_FLOWS)}
        assert stages["Where"]["counters"] == {"matched": 500, "other": N_PACKETS - 500}
        assert sum(report["packets"] for report in stages["Count#2"]["reports"]) == 500
        assert {report["p50"] for report in stages["Histogram"]["reports"]} == {68}
        for report in stages["Top"]["reports"]:
            assert sum(row["count"] for row in report["keys"]) == report["total"]
        assert sum(report["total"] for report in stages["Top"]["reports"]) == N_PACKETS
        counters = stages["RateLimit"]["counters"]
        assert counters["conforming"] + counters["exceeded"] == N_PACKETS
        assert counters["keys"] == N_FLOWS
        # ten at once of each, and one a second more
        assert 10 * N_FLOWS <= counters["conforming"] <= (10 + status["uptime_s"] + 1) * N_FLOWS
        assert status["ledger"]["verdicts"]["TX"] == counters["exceeded"]
