"""What commands that send a capture take to change its packets on the way, and to write them."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from xdpipe.cli_console import make_console, working

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from xdpipe.traffic.capture_source import CaptureSource
    from xdpipe.traffic.edited_copy import EditedCopy
    from xdpipe.traffic.edits import Edits

_NAMES = (
    "filter", "edit", "map_ip", "map_mac", "map_port", "vlan", "mtu", "truncate", "fix_checksums",
)  # fmt: skip
_BATCH = 4096
REASONS = {
    "filter": "not taken by the filter",
    "edit": "removed by the function",
    "too_long": "longer than the MTU",
}


def edit_options(command: Any) -> Any:
    """Add the options to a command, which is given one `Edits` as `edits`."""

    @wraps(command)
    def with_edits(**values: Any) -> Any:
        given = {name: values.pop(name) for name in _NAMES}
        return command(edits=_edits(**given), **values)

    for option in reversed(
        (
            click.option(
                "--filter", metavar="EXPR", default="",
                help="Only packets that this tcpdump filter takes, as they are in the capture.",
            ),
            click.option(
                "--edit", metavar="FILE",
                help="Python file with edit(packet): each packet, as scapy's, becomes what it "
                "returns: a packet, a list of them, or None.",
            ),
            click.option(
                "--map-ip", multiple=True, metavar="NET=NET",
                help="Addresses of the first network become ones of the second, in IPv4, IPv6 and "
                "ARP; the host bits of the narrower one stay. May be said several times.",
            ),
            click.option(
                "--map-mac", multiple=True, metavar="MAC=MAC",
                help="The same for MAC addresses, of Ethernet and ARP.",
            ),
            click.option(
                "--map-port", multiple=True, metavar="PORT=PORT",
                help="The same for ports of TCP and UDP, or ranges: 8000-8009=9000-9009.",
            ),
            click.option(
                "--vlan", metavar="VID[:PRIORITY]",
                help="Put packets into this VLAN: the outer tag's, or a new tag's; none: take tags "
                "out.",
            ),
            click.option(
                "--mtu", type=click.IntRange(68, 65536),
                help="Leave out packets that have more bytes behind Ethernet header and tags. "
                "Default: the link's.",
            ),
            click.option(
                "--truncate", is_flag=True,
                help="Cut packets that are too long, rather than leave them out.",
            ),
            click.option(
                "--fix-checksums", is_flag=True,
                help="Compute the checksums of IPv4, TCP, UDP, ICMP and ICMPv6 anew.",
            ),
        )
    ):  # fmt: skip
        with_edits = option(with_edits)
    return with_edits


def _edits(edit: str | None, map_ip: tuple[str, ...], map_mac: tuple[str, ...],
           map_port: tuple[str, ...], vlan: str | None, **others: Any) -> Edits:  # fmt: skip
    from xdpipe.traffic import edits

    return edits.Edits(
        edit=None if edit is None else Path(edit),
        map_ip=tuple(map(edits.parse_map_ip, map_ip)),
        map_mac=tuple(map(edits.parse_map_mac, map_mac)),
        map_port=tuple(map(edits.parse_map_port, map_port)),
        vlan=None if vlan is None else edits.parse_vlan(vlan),
        **others,
    )


@contextmanager
def open_edited(capture: str, edits: Edits, **options: Any) -> Iterator[CaptureSource]:
    """Yield the source of a capture's packets, with a bar while a user's function is called.

    Args:
        capture: path.
        edits: what becomes of the packets.
        options: further ones of CaptureSource.
    """
    from xdpipe.traffic.capture_source import CaptureSource

    with _editing(shown=edits.edit is not None and sys.stderr.isatty()) as progress:
        source = CaptureSource(capture, edits, progress=progress, **options)
    try:
        yield source
    finally:
        source.close()


@contextmanager
def _editing(*, shown: bool) -> Iterator[Callable[[int, int], None] | None]:
    """Yield what draws a bar when it is told how many packets are done, and of how many."""
    if not shown:
        yield None
        return
    from rich.progress import Progress

    with Progress(console=make_console(stderr=True), transient=True) as bar:
        task = bar.add_task("editing", total=None)
        yield lambda n, total: bar.update(task, completed=n, total=total)


def refuse_others(ctx: click.Context, names: Sequence[str]) -> None:
    """Refuse options about sending, which nothing that is written to a file would heed.

    Args:
        ctx: of the command.
        names: of parameters that are heeded, beside those of edits.
    """
    for parameter in ctx.command.params:
        name = str(parameter.name)
        given = ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if given and name not in (*names, *_NAMES):
            raise click.UsageError(f"{parameter.opts[0]} is about sending, and -w sends nothing")


def write(capture: str, edits: Edits, file: str, *, as_json: bool) -> None:
    """Write a capture's packets, edited, to another, and say what became of them.

    Args:
        capture: path.
        edits: what becomes of the packets.
        file: path, or `-`.
        as_json: print one object on stdout.
    """
    from xdpipe.foreground import StopSignal
    from xdpipe.traffic.edited_copy import require_another, write_copy

    if as_json and file == "-":
        raise click.UsageError("--json and -w -: both are for standard output")
    require_another(capture, file)
    with (
        open_edited(capture, edits, batch_size=_BATCH) as source,
        StopSignal(insist=True) as stop,
        working("writing…") as say,
    ):
        result = write_copy(
            source, file, stop=lambda: stop.came,
            progress=lambda n: say(f"{n:,} packets"),
        )  # fmt: skip
    if as_json:
        print(json.dumps({"capture": capture, "file": file, **result.to_dict()}))
    else:
        _tell(result, capture, file)


def _tell(result: EditedCopy, capture: str, file: str) -> None:
    console = make_console(highlight=False, soft_wrap=True, stderr=file == "-")
    console.print(
        f"{capture} to {file}: wrote {result.written:,} of {result.read:,} packets", markup=False
    )
    if result.added:
        console.print(f"added by the function: {result.added:,}")
    for reason, n in result.left_out.items():
        if n:
            console.print(f"left out, {REASONS[reason]}: {n:,}")
    if result.truncated:
        console.print(f"the file ends early: {result.truncated}", markup=False)
    if result.interrupted:
        console.print("ended before the last packet")
