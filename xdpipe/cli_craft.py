"""`xdpipe craft`: packets made of a scapy template or of a ready-made mix, to a file or a link."""

from __future__ import annotations

import json
import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import click

from xdpipe.cli_both_ends import Measuring, measuring_options, send_or_measure
from xdpipe.cli_console import make_console, working
from xdpipe.cli_options import Count, json_option
from xdpipe.cli_sending import Sending, options_of, sending_options
from xdpipe.errors import XdpipeError

if TYPE_CHECKING:
    from rich.console import Console

    from xdpipe.traffic.mixes import Mix
    from xdpipe.traffic.plan import Plan
    from xdpipe.traffic.recipe import Recipe

_BATCH = 4096
_MOST_BY_DEFAULT = 10_000_000
"""Packets that are made where nobody says how many."""


@click.command()
@click.argument("template", required=False)
@click.option("--mix", "mix_name", metavar="NAME", help="A ready-made mix (see --list).")
@click.option(
    "--list", "listing", is_flag=True,
    help="Say which mixes there are; with --mix, the packets of one.",
)  # fmt: skip
@click.option(
    "--vary", "vary", multiple=True, metavar="LAYER.FIELD=VALUES",
    help="What differs from flow to flow: 1024-65535, 0-100+10, 1,2,5, 10.0.0.0/16, random, "
    "random:1024-65535, or @FILE with a value a line; IP:2 is the second IP layer.",
)  # fmt: skip
@click.option(
    "--flows", type=Count(), help="How many combinations of values to go round. Default: all."
)
@click.option("--count", type=Count(), help="Packets, such as 1e6. Default: each flow once.")
@click.option(
    "--size",
    help="Bytes of a frame with its checksum: 64, 64,512,1518, 64:7,594:4,1518:1, 64-1518, or "
    "imix, which is the third. Default: as the template is.",
)
@click.option(
    "--seed", type=click.IntRange(0, (1 << 64) - 1),
    help="Have values in an order that looks random, made of this number.",
)  # fmt: skip
@click.option("-w", "--write", "file", metavar="FILE", help="A capture to write; - is stdout.")
@click.option("--dev", help="An interface to send by.")
@sending_options
@measuring_options
@json_option
def craft(template: str | None, mix_name: str | None, listing: bool, vary: tuple[str, ...],
          flows: int | None, count: int | None, size: str | None, seed: int | None,
          file: str | None, dev: str | None, as_json: bool, **values: Any) -> None:  # fmt: skip
    r"""Make packets of TEMPLATE, a scapy expression, and send them or write them to a capture.

    xdpipe craft 'IP(dst="10.0.0.2")/UDP(dport=53)' --vary IP.src=10.0.0.0/16 --count 1e6 -w x.pcap
    """
    from xdpipe.traffic.crafted import Crafted
    from xdpipe.traffic.mixes import MIXES, find_mix

    mix = None if mix_name is None else find_mix(mix_name)
    if listing:
        _list([mix] if mix else list(MIXES.values()), whole=mix is not None, as_json=as_json)
        return
    if (template is None) == (mix is None):
        raise click.UsageError("say a template, or --mix NAME (--list shows which)")
    if (file is None) == (dev is None):
        raise click.UsageError("say where to: -w FILE or --dev DEV")
    if as_json and file == "-":
        raise click.UsageError("--json and -w -: both are for standard output")
    asked = Measuring.of(values)
    options = options_of(values, top_by_default=asked.search is None)
    recipe = _recipe(template, mix, vary, flows, size, seed, options.pace.pps)
    with working("building templates…") as say:
        plan = recipe.plan(lambda n: say(f"building templates… {n:,}"))
    n_packets = _count(plan, count)
    if dev is not None:
        source = Crafted(plan, n_packets, batch_size=_BATCH)
        what = mix_name or "crafted packets"
        sending = Sending(source, what, dev, options, as_json, lambda: _made(plan))
        try:
            send_or_measure(sending, asked)
        finally:
            source.close()
        return
    assert file is not None
    result: dict[str, Any] = {"packets": 0, "bytes": 0}
    _write(plan, n_packets, file, result)
    if as_json:
        print(json.dumps(result))
    else:
        _tell(result, file, make_console(highlight=False, stderr=file == "-"))


def _recipe(template: str | None, mix: Mix | None, vary: tuple[str, ...], flows: int | None,
            size: str | None, seed: int | None, pps: float | None) -> Recipe:  # fmt: skip
    from xdpipe.traffic.recipe import Ingredient, Recipe
    from xdpipe.traffic.sizes import Sizes

    sizes = None if size is None else Sizes.parse(size)
    if mix is None:
        assert template is not None
        return Recipe((Ingredient("packet", template),), vary, flows, sizes, seed, pps=pps)
    return Recipe(
        tuple(mix.make()), mix.varied(vary), flows, sizes or mix.sizes, seed, mix.together, pps
    )


def _count(plan: Plan, count: int | None) -> int:
    if count is not None:
        return count
    if plan.n_once > _MOST_BY_DEFAULT:
        raise XdpipeError(
            f"there are {plan.n_once:,} different packets; say how many: --count 1e6, or --flows"
        )
    return plan.n_once


def _write(plan: Plan, n_packets: int, file: str, result: dict[str, Any]) -> None:
    """Write the packets to a capture; tell in `result` what was done."""
    from rich.progress import Progress

    from xdpipe.foreground import StopSignal
    from xdpipe.traffic.capture_writer import BatchWriter
    from xdpipe.traffic.crafted import Crafted

    with ExitStack() as stack:
        stop = stack.enter_context(StopSignal(insist=True))
        bar = stack.enter_context(
            Progress(
                console=make_console(stderr=True), transient=True, disable=not sys.stderr.isatty()
            )
        )
        task = bar.add_task("crafting", total=n_packets)
        writer = stack.enter_context(BatchWriter(file))
        source = Crafted(plan, n_packets, headers=False)
        stack.callback(source.close)
        started = time.perf_counter()
        for batch in source:
            writer.write(batch)
            bar.update(task, completed=writer.n_packets)
            if stop.came:
                break
        writer.close()
        seconds = time.perf_counter() - started
    result.update(_made(plan), seconds=seconds, interrupted=writer.n_packets < n_packets)
    result["packets"] = writer.n_packets
    result["pps"] = round(writer.n_packets / seconds, 1) if seconds else 0.0
    result["file"] = file


def _made(plan: Plan) -> dict[str, Any]:
    made = plan.n_made()
    return {
        "packets": sum(made.values()),
        "bytes": plan.n_bytes,
        "flows": min(plan.n_flows, -(-sum(made.values()) // plan.hold)),
        "templates": plan.n_templates,
        "longer": plan.n_longer,
        "members": [{"name": name, "packets": n} for name, n in made.items()],
    }


def _tell(result: dict[str, Any], where: str, console: Console) -> None:
    console.print(
        f"{where}: wrote {result['packets']:,} packets in {result['seconds']:.2f} s, "
        f"{result['pps']:,.0f} packets/s; {result['flows']:,} flows, "
        f"{result['templates']:,} templates",
        markup=False, soft_wrap=True,
    )  # fmt: skip
    if result["longer"]:
        console.print(f"longer than asked for, as their template is: {result['longer']:,}")
    if result["interrupted"]:
        console.print("interrupted before the end")


def _list(mixes: list[Mix], *, whole: bool, as_json: bool) -> None:
    """Print what mixes there are; `whole`: their packets, too."""
    told = []
    for mix in mixes:
        entry: dict[str, Any] = {
            "name": mix.name, "doc": mix.doc, "vary": list(mix.vary), "size": mix.size,
        }  # fmt: skip
        if whole:
            entry["members"] = [
                {"name": name, "weight": each.weight, "bytes": n}
                for each in mix.make()
                for name, n in each.forms()
            ]
        told.append(entry)
    if as_json:
        print(json.dumps({"mixes": told}))
        return
    for entry in told:
        click.echo(f"{entry['name']:<16} {entry['doc']}")
        if whole:
            for text in entry["vary"]:
                click.echo(f"  --vary {text}")
        for member in entry.get("members", ()):
            click.echo(f"  {member['weight']:>3} {member['bytes']:>5} bytes  {member['name']}")
