"""The commands about pipelines that run: status, down, set."""

from __future__ import annotations

import json
import signal
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from xdpipe.cli_console import make_console
from xdpipe.cli_options import Finite, json_option
from xdpipe.errors import XdpipeError

if TYPE_CHECKING:
    from collections.abc import Callable

    from xdpipe.rundir import RunDir, State


def _runs() -> list[tuple[RunDir, State]]:
    from xdpipe.rundir import RunDir

    found = []
    for run_dir in RunDir.all():
        state = run_dir.read()
        if state is not None:
            found.append((run_dir, state))
    return found


@click.command()
@json_option
def status(as_json: bool) -> None:
    """Show the pipelines that run on this machine, and remains of ones that died."""
    from xdpipe.rundir import network_namespace

    result = []
    for run_dir, state in _runs():
        if state.dev != state.devs[0]:
            continue  # told with its first interface
        entry: dict[str, Any] = {
            "name": state.name,
            "dev": state.dev,
            "devs": list(state.devs),
            "here": state.netns == network_namespace(),
            "supervisor": asdict(state.supervisor),
            "state": "running" if state.supervisor.alive else "dead",
        }
        entry["workers_alive"] = [worker.pid for worker in state.workers if worker.alive]
        if state.supervisor.alive:
            answer = run_dir.ask("status")
            if answer is None:
                entry["state"] = "starting"
            else:
                entry["status"] = answer
        result.append(entry)
    if as_json:
        print(json.dumps({"pipelines": result}))
        return
    console = make_console(highlight=False)
    if not result:
        console.print("no pipeline runs")
    for entry in result:
        elsewhere = "" if entry["here"] else ", in another network namespace"
        console.print(
            f"[bold]{entry['name']}[/bold] on {', '.join(entry['devs'])}{elsewhere}: "
            f"{entry['state']}, "
            f"supervisor pid {entry['supervisor']['pid']}"
        )
        if entry["state"] == "dead":
            console.print(
                f"  its supervisor was killed; the kernel detached its program. "
                f"Clear up with: xdpipe down {entry['dev']}"
            )
        elif "status" in entry:
            from xdpipe import view

            console.print(view.final(entry["status"]))


@click.command()
@click.argument("dev")
@json_option
def down(dev: str, as_json: bool) -> None:
    """End the pipeline on DEV, or clear up after one that was killed."""
    from xdpipe.busy_poll import put_back
    from xdpipe.rundir import network_namespace

    here = [(d, s) for d, s in _runs() if s.netns == network_namespace()]
    named = [state for _, state in here if state.dev == dev]
    if not named:
        others = sorted({state.dev for _, state in here})
        where = f"; pipelines run on: {', '.join(others)}" if others else ""
        raise XdpipeError(f"{dev}: no pipeline of xdpipe there{where}")
    for state in named:
        # of all its interfaces; the first one's directory is where it answers
        runs = [(d, s) for d, s in here if s.supervisor == state.supervisor]
        runs.sort(key=lambda run: state.devs.index(run[1].dev))
        was = "running" if state.supervisor.alive else "dead"
        if state.supervisor.alive:
            _end_supervisor(runs[0][0], state)
        for worker in state.workers:  # they die with the supervisor; should one be left, now
            worker.signal(signal.SIGKILL)
        for run_dir, _ in runs:
            put_back(run_dir.path)
            run_dir.remove()
        devs = ", ".join(state.devs)
        if as_json:
            told = {"dev": dev, "devs": list(state.devs), "name": state.name, "was": was}
            print(json.dumps(told))
        elif was == "running":
            click.echo(f"{state.name} on {devs}: ended")
        else:
            click.echo(f"{state.name} on {devs}: its supervisor was dead already; cleared up")


def _end_supervisor(run_dir: RunDir, state: State) -> None:
    if run_dir.ask("stop") is None:
        state.supervisor.signal(signal.SIGTERM)
    if not _wait(lambda: not state.supervisor.alive, 15.0):
        state.supervisor.signal(signal.SIGKILL)
        if not _wait(lambda: not state.supervisor.alive, 5.0):
            raise XdpipeError(f"{state.dev}: pid {state.supervisor.pid} does not end")


def _wait(condition: Callable[[], bool], timeout_s: float) -> bool:
    end = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def find_run(name: str) -> RunDir:
    """Return the directory of the one running pipeline that is called so, or runs there."""
    runs = [
        run_dir for run_dir, state in _runs()
        if name in (state.name, *state.devs) and state.dev == state.devs[0]
    ]  # fmt: skip
    if len(runs) != 1:
        raise XdpipeError(
            f"{name}: several pipelines are called that; name the interface that it runs on"
            if runs else f"{name}: no such pipeline runs; see: xdpipe status"
        )  # fmt: skip
    return runs[0]


@click.command("set")
@click.argument("name")
@click.argument("set_name", metavar="SET")
@click.argument("op", type=click.Choice(["list", "add", "del", "flush", "load"]))
@click.argument("what", nargs=-1)
@click.option("--ttl", "ttl_s", type=Finite(min=0, min_open=True),
              help="Seconds until what is added is gone. Default: as declared.")  # fmt: skip
@json_option
def set_(name: str, set_name: str, op: str, what: tuple[str, ...], ttl_s: float | None,
         as_json: bool) -> None:  # fmt: skip
    """Look at or change a SET of the running pipeline NAME (or that runs on the interface NAME).

    list; add ADDRESS…; del ADDRESS…; flush (remove all); load FILE (addresses or prefixes, one a
    line; - for stdin).
    """
    from xdpipe import set_command

    run_dir = find_run(name)
    if op in ("add", "del", "load") and (not what or (op == "load" and len(what) > 1)):
        raise XdpipeError(f"set {set_name} {op}: say what: an address, or for load a file")
    if op == "load":
        try:
            with click.open_file(what[0]) as file:
                entries = set_command.read_list(file, what[0])
        except (OSError, UnicodeDecodeError) as error:
            raise XdpipeError(f"{what[0]}: {error}") from error
    else:
        entries = set_command.read_list(what, op)
    answer, found = set_command.ask(
        run_dir, set_name, "add" if op == "load" else op, entries, ttl_s
    )
    shown = [
        {"entry": set_command.show(entry), "left_s": None if left is None else round(left, 1)}
        for entry, left in found
    ]
    if as_json:
        print(json.dumps({"set": set_name, **answer, **({"list": shown} if op == "list" else {})}))
    elif op == "list":
        for each in shown:
            left = "" if each["left_s"] is None else f"  {each['left_s']} s"
            click.echo(f"{each['entry']}{left}")
    else:
        click.echo(", ".join(f"{key} {n:,}" for key, n in answer.items()))
    if answer.get("added", 0) < answer.get("given", 0) and "added" in answer:
        raise XdpipeError(
            f"set {set_name} is full: {answer['given'] - answer['added']:,} found no room; "
            "declare it with a larger capacity"
        )
