"""`./dev fuzz`: fuzz the native stages, or run one input again."""

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from fuzz.build import CLANG, BuildError, build, program
from fuzz.captures import from_captures
from fuzz.image import ImageError
from fuzz.run import Outcome, environment, run, write_seeds
from fuzz.seeds import crafted
from fuzz.targets import TARGETS

CAPTURES = Path(__file__).resolve().parents[2] / "shared" / "captures"


def _seeds(name: str, captures: Path | None) -> Path:
    target = TARGETS[name]
    there = from_captures(captures, target) if captures else ()
    return write_seeds(name, [*crafted(), *there])


def _fuzz(names: list[str], seconds: int, captures: Path | None, jobs: int) -> list[Outcome]:
    console = Console(stderr=True)
    driver = build(CLANG)
    programs = {name: program(driver, name, TARGETS[name]) for name in names}
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(),
               TextColumn("{task.fields[n_runs]:,} runs"))  # fmt: skip
    # a terminal's bars go out of the way of each result; a pipe gets the results alone
    tell_above = sys.stdout.isatty()
    with (
        Progress(*columns, console=console, transient=True, redirect_stdout=tell_above) as progress,
        ThreadPoolExecutor(jobs) as pool,
    ):
        began: dict[TaskID, float] = {}

        def one(name: str) -> Outcome:
            seeds = _seeds(name, captures)
            if not console.is_terminal:
                console.print(f"fuzz: {name} for {seconds} s from {len(os.listdir(seeds))} seeds")
            task = progress.add_task(name, total=seconds, n_runs=0)
            began[task] = time.monotonic()
            outcome = run(
                programs[name], name, TARGETS[name], seeds, seconds,
                lambda n_runs: progress.update(task, n_runs=n_runs),
            )  # fmt: skip
            del began[task]
            progress.remove_task(task)
            return outcome

        futures = {pool.submit(one, name) for name in names}
        outcomes = []
        while futures:
            done, futures = wait(futures, timeout=0.5)
            for future in done:
                outcomes.append(future.result())
                click.echo(outcomes[-1].line())
            for task, then in list(began.items()):
                progress.update(task, completed=time.monotonic() - then)
        return outcomes


def _again(name: str, path: Path) -> int:
    """Run one input, and leave it to the driver to say what it finds."""
    argv = [str(program(build(CLANG), name, TARGETS[name])), str(path)]
    return subprocess.run(argv, env=environment(), check=False).returncode


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("names", nargs=-1, type=click.Choice(list(TARGETS)), metavar="[NAME]...")
@click.option("--seconds", default=60, show_default=True, type=click.IntRange(min=1),
              help="For each target.")  # fmt: skip
@click.option("--captures", type=click.Path(exists=True, file_okay=False, path_type=Path),
              default=CAPTURES if CAPTURES.is_dir() else None, show_default="../shared/captures",
              help="Directory of captures to begin with.")  # fmt: skip
@click.option("--jobs", default=os.cpu_count() or 1, show_default="one a core",
              type=click.IntRange(min=1), help="Targets at the same time.")  # fmt: skip
@click.option("--again", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="Only run this input of the one target.")  # fmt: skip
@click.pass_context
def main(
    context: click.Context,
    names: tuple[str, ...],
    seconds: int,
    captures: Path | None,
    jobs: int,
    again: Path | None,
) -> None:
    """Fuzz the native stages with libFuzzer, ASan and UBSan; all targets unless named.

    One line a target on stdout; exit code 1 where something was found.
    """
    lacks = CLANG.lacks()
    if lacks is not None:
        raise click.ClickException(f"{lacks}; Debian's packages clang, llvm and libclang-rt-dev")
    try:
        if again is not None:
            if len(names) != 1:
                raise click.UsageError("--again takes the name of one target")
            context.exit(1 if _again(names[0], again) else 0)
        outcomes = _fuzz(list(dict.fromkeys(names or TARGETS)), seconds, captures, jobs)
    except (BuildError, ImageError) as error:
        raise click.ClickException(str(error)) from error
    for outcome in outcomes:
        if outcome.found:
            click.echo("\n".join((outcome.name, *outcome.says, outcome.again())))
    context.exit(1 if any(outcome.found for outcome in outcomes) else 0)


if __name__ == "__main__":
    main(prog_name="./dev fuzz")
