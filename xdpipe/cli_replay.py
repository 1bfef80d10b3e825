"""The command replay: put a capture on a link, changed on the way if one likes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from xdpipe import cli_edits
from xdpipe.cli_both_ends import Measuring, measuring_options, send_or_measure
from xdpipe.cli_edits import edit_options
from xdpipe.cli_options import json_option
from xdpipe.cli_sending import Sending, options_of, sending_options

if TYPE_CHECKING:
    from xdpipe.traffic.edits import Edits

_BATCH = 4096


@click.command()
@click.argument("capture")
@click.option("--dev", help="Interface.")
@click.option(
    "-w", "--write", "file", metavar="FILE",
    help="Send nothing: write the packets, edited, to a capture; - is stdout.",
)  # fmt: skip
@edit_options
@sending_options
@measuring_options
@json_option
@click.pass_context
def replay(ctx: click.Context, /, capture: str, dev: str | None, file: str | None, edits: Edits,
           as_json: bool, **values: Any) -> None:  # fmt: skip
    """Put the packets of CAPTURE on a link, at the times at which they were recorded."""
    if (file is None) == (dev is None):
        raise click.UsageError("say where to: --dev DEV or -w FILE")
    if file is not None:
        cli_edits.refuse_others(ctx, ("capture", "file", "as_json"))
        cli_edits.write(capture, edits, file, as_json=as_json)
        return
    assert dev is not None
    asked = Measuring.of(values)
    options = options_of(values)
    from xdpipe.link import Link

    mtu = Link.find(dev).mtu if edits.truncate else None
    with cli_edits.open_edited(capture, edits, batch_size=_BATCH, link_mtu=mtu) as source:
        send_or_measure(Sending(source, capture, dev, options, as_json), asked)
