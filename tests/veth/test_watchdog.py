"""A stage that takes long for a batch is named while the pipeline runs."""

from collections.abc import Callable
from typing import Any

from hosts import CLIENT4, HOST4, PIPELINES, Bench, Running, echoes, until

SLOW = PIPELINES / "slow.py"


def over_budget(running: Running) -> dict[str, int]:
    status = running.status()
    assert status is not None
    return {stage["name"]: stage["over_budget"] for stage in status["stages"]}


def told(bench: Bench, words: str) -> Callable[[], bool]:
    def look() -> bool:
        done = bench.xdpipe("status")
        assert done.returncode == 0, done.stderr
        return words in " ".join(done.stdout.split())

    return look


def by_name(status: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {stage["name"]: stage for stage in status["stages"]}


def test_status_names_the_stage_and_counts_its_batches(bench: Bench) -> None:
    running = bench.run(SLOW)
    assert echoes(bench, CLIENT4, HOST4, [7, 7], rounds=2) == 4  # one after the other: a batch each
    until(lambda: over_budget(running)["Slow"] >= 4, "4 batches are over the budget of 10 ms")
    until(told(bench, "Slow was over its budget of 10 ms in "), "the status names it")
    final = running.end()
    stages = by_name(final)
    assert [stages[name]["over_budget"] for name in ("Headers", "Quick", "SwapAddresses")] == [
        0
    ] * 3
    assert [stages[name]["budget_us"] for name in ("Slow", "Quick")] == [10_000.0, None]
    assert stages["Slow"]["max_ns"] >= 20_000_000
    assert stages["Quick"]["max_ns"] >= 20_000_000
    assert final["ledger"]["residual"] == 0


def test_the_command_line_sets_the_budget_of_stages_that_have_none(bench: Bench) -> None:
    running = bench.run(SLOW, "--budget-us", "0")
    n = echoes(bench, CLIENT4, HOST4, [5, 6], rounds=2)
    final = running.end()
    batches = sum(worker["batches"] for worker in final["workers"])
    stages = by_name(final)
    assert n <= batches == stages["Slow"]["over_budget"]
    assert stages["Slow"]["budget_us"] == 0
    assert stages["Headers"]["over_budget"] == stages["Quick"]["over_budget"] == 0


def test_run_warns_of_what_lint_finds_and_runs(bench: Bench) -> None:
    running = bench.run(SLOW)
    assert echoes(bench, CLIENT4, HOST4, [5]) == 3
    final = running.end()
    [line] = [line for line in final["stderr"].splitlines() if "warning" in line]
    number = 1 + SLOW.read_text().splitlines().index("            time.sleep(0.02)")
    assert line.startswith(f"xdpipe: warning: {SLOW}:{number}:13: XP102 sleep or wait: ")
    assert "Slow.process → time.sleep" in line
