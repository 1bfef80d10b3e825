"""What people look at: the live table, the ledger, the report of a check."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import RenderableType

Status = dict[str, Any]


def count(n: float) -> str:
    """Return a number in at most 6 characters: 1,234 or 12.3k or 1.23M."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(n) >= 10 * size or (abs(n) >= size and unit != "k"):
            return f"{n / size:.{2 if abs(n) < 10 * size else 1}f}{unit}"
    return f"{n:,.0f}"


def duration(ns: float) -> str:
    """Return a time in at most 7 characters: 870 ns, 4.2 µs, 48.3 ms, 1.2 s."""
    for unit, size in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if ns >= size:
            return f"{f'{ns / size:.{1 if ns < 100 * size else 0}f}'.removesuffix('.0')} {unit}"
    return f"{ns:.0f} ns"


def _rate(now: Status, before: Status | None, queue: int, key: str) -> float:
    start = 0 if before is None else before["uptime_s"]
    if now["uptime_s"] <= start:
        return 0.0
    old = {} if before is None else {worker["queue"]: worker for worker in before["workers"]}
    new = next(worker for worker in now["workers"] if worker["queue"] == queue)
    return float((new[key] - (old[queue][key] if queue in old else 0)) / (now["uptime_s"] - start))


def _ring_bar(worker: Status) -> str:
    """Draw how full the rx ring is: what waits for the worker."""
    share: float = worker["frames"]["rx"] / worker["n_frames"]
    full = math.ceil(share * 4)
    return "█" * full + "░" * (4 - full)


def _drops(worker: Status) -> Text:
    """Name the packets that the kernel dropped at the socket, by XDP_STATISTICS counter."""
    kernel = worker["kernel"]
    parts = [
        f"{name} {count(kernel[name])}" for name in ("rx_dropped", "rx_ring_full") if kernel[name]
    ]
    return Text(", ".join(parts) or "0", style="red" if parts else "")


def _mode(worker: Status) -> str:
    """Name what was obtained; zero copy is native always."""
    mode: str = worker["mode"]
    return mode if mode == "zerocopy" else f"{mode} {worker['attach']}"


def _table() -> Table:
    return Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), collapse_padding=True)


def workers_table(now: Status, before: Status | None) -> Table:
    """Draw a row for each queue: where it is served, how fast, and what becomes of its packets.

    Args:
        now: a status.
        before: one of some time ago, for the rates; None: rates over the whole run.
    """
    table = _table()
    table.add_column("queue", justify="right", no_wrap=True)
    table.add_column("core", justify="right", no_wrap=True)
    table.add_column("mode", no_wrap=True)
    # only those verdicts that there are: a terminal may have 80 columns
    verdicts = [
        verdict for verdict in ("DROP", "TX", "PASS", "FORWARD")
        if verdict in ("DROP", now["default"])
        or any(worker["verdicts"][verdict] for worker in now["workers"])
    ]  # fmt: skip
    sums = ("packets", "/batch") if len(verdicts) < 3 else ()
    for heading in ("pkt/s", *sums, *verdicts, "busy"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("ring", no_wrap=True)
    table.add_column("lost", min_width=4)
    for worker in now["workers"]:
        serving = worker["state"] in ("serving", "done")
        table.add_row(
            str(worker["queue"]),
            str(worker["core"]),
            _mode(worker) if serving else Text("none", style="red"),
            count(_rate(now, before, worker["queue"], "packets")),
            *(
                (
                    count(worker["packets"]),
                    f"{worker['packets'] / max(worker['batches'], 1):.1f}",
                )
                if sums
                else ()
            ),
            *(count(worker["verdicts"][verdict]) for verdict in verdicts),
            f"{_rate(now, before, worker['queue'], 'busy_ns') / 1e9:.0%}",
            _ring_bar(worker),
            _drops(worker),
        )
    return table


def stages_table(stages: list[Status]) -> Table:
    """Draw a row for each stage: packets, time and errors, and its counters that are not 0."""
    table = _table()
    table.add_column("stage")
    table.add_column("kind")
    over = ("over",) if any(stage["over_budget"] for stage in stages) else ()
    for heading in ("packets", "ns/pkt", "longest", *over, "errors"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("counters")
    for stage in stages:
        counters = ", ".join(f"{k} {count(v)}" for k, v in stage["counters"].items() if v)
        per_packet = stage["ns"] / stage["packets"] if stage["packets"] else 0.0
        names = ("over_budget", "errors") if over else ("errors",)
        bad = (Text(count(stage[name]), style="red" if stage[name] else "") for name in names)
        table.add_row(
            stage["name"], stage["kind"], count(stage["packets"]), f"{per_packet:,.0f}",
            duration(stage["max_ns"]), *bad, counters,
        )  # fmt: skip
    return table


def over_budget(stages: list[Status]) -> list[RenderableType]:
    """Name the stages that took longer than their budget, a line each."""
    return [
        Text(
            f"{stage['name']} was over its budget of {duration(stage['budget_us'] * 1000)} "
            f"in {stage['over_budget']:,} batch{'es' if stage['over_budget'] > 1 else ''}, "
            f"at the longest {duration(stage['max_ns'])}",
            style="red",
        )
        for stage in stages
        if stage["over_budget"]
    ]


def _add(tree: Tree, label: str, n: int, parts: Mapping[str, int] | None = None) -> Tree:
    branch = tree.add(f"{label} {n:,}")
    for name, value in (parts or {}).items():
        if value:
            branch.add(f"{name} {value:,}")
    return branch


def _add_outcome(branch: Tree, done: str, n: int, refused: Mapping[str, int]) -> None:
    _add(branch, done, n)
    if sum(refused.values()):
        _add(branch, "refused", sum(refused.values()), refused)


def ledger_tree(ledger: Status) -> Tree:
    """Draw where every packet went, from the XDP program down to the wire."""
    tree = Tree(f"[bold]seen {ledger['seen']:,}[/bold]")
    _add(tree, "to the kernel", sum(ledger["to_kernel"].values()), ledger["to_kernel"])
    if ledger["set_dropped"]:
        _add(tree, "dropped by a set", ledger["set_dropped"])
    if ledger["redirect_failed"]:
        _add(tree, "redirect failed", ledger["redirect_failed"])
    redirected = _add(tree, "redirected", ledger["redirected"])
    drops = ledger["kernel_drops"]
    if sum(drops.values()):
        _add(redirected, "dropped by the kernel", sum(drops.values()), drops)
    received = _add(redirected, "received", ledger["received"])
    for verdict, n in ledger["verdicts"].items():
        if not n:
            continue
        branch = _add(received, verdict, n)
        if verdict == "PASS":
            _add_outcome(branch, "passed", ledger["passed"], ledger["pass_refused"])
        elif verdict == "TX" and not ledger["forwarded"]:
            _add_outcome(branch, "sent", ledger["sent"], ledger["refused"])
    if ledger["forwarded"]:
        out = _add(tree, "to be sent", ledger["verdicts"]["TX"] + ledger["forwarded"])
        _add_outcome(out, "sent", ledger["sent"], ledger["refused"])
    residual = ledger["residual"]
    style = "green" if residual == 0 else "bold red"
    tree.add(Text(f"residual {residual:,}", style=style))
    return tree


def reports(stages: list[Status]) -> list[RenderableType]:
    """Draw what stages report besides counters."""
    drawn: list[RenderableType] = []
    for stage in stages:
        for report in stage["reports"]:
            where = f" (queue {report['queue']})" if "queue" in report else ""
            tree = Tree(f"[bold]{stage['name']}[/bold]{where}")
            for name, value in report.items():
                if name == "queue" or name.startswith("_"):  # for programs
                    continue
                if isinstance(value, dict):
                    branch = tree.add(str(name))
                    for key, item in value.items():
                        branch.add(Text(f"{key}  {item}"))
                elif isinstance(value, list):
                    branch = tree.add(str(name))
                    if _are_rows(value):
                        branch.add(_rows(value))
                        continue
                    for item in value:
                        branch.add(Text(item if isinstance(item, str) else json.dumps(item)))
                else:
                    tree.add(Text(f"{name}  {value}"))
            drawn.append(tree)
    return drawn


def _are_rows(items: list[Any]) -> bool:
    """Return whether these are rows of a table: dicts of the same keys, with single values."""
    return bool(items) and all(
        isinstance(item, dict)
        and list(item) == list(items[0])
        and not any(isinstance(value, dict | list) for value in item.values())
        for item in items
    )


def _rows(items: list[dict[str, Any]]) -> Table:
    """Draw dicts of the same keys as a table, numbers to the right."""
    table = _table()
    for name in items[0]:
        numbers = all(isinstance(item[name], int | float) for item in items)
        table.add_column(str(name), justify="right" if numbers else "left", no_wrap=numbers)
    for item in items:
        table.add_row(*(Text(_cell(value)) for value in item.values()))
    return table


def _cell(value: Any) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{value:,}"
    return "" if value is None else str(value)


def ports_table(ports: list[Status]) -> Table:
    """Draw a row for each port: what came by it, and what went out."""
    table = _table()
    table.add_column("port")
    table.add_column("interface")
    for heading in ("seen", "to the kernel", "received", "lost", "sent", "refused"):
        table.add_column(heading, justify="right", no_wrap=True)
    for port in ports:
        table.add_row(
            port["name"], port["dev"], count(port["seen"]),
            count(sum(port["to_kernel"].values())), count(port["received"]),
            count(port["redirect_failed"] + sum(port["kernel_drops"].values())),
            count(port["sent"]), count(sum(port["refused"].values())),
        )  # fmt: skip
    return table


def sets_table(sets: list[Status]) -> Table:
    """Draw a row for each set of addresses: what is in it, and what it decided."""
    table = _table()
    table.add_column("set")
    table.add_column("kind")
    for heading in ("entries", "packets", "added", "expired", "refused", "lost"):
        table.add_column(heading, justify="right", no_wrap=True)
    for each in sets:
        names = ("entries", "packets", "added", "expired", "refused", "lost_on_the_way")
        table.add_row(
            each["name"], f"{each['kind']} {each['match']}", *(count(each[name]) for name in names)
        )
    return table


def recordings_table(recordings: list[Status]) -> Table:
    """Draw a row for each stage that has packets or flows written, of a queue."""
    table = _table()
    for heading in ("recorded by", "queue", "written", "waiting", "lost", "file"):
        side = "left" if heading == "recorded by" else "right"
        table.add_column(heading, justify=side, no_wrap=True)  # type: ignore[arg-type]
    table.add_column("directory")
    for each in recordings:
        names = ("packets", "waiting", "lost", "file")
        table.add_row(
            each["stage"], str(each["queue"]), *(count(each[name]) for name in names),
            each["directory"],
        )  # fmt: skip
    return table


def _recordings(status: Status) -> list[RenderableType]:
    return [recordings_table(status["recordings"])] if status["recordings"] else []


def _sets(status: Status) -> list[RenderableType]:
    return [sets_table(status["sets"])] if status["sets"] else []


def _ports(status: Status) -> list[RenderableType]:
    return [ports_table(status["ports"])] if len(status["ports"]) > 1 else []


def live(now: Status, before: Status | None) -> RenderableType:
    """Draw a running pipeline."""
    ledger = now["ledger"]
    to_kernel = sum(ledger["to_kernel"].values())
    where = ", ".join(
        f"{port['name']}{'=' if port['name'] else ''}{port['dev']} ({port['driver']}), "
        f'filter "{port["filter"]}"'
        for port in now["ports"]
    )
    head = Text.assemble(
        (now["name"], "bold"),
        f" on {where}, default {now['default']}, {now['uptime_s']:.0f} s",
    )
    line = Text(
        f"seen {count(ledger['seen'])}   to the kernel {count(to_kernel)}   "
        f"taken {count(ledger['redirected'])}"
    )
    return Group(
        head,
        workers_table(now, before),
        *_ports(now),
        *_sets(now),
        *_recordings(now),
        stages_table(now["stages"]),
        *over_budget(now["stages"]),
        line,
    )


def final(status: Status) -> RenderableType:
    """Draw how a pipeline ended: workers, stages, ledger."""
    return Group(
        workers_table(status, None),
        *_ports(status),
        *_sets(status),
        *_recordings(status),
        stages_table(status["stages"]),
        *over_budget(status["stages"]),
        *reports(status["stages"]),
        ledger_tree(status["ledger"]),
    )


def checked(result: Status) -> RenderableType:
    """Draw the result of a check."""
    verdicts = ", ".join(f"{name} {n:,}" for name, n in result["verdicts"].items() if n)
    lines: list[RenderableType] = [
        Text(f"{result['capture']}: {result['packets']:,} packets, {result['link_type']}"),
        stages_table(result["stages"]),
        *over_budget(result["stages"]),
        *reports(result["stages"]),
        Text(f"verdicts: {verdicts}  (undecided became {result['default']})", style="bold"),
    ]
    if result["not_taken"]:
        lines.append(Text(f"not taken by the filter: {result['not_taken']:,}"))
    if result["truncated"]:
        at = result["truncated"]
        lines.append(
            Text(
                f"the file ends early: after packet {at['after_packets']:,}, at byte "
                f"{at['offset']:,}: {at['reason']}",
                style="yellow",
            )
        )
    return Group(*lines)
