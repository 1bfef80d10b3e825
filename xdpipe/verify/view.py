"""What people look at: what was recorded, and what is not as recorded."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import RenderableType

_NUMBERS = 10
"""Packets that the hint names."""
_WRITTEN = ("DROP", "TX", "PASS", "FORWARD")
"""Verdicts whose packets `check` writes to a file."""


def recorded(result: Mapping[str, Any]) -> RenderableType:
    """Draw what was recorded."""
    rewritten = f", {result['rewritten']:,} rewritten" if result["rewritten"] else ""
    return Text(
        f"{result['capture']}: {result['packets']:,} packets ({_totals(result['verdicts'])}"
        f"{rewritten}), written down in {result['recorded']}"
    )


def verified(result: Mapping[str, Any], file: str) -> list[RenderableType]:
    """Draw what is not as recorded, or that everything is; texts are not to be wrapped."""
    live = result["live"]
    if live is not None:
        return _live(result, live)
    if result["equal"]:
        return [_equal(result)]
    head = (
        f"{result['capture']}: {result['different']:,} of {result['packets']:,} packets "
        f"are not as recorded in {result['expect']}"
    )
    return [Text(head, style="bold red"), *_differences(result), *_hints(result, file)]


def _equal(result: Mapping[str, Any]) -> Text:
    verdicts = _totals(result["verdicts"]["now"])
    ignored = _ignored(result)
    return Text(f"{result['capture']}: {result['packets']:,} packets as recorded ({verdicts})"
                f"{ignored}", style="green")  # fmt: skip


def _live(result: Mapping[str, Any], live: Mapping[str, Any]) -> list[RenderableType]:
    what = f"{live['compared']:,} packets"
    lines: list[RenderableType] = [_equal({**result, "live": None})]
    if live["equal"]:
        lines.append(Text(f"live: {what} as recorded{_ignored(live)}", style="green"))
    else:
        head = f"live: {live['different']:,} of {what} are not as recorded"
        lines += [Text(head, style="bold red"), *_differences({**result, **live})]
    if live["unsent"]:
        reasons: dict[str, list[int]] = {}
        for each in live["unsent"]:
            reasons.setdefault(each["why"], []).append(each["number"])
        for why, numbers in reasons.items():
            lines.append(Text(f"not sent: {len(numbers):,} packets, {why}: {_some(numbers)}"))
    if live["by_sets"]:
        lines.append(
            Text(
                f"{live['by_sets']:,} packets were decided by sets of addresses in the kernel, "
                "which a capture does not have",
                style="yellow",
            )
        )
    return lines


def _differences(result: Mapping[str, Any]) -> list[RenderableType]:
    lines: list[RenderableType] = []
    if result["differences"]:
        lines.append(_packets(result))
    n_more = result["different"] - len(result["differences"])
    if n_more:
        lines.append(Text(f"and {n_more:,} packets more; --show N shows more of them"))
    if result["counters"]:
        lines.append(_counters(result["counters"]))
    if result["verdicts"]["recorded"] != result["verdicts"]["now"]:
        lines.append(
            Text(
                f"recorded: {_totals(result['verdicts']['recorded'])}\n"
                f"now:      {_totals(result['verdicts']['now'])}"
            )
        )
    numbers = [each["number"] for each in result["differences"]][:_NUMBERS]
    if numbers:
        wanted = ",".join(map(str, numbers))
        lines.append(
            Text(f"look at them: tshark -r {result['capture']} -Y 'frame.number in {{{wanted}}}'")
        )
    return lines


def _hints(result: Mapping[str, Any], file: str) -> list[RenderableType]:
    """Say how to go on where something differs over the capture."""
    lines: list[RenderableType] = []
    verdict = next((each["now"].partition(" ")[0] for each in result["differences"]), "")
    if verdict in _WRITTEN:
        port = f" --port {result['port']}" if result["port"] else ""
        lines.append(
            Text(
                f"what is left of packets: xdpipe check {file} --pcap {result['capture']} --steer"
                f"{port} --write {verdict}={verdict.lower()}.pcap"
            )
        )
    lines.append(Text("if it is meant to be so, record it anew: --record EXPECT"))
    return lines


def _table() -> Table:
    return Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), collapse_padding=True)


def _packets(result: Mapping[str, Any]) -> Table:
    table = _table()
    table.add_column("packet", justify="right", no_wrap=True)
    table.add_column("time", no_wrap=True)
    table.add_column("from, to")
    table.add_column("recorded")
    table.add_column("now")
    for each in result["differences"]:
        second, ns = divmod(each["time_ns"], 1_000_000_000)
        clock = f"{time.strftime('%H:%M:%S', time.localtime(second))}.{ns // 1000:06}"
        now = each["now"] if each["now"] != each["recorded"] else ""
        if each["rewriting"]:
            now += f"{'; ' if now else ''}rewritten otherwise: {each['rewriting']}"
        cells = (str(each["number"]), clock, each["summary"], each["recorded"], now)
        table.add_row(*map(Text, cells))
    return table


def _counters(counters: list[Mapping[str, Any]]) -> Table:
    table = _table()
    table.add_column("counter")
    for heading in ("recorded", "now"):
        table.add_column(heading, justify="right", no_wrap=True)
    for each in counters:
        cells = ("-" if each[key] is None else f"{each[key]:,}" for key in ("recorded", "now"))
        table.add_row(Text(each["name"]), *cells)
    return table


def _totals(verdicts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {n:,}" for name, n in verdicts.items() if n) or "none"


def _ignored(result: Mapping[str, Any]) -> str:
    names = result["ignored"]
    return f"; ignored: {', '.join(names)}" if names else ""


def _some(numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[:_NUMBERS]))
    return shown if len(numbers) <= _NUMBERS else f"{shown}, …"
