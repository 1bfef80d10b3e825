"""The command line."""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import redirect_stdout
from typing import Any

import click

from xdpipe import (
    __version__,
    cli_craft,
    cli_lint,
    cli_measure,
    cli_replay,
    cli_runs,
    cli_tap,
    cli_verify,
)
from xdpipe.cli_console import make_console, working
from xdpipe.cli_options import Finite, Ranges, budget_option, json_option
from xdpipe.errors import XdpipeError
from xdpipe.process import ONE_THREAD

_TICK_S = 0.25


class _Group(click.Group):
    """Print an XdpipeError as one line and exit with 1."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run; what click has against the options becomes one line, too, and exit code 2."""
        try:
            result = super().main(*args, **{**kwargs, "standalone_mode": False})
            raise SystemExit(result if isinstance(result, int) else 0)
        except click.Abort:
            raise SystemExit(1) from None
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
            raise SystemExit(error.exit_code) from None
        except click.UsageError as error:
            path = error.ctx.command_path if error.ctx else "xdpipe"
            text = " ".join(error.format_message().split())
            click.echo(f"xdpipe: {text} (see: {path} --help)", err=True)
            raise SystemExit(error.exit_code) from None

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except XdpipeError as error:
            click.echo(f"xdpipe: {' '.join(str(error).split())}", err=True)
            ctx.exit(1)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="xdpipe")
def main() -> None:
    """Process packets at the speed of a NIC queue, with AF_XDP and Python."""
    for name, value in ONE_THREAD.items():  # before numpy is imported
        os.environ.setdefault(name, value)


@main.command()
@click.argument("file")
@click.option(
    "--dev", "devs", multiple=True, required=True, metavar="[PORT=]DEV",
    help="Interface; of a pipeline with several ports one for each, such as --dev inside=eth0.",
)  # fmt: skip
@click.option("--queues", type=Ranges(), help="Receive queues, such as 0-3. Default: all.")
@click.option("--cores", type=Ranges(), help="A CPU for each queue, such as 2-5.")
@click.option(
    "--mode",
    type=click.Choice(["auto", "zerocopy", "copy"]),
    default="auto",
    show_default=True,
    help="What to ask of the driver.",
)
@click.option(
    "--attach",
    type=click.Choice(["auto", "native", "generic"]),
    default="auto",
    show_default=True,
    help="How to attach the XDP program.",
)
@click.option("--duration", type=Finite(min=0), help="End after this many seconds.")
@click.option(
    "--batch",
    "batch_size",
    type=click.IntRange(1, 4096),
    default=512,
    show_default=True,
    help="Packets in a batch at the most.",
)
@click.option(
    "--spin-us",
    type=click.IntRange(0, 1_000_000),
    default=50,
    show_default=True,
    help="How long an idle worker looks at its ring before it sleeps; microseconds.",
)
@click.option("--user", default="nobody", show_default=True, help="Whom workers become.")
@click.option(
    "--watchdog",
    "watchdog_s",
    type=Finite(min=0),
    default=10,
    show_default=True,
    help="Kill and replace a worker that hangs for so long; seconds; 0: never.",
)
@click.option(
    "--busy-poll",
    is_flag=True,
    help="Have the worker do the driver's receive work, on its core, instead of interrupts.",
)
@click.option(
    "--need-wakeup/--no-need-wakeup",
    default=True,
    show_default=True,
    help="Wake the driver only when it asks for it.",
)
@click.option(
    "--frame-size",
    type=click.IntRange(2048, 4096),
    help="Bytes of a frame. Default: 2048, or 4096 where the MTU wants it.",
)
@click.option(
    "--frames",
    "n_frames",
    type=click.IntRange(64, 1 << 20),
    default=4096,
    show_default=True,
    help="Frames of each queue, of each interface: what comes while its worker is held up. "
    "Rounded up to a power of two.",
)
@click.option("--huge-pages", is_flag=True, help="Have the frames on pages of 2 MiB.")
@click.option(
    "--no-guard",
    is_flag=True,
    help="Let the filter take ARP, neighbour discovery, SSH and the like, too.",
)
@budget_option
@json_option
def run(file: str, devs: tuple[str, ...], queues: list[int] | None, cores: list[int] | None,
        mode: str, attach: str, duration: float | None, batch_size: int, spin_us: int, user: str,
        watchdog_s: float, busy_poll: bool, need_wakeup: bool, frame_size: int | None,
        n_frames: int, huge_pages: bool, no_guard: bool, budget_us: float | None,
        as_json: bool) -> None:  # fmt: skip
    """Run the pipeline of FILE on the queues of its interfaces, until Ctrl-C.

    What `check --lint` finds in its stages' code is told first, and keeps nothing from running.
    """
    from xdpipe.foreground import supervise
    from xdpipe.ranges import check_cores
    from xdpipe.run_options import RunOptions

    if cores:
        check_cores(cores)
    options = RunOptions(
        file=file, devs=_devs_by_port(devs), queues=tuple(queues or ()),
        cores=tuple(cores or ()), mode=mode, attach=attach, batch_size=batch_size,
        spin_us=spin_us, guard=not no_guard, user=user, watchdog_s=watchdog_s,
        busy_poll=busy_poll, need_wakeup=need_wakeup, frame_size=frame_size, n_frames=n_frames,
        huge_pages=huge_pages, budget_us=budget_us,
    )  # fmt: skip
    console = None if as_json else make_console()
    cli_lint.warn(file)
    final = supervise(options, duration, console)
    if console is None:
        print(json.dumps(final))
    else:
        from xdpipe import view

        console.print(view.final(final))
    if final["error"]:
        raise XdpipeError(f"{final['error']}; the pipeline ended")


def _devs_by_port(devs: tuple[str, ...]) -> dict[str, str]:
    """Read what --dev was told: an interface for each port, or the one of a port without a name."""
    found: dict[str, str] = {}
    for text in devs:
        port, equals, dev = text.partition("=")
        if not equals:
            port, dev = "", text
        if port in found:
            which = f"port {port}" if port else "one port"
            raise XdpipeError(f"--dev {text}: {which} is {found[port]} already; say PORT=DEV")
        if dev in found.values():
            raise XdpipeError(f"--dev {text}: {dev} is a port already; name another interface")
        found[port] = dev
    return found


@main.command()
@click.argument("file")
@click.option("--pcap", "capture", help="A pcap or pcapng file; gzip will do.")
@click.option(
    "--lint",
    "lints",
    is_flag=True,
    help="Read the stages' code for what breaks a hot path, without running it; no capture needed. "
    "Exit code 3: something was found.",
)
@click.option(
    "--write",
    "writes",
    multiple=True,
    metavar="VERDICT=FILE",
    help="Write the packets of a verdict to a capture file.",
)
@click.option("--steer", is_flag=True, help="Only with packets that the pipeline's filter takes.")
@click.option("--port", help="The port that the packets come by. Default: the first.")
@click.option(
    "--batch",
    "batch_size",
    type=click.IntRange(1, 65536),
    default=512,
    show_default=True,
    help="Packets in a batch at the most.",
)
@budget_option
@json_option
@click.pass_context
def check(ctx: click.Context, file: str, capture: str | None, lints: bool, writes: tuple[str, ...],
          steer: bool, port: str | None, batch_size: int, budget_us: float | None,
          as_json: bool) -> None:  # fmt: skip
    """Run the pipeline of FILE over a capture, or read its code; needs no NIC and no root."""
    if capture is None and (not lints or writes or steer or port is not None):
        raise click.UsageError("--pcap CAPTURE is missing: what to run it over (or --lint alone)")
    result: dict[str, Any] = {}
    if lints:
        from xdpipe.lint import lint

        found = lint(file)
        result = {"file": file, **found.to_dict()}
        if not as_json:
            cli_lint.tell(found)
    if capture is not None:
        checked = _check(file, capture, writes, steer, port, batch_size, budget_us)
        result = {**checked, **result}
        if not as_json:
            from xdpipe import view

            make_console().print(view.checked(checked))
    if as_json:
        print(json.dumps(result))
    if result.get("findings"):
        ctx.exit(cli_lint.FOUND)


def _check(file: str, capture: str, writes: tuple[str, ...], steer: bool, port: str | None,
           batch_size: int, budget_us: float | None) -> dict[str, Any]:  # fmt: skip
    from xdpipe.check import check as run_check
    from xdpipe.pipeline import load_pipeline
    from xdpipe.verdict import Verdict

    write = {}
    for text in writes:
        name, equals, path = text.partition("=")
        if not equals or name not in ("DROP", "TX", "PASS", "FORWARD") or not path:
            raise XdpipeError(f"--write {text}: say VERDICT=FILE with DROP, TX, PASS or FORWARD")
        write[Verdict[name]] = path
    with working("reading…") as show:
        shown = [0.0]

        def progress(n: int) -> None:
            if time.monotonic() - shown[0] > _TICK_S:
                shown[0] = time.monotonic()
                show(f"{n:,} packets")

        with redirect_stdout(sys.stderr):  # what a user's file prints must not spoil --json
            return run_check(
                load_pipeline(file, budget_us), capture, write=write, batch_size=batch_size,
                steer=steer, port=port, progress=progress,
            )  # fmt: skip


@main.command()
@click.option(
    "--duration",
    type=Finite(min=1),
    default=10,
    show_default=True,
    help="Seconds of traffic.",
)
@json_option
def demo(duration: float, as_json: bool) -> None:
    """Guard a name server against abuse, in private network namespaces; needs root."""
    from xdpipe.demo import run_demo

    console = make_console(stderr=as_json)
    result = run_demo(duration, console, show=not as_json)
    if as_json:
        print(json.dumps(result))


for _command in (
    cli_runs.status, cli_runs.down, cli_runs.set_, cli_tap.tap, cli_replay.replay,
    cli_measure.measure, cli_verify.verify, cli_craft.craft,
):  # fmt: skip
    main.add_command(_command)
