"""The command verify: does a pipeline make of a capture what it once made of it?"""

from __future__ import annotations

import json
import sys
import time
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from xdpipe.cli_console import make_console
from xdpipe.cli_options import json_option
from xdpipe.errors import XdpipeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import Console

    from xdpipe.pipeline import Pipeline
    from xdpipe.verify.live import Bench
    from xdpipe.verify.outcome import Outcome

DIFFERENT = 3
"""The exit code when something is not as recorded."""
_BESIDE = ".expect.json"
_CAPTURES = (".pcap", ".pcapng", ".pcap.gz", ".pcapng.gz")
_TICK_S = 0.25


@dataclass(frozen=True)
class _Job:
    """A capture, and where is written down what is to become of it."""

    capture: str
    expect: str


@dataclass(frozen=True)
class _Options:
    """What the command line says for every capture; see the command."""

    file: str
    port: str | None
    batch_size: int | None
    ignore: tuple[str, ...]
    show: int
    live: bool
    console: Console


@click.command()
@click.argument("file")
@click.option("--pcap", "capture", help="A pcap or pcapng file; gzip will do.")
@click.option("--expect", metavar="EXPECT", help="Compare with what was recorded in this file.")
@click.option("--record", metavar="EXPECT", help="Write this file, for later comparisons.")
@click.option("--dir", "directory", metavar="DIR",
              help="Compare every capture of a directory with CAPTURE.expect.json beside "
              "it.")  # fmt: skip
@click.option("--record-all", is_flag=True,
              help="With --dir: write those files instead.")  # fmt: skip
@click.option("--live", is_flag=True,
              help="Then run the pipeline on a veth pair in private namespaces, send it the "
              "capture, and compare that as well; needs root.")  # fmt: skip
@click.option("--show", type=click.IntRange(min=0), default=20, show_default=True,
              help="How many of the packets that differ are shown.")  # fmt: skip
@click.option("--ignore-counter", "ignore", multiple=True, metavar="STAGE.NAME",
              help="A counter that need not be the same; with * and ? several.")  # fmt: skip
@click.option("--port", help="Record with packets that come by this port. Default: the first.")
@click.option("--batch", "batch_size", type=click.IntRange(1, 65536),
              help="Record with so many packets in a batch at the most. Default: 512.")  # fmt: skip
@json_option
@click.pass_context
def verify(ctx: click.Context, file: str, capture: str | None, expect: str | None,
           record: str | None, directory: str | None, record_all: bool, live: bool,
           show: int, ignore: tuple[str, ...], port: str | None, batch_size: int | None,
           as_json: bool) -> None:  # fmt: skip
    """Compare what the pipeline of FILE makes of a capture with what it made of it before.

    Verdicts, rewritten bytes and counters, of the packets that its filter takes. Exit code 0: all
    is as recorded; 3: something is not; 1: it could not be told.
    """
    _check_usage(capture, expect, record, directory, record_all, live, port, batch_size)
    options = _Options(
        file, port, batch_size, ignore, show, live, make_console(stderr=True, highlight=False)
    )
    writes = record is not None or record_all
    jobs = (
        [_Job(capture or "", record or expect or "")]
        if directory is None else _jobs(Path(directory), record_all)
    )  # fmt: skip
    with redirect_stdout(sys.stderr):  # what a user's file prints must not spoil what we tell
        results = []
        for job in jobs:
            results.append(_record(job, options) if writes else _verify(job, options))
            if not as_json:
                _tell(results[-1], options)
    if as_json:
        equal = {} if writes else {"equal": all(result["equal"] for result in results)}
        told = {"file": file, "dir": directory, **equal, "captures": results}
        print(json.dumps(told if directory is not None else {"file": file, **results[0]}))
    if not writes and not all(result["equal"] for result in results):
        ctx.exit(DIFFERENT)


def _check_usage(capture: str | None, expect: str | None, record: str | None,
                 directory: str | None, record_all: bool, live: bool, port: str | None,
                 batch_size: int | None) -> None:  # fmt: skip
    if directory is not None:
        if capture or expect or record:
            raise click.UsageError("--dir DIR goes without --pcap, --expect and --record")
    elif capture is None:
        raise click.UsageError("--pcap CAPTURE is missing, or --dir DIR for all of a directory")
    elif (expect is None) == (record is None):
        raise click.UsageError("say --expect EXPECT to compare, or --record EXPECT to write it")
    if record_all and directory is None:
        raise click.UsageError("--record-all goes with --dir DIR")
    writes = record is not None or record_all
    if writes and live:
        raise click.UsageError("--live compares; record without it")
    if not writes and (port is not None or batch_size is not None):
        raise click.UsageError("--port and --batch are as recorded; give them when you record")


def _jobs(directory: Path, record_all: bool) -> list[_Job]:
    """Return the captures of a directory, in order of their names.

    Raises:
        XdpipeError: there are none; one has not been recorded; one is missing.
    """
    try:
        names = sorted(path.name for path in directory.iterdir() if path.is_file())
    except OSError as error:
        raise XdpipeError(f"{directory}: {error.strerror}") from error
    captures = [name for name in names if name.endswith(_CAPTURES)]
    if not captures:
        raise XdpipeError(f"{directory}: no captures in it, *{', *'.join(_CAPTURES)}")
    recorded = [name.removesuffix(_BESIDE) for name in names if name.endswith(_BESIDE)]
    if not record_all:
        for name in sorted({*captures} - {*recorded}):
            raise XdpipeError(
                f"{directory / name}: nothing is recorded of it; record it: "
                f"--record {directory / name}{_BESIDE}"
            )
        for name in sorted({*recorded} - {*captures}):
            raise XdpipeError(f"{directory / name}: gone, but {name}{_BESIDE} is there")
    return [_Job(f"{directory / name}", f"{directory / name}{_BESIDE}") for name in captures]


def _record(job: _Job, options: _Options) -> dict[str, Any]:
    from xdpipe.verify import outcome, write

    port, size = options.port, options.batch_size or outcome.BATCH_SIZE
    with _reading(job, options) as progress:
        done = outcome.observe(
            _load(options), job.capture, port=port, batch_size=size, progress=progress
        )
    write(done, job.expect)
    return {
        "capture": job.capture, "recorded": job.expect, "packets": len(done),
        "verdicts": done.totals(), "rewritten": len(done.rewritten),
    }  # fmt: skip


def _verify(job: _Job, options: _Options) -> dict[str, Any]:
    from xdpipe.verify import CaptureId, compare, observe, read

    recorded = read(job.expect)
    which = CaptureId.of(job.capture)
    if which.sha256 != recorded.capture.sha256:
        was = recorded.capture
        raise XdpipeError(
            f"{job.capture}: another capture than the one that {job.expect} is about: {was.name}, "
            f"{was.n_bytes:,} bytes, SHA-256 {was.sha256[:16]}…, not {which.n_bytes:,} bytes, "
            f"{which.sha256[:16]}…"
        )
    pipeline = _load(options)
    with ExitStack() as stack:
        bench = None
        if options.live:  # before all else: it may not be allowed
            from xdpipe.verify.live import Bench

            bench = stack.enter_context(Bench(pipeline.ports, recorded.port))
        with _reading(job, options) as progress:
            now = observe(
                pipeline, job.capture, port=recorded.port, batch_size=recorded.batch_size,
                progress=progress,
            )  # fmt: skip
        comparison = compare(recorded, now, ignore=options.ignore)
        result = {
            "capture": job.capture, "expect": job.expect, "port": recorded.port,
            **comparison.to_dict(job.capture, options.show), "live": None,
        }  # fmt: skip
        if bench is not None and comparison.equal:
            result["live"] = _live(job, options, bench, now)
            result["equal"] = result["live"]["equal"]
    return result


def _live(job: _Job, options: _Options, bench: Bench, recorded: Outcome) -> dict[str, Any]:
    from rich.progress import Progress

    from xdpipe.verify import compare
    from xdpipe.verify.live import observe_live, why_unsent

    console = options.console
    bar = Progress(console=console, transient=True, disable=not console.is_terminal)
    task = bar.add_task(f"{Path(job.capture).name}, live", total=None)

    def progress(n: int, total: int) -> None:
        bar.start()
        bar.update(task, completed=n, total=total)

    try:
        outcome = observe_live(
            options.file, job.capture, bench, recorded, why_unsent(job.capture),
            tell=lambda text: console.print(text, markup=False, soft_wrap=True), progress=progress,
        )  # fmt: skip
    finally:
        bar.stop()
    comparison = compare(
        outcome.recorded, outcome.now, ignore=options.ignore, among=outcome.is_sent()
    )
    unsent = [{"number": n + 1, "why": why} for n, why in outcome.unsent.items()]
    return {
        **comparison.to_dict(job.capture, options.show), "unsent": unsent,
        "by_sets": outcome.by_sets,
    }  # fmt: skip


def _tell(result: dict[str, Any], options: _Options) -> None:
    from rich.text import Text

    from xdpipe.verify import view

    console = make_console(file=sys.__stdout__, highlight=False)
    drawn = [view.recorded(result)] if "recorded" in result else view.verified(result, options.file)
    for each in drawn:
        console.print(each, soft_wrap=isinstance(each, Text))


def _load(options: _Options) -> Pipeline:
    from xdpipe.pipeline import load_pipeline

    return load_pipeline(options.file)


@contextmanager
def _reading(job: _Job, options: _Options) -> Iterator[Callable[[int], None]]:
    """Show meanwhile how many packets have been read."""
    name = Path(job.capture).name
    with options.console.status(f"{name}: reading…") as status:
        shown = 0.0

        def progress(n: int) -> None:
            nonlocal shown
            if time.monotonic() - shown > _TICK_S:
                shown = time.monotonic()
                status.update(f"{name}: {n:,} packets")

        yield progress
