"""`./dev vm`: build the test VM, run a command in it, its tests, the demonstration, a shell."""

import json
import sys
from dataclasses import asdict
from pathlib import Path

import click

from vm.box import box as make_box
from vm.cache import VmError, say
from vm.image import root_image
from vm.kernel import DEFAULT, KERNELS, Kernel
from vm.nics import KINDS
from vm.qemu import Accelerator, Qemu, tell
from vm.session import Result, Wanted, run
from vm.suites import run_suites, suites
from xdpipe.errors import XdpipeError

_nic = click.option(
    "--nic", "nics", multiple=True, type=click.Choice(KINDS),
    help="A pair of NICs of this kind; may be said more than once.",
)  # fmt: skip
_queues = click.option(
    "--queues", "n_queues", type=click.IntRange(1, 16), default=2, show_default=True,
    help="Queues of each NIC; the VM has as many CPUs, and two at the least.",
)  # fmt: skip
_kernel = click.option(
    "--kernel", default=DEFAULT, show_default=True, metavar="VERSION",
    help=f"Debian's newest kernel whose version begins so; tried: {', '.join(KERNELS)}.",
)  # fmt: skip
_out = click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), default=None,
    help="Directory that is /out in the VM, for files to take back.",
)  # fmt: skip
_timeout = click.option(
    "--timeout", "timeout_s", type=click.FloatRange(min=1), default=3600, show_default=True,
    help="End the VM after so many seconds.",
)  # fmt: skip


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Run xdpipe in a virtual machine with multi-queue zero-copy NICs."""


@main.command()
@click.option("--kernel", "kernels", multiple=True, metavar="VERSION",
              help=f"May be said more than once. Default: {DEFAULT}.")  # fmt: skip
def build(kernels: tuple[str, ...]) -> None:
    """Make the image and fetch kernel and QEMU; what is there already is kept."""
    root = root_image()
    qemu = Qemu.find()
    for version in kernels or (DEFAULT,):
        kernel = Kernel.get(version)
        tell(qemu, Accelerator.choose(qemu, kernel), kernel)
    say(f"ready: {root}")


@main.command()
@_kernel
def box(kernel: str) -> None:
    """Make the Vagrant box that the Vagrantfile names."""
    path = make_box(kernel)
    say(f"ready: {path}; now: vagrant box add --force --name xdpipe {path} && vagrant up")


def _report(result: Result) -> None:
    for line in result.trouble:
        say(f"kernel: {line}")
    raise SystemExit(result.status or (3 if result.trouble else 0))


@main.command("run", context_settings={"ignore_unknown_options": True})
@_nic
@_queues
@_kernel
@_out
@_timeout
@click.option("--cpus", "n_cpus", type=click.IntRange(1, 64), default=2, show_default=True,
              help="Virtual CPUs, and no fewer than queues.")  # fmt: skip
@click.option("--package", "packages", multiple=True, metavar="NAME",
              help="A Debian package besides; may be said more than once.")  # fmt: skip
@click.option("--result", type=click.Path(path_type=Path), help="Write what came of it as JSON.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def run_(nics: tuple[str, ...], n_queues: int, kernel: str, out: Path | None, timeout_s: float,
         n_cpus: int, packages: tuple[str, ...], result: Path | None,
         command: tuple[str, ...]) -> None:  # fmt: skip
    """Run COMMAND in the VM, with this tree at /work, and exit with its exit code.

    What it writes to the tree is lost with the VM. Exit code 3: it succeeded, but the VM's kernel
    complained (WARNING, BUG, Oops).
    """
    wanted = Wanted(nics, n_queues, kernel, out, timeout_s, n_cpus, packages=packages)
    done = run(wanted, command)
    if result is not None:
        result.write_text(json.dumps(asdict(done)))
    _report(done)


@main.command()
@_nic
@_queues
@_kernel
@_out
def shell(nics: tuple[str, ...], n_queues: int, kernel: str, out: Path | None) -> None:
    """Open a shell in the VM; it is switched off when the shell ends."""
    if not sys.stdin.isatty():
        raise VmError("shell: no terminal; use: ./dev vm run COMMAND")
    _report(run(Wanted(nics, n_queues, kernel, out, timeout_s=1e6), None))


@main.command()
@_kernel
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
def demo(kernel: str, args: tuple[str, ...]) -> None:
    """Run the demonstration (xdpipe demo ARGS) in the VM."""
    _report(run(Wanted(kernel=kernel), ["xdpipe", "demo", *args]))


@main.command(context_settings={"ignore_unknown_options": True})
@click.option(
    "--all",
    "everything",
    is_flag=True,
    help="All root tests on all kernels; under TCG that takes more than an hour.",
)
@click.option("--kernel", "kernels", multiple=True, type=click.Choice(list(KERNELS)),
              help="Only on this one; may be said more than once.")  # fmt: skip
@click.option("-k", "only", default="", metavar="EXPRESSION",
              help="Only tests whose names match, as pytest has it.")  # fmt: skip
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
def test(everything: bool, kernels: tuple[str, ...], only: str, args: tuple[str, ...]) -> None:
    """Run the tests that are for the VM; ARGS go to pytest.

    Over NICs with zero copy on the newest kernel, and over veth on each kernel that is tried.
    """
    chosen = [s for s in suites(everything=everything) if not kernels or s.kernel in kernels]
    raise SystemExit(run_suites(chosen, only, args))


if __name__ == "__main__":
    try:
        main(prog_name="./dev vm", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (VmError, XdpipeError) as error:
        say(str(error))
        sys.exit(1)
    except (KeyboardInterrupt, click.Abort):
        say("interrupted; the VM is gone")
        sys.exit(130)
