"""The command tap: look on at a pipeline that runs."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import TYPE_CHECKING

import click

from xdpipe.cli_console import make_console
from xdpipe.cli_options import json_option
from xdpipe.cli_runs import find_run
from xdpipe.errors import XdpipeError

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    from xdpipe.tap_command import TapReader

_VERDICTS = ("UNDECIDED", "DROP", "TX", "PASS", "FORWARD")
_WITHOUT_END = 1 << 62
_SHOW_S = 0.25


class _Output:
    """Where copies go: lines on a terminal, or a capture file.

    Args:
        path: of the file; "-": stdout; None: lines on stdout.
    """

    def __init__(self, path: str | None) -> None:
        self.path = path
        self.fd = -1
        if path == "-":
            if sys.stdout.isatty():
                raise XdpipeError("-w -: a capture is not for a terminal; pipe it: | tshark -r -")
            self.fd = sys.stdout.fileno()
        elif path is not None:
            try:
                self.fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
            except OSError as error:
                raise XdpipeError(f"{path}: {error.strerror}") from error

    def write(self, reader: TapReader, blocks: memoryview) -> None:
        """Write blocks down.

        Raises:
            OSError: nobody reads any more, or the disk is full.
        """
        from xdpipe.tap_command import packets, show, write_all

        if self.path is None:
            for seen in packets(blocks, reader.interfaces):
                print(show(seen))
            sys.stdout.flush()
        else:
            write_all(self.fd, blocks)


@click.command()
@click.argument("name")
@click.option("--stage", "stages", multiple=True, metavar="STAGE",
              help="See packets as this stage left them. `in`: before all stages; `out`, the "
              "default: as they leave. May be given several times.")  # fmt: skip
@click.option("--filter", "expression", default="", metavar="EXPR",
              help="See packets that this tcpdump filter takes.")  # fmt: skip
@click.option("--verdict", type=click.Choice(_VERDICTS, case_sensitive=False),
              help="See packets that have this verdict.")  # fmt: skip
@click.option("-w", "--write", "path", metavar="FILE",
              help="Write a capture (pcapng) instead of lines; - for stdout.")  # fmt: skip
@click.option("--count", type=click.IntRange(min=1), help="End after so many packets.")
@click.option("--snaplen", type=click.IntRange(1, 262144), default=262144,
              help="Bytes of each packet at the most.")  # fmt: skip
@click.option("--buffer-mib", type=click.IntRange(1, 4096), default=16, show_default=True,
              help="Memory for copies that wait, for each queue.")  # fmt: skip
@json_option
def tap(name: str, stages: tuple[str, ...], expression: str, verdict: str | None,
        path: str | None, count: int | None, snaplen: int, buffer_mib: int,
        as_json: bool) -> None:  # fmt: skip
    """Look on at the running pipeline NAME (or that runs on the interface NAME).

    Prints a line for each packet, or writes a capture, until Ctrl-C. The pipeline waits for nobody:
    what finds no room is counted as lost, in the capture too.
    """
    from xdpipe.foreground import StopSignal
    from xdpipe.tap_command import TapReader, TapRequest, load_summaries

    if as_json and path in (None, "-"):
        raise XdpipeError("--json: what was captured goes to a file; add -w FILE")
    run_dir = find_run(name)
    if path is None:
        load_summaries()
    request = TapRequest(
        stages or ("out",), verdict and verdict.upper(), expression, snaplen, buffer_mib << 20
    )
    console = make_console(stderr=True, highlight=False)
    with StopSignal(insist=True) as stop, TapReader(run_dir, request) as reader:
        output = _Output(path)
        _become_nobody()
        try:
            _follow(reader, output, count or _WITHOUT_END, console, lambda: stop.came)
        except BrokenPipeError:  # who read it has had enough
            if path in (None, "-"):  # nor is anything of it left to be flushed
                os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        except OSError as error:
            raise XdpipeError(f"{path or 'stdout'}: {error.strerror}") from error
        told = {"packets": reader.n_packets, "lost": reader.n_lost, "ended": reader.ended}
    if as_json:
        print(json.dumps({"file": path, **told}))
    else:
        why = "; the pipeline has ended" if reader.ended else ""
        console.print(f"{told['packets']:,} packets, {told['lost']:,} lost{why}")


def _follow(
    reader: TapReader, output: _Output, n_packets: int, console: Console, stop: Callable[[], bool]
) -> None:
    from xdpipe.tap_command import write_all

    late = reader.wait_attached(stop)
    if late:
        queues = ", ".join(map(str, late))
        console.print(f"queue {queues}: no worker answers; its packets are not seen until one does")
    if output.path is None:
        _until_stop(reader, output, n_packets, stop, lambda: None)
        return
    write_all(output.fd, reader.head())
    with console.status("") as status:
        told_at = 0.0

        def show() -> None:
            nonlocal told_at
            if time.monotonic() - told_at > _SHOW_S:
                told_at = time.monotonic()
                status.update(f"{reader.n_packets:,} packets, {reader.n_lost:,} lost")

        _until_stop(reader, output, n_packets, stop, show)
    write_all(output.fd, reader.statistics())


def _until_stop(
    reader: TapReader,
    output: _Output,
    n_packets: int,
    stop: Callable[[], bool],
    show: Callable[[], None],
) -> None:
    """Write down what comes, until it is enough; of what came before a stop all."""
    stopping = False
    while True:
        if not stopping and (stop() or reader.ended):
            stopping = True
            reader.take_no_more()
        n_before = reader.n_packets
        for blocks in reader.read(n_packets - n_before):
            output.write(reader, blocks)
        if reader.n_packets >= n_packets or (stopping and reader.n_packets == n_before):
            return
        show()
        if reader.n_packets == n_before:
            reader.wait()


def _become_nobody() -> None:
    """Give up all privilege: what comes is looked into, and is whatever somebody sent."""
    from xdpipe.privilege import drop_all, find_user, outlive_parent, renounce

    renounce()
    drop_all(find_user("nobody"))
    outlive_parent()
