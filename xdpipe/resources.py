"""Find the files that travel with xdpipe: the eBPF programs, their headers and the examples.

They stand in `bpf/` and `examples/` at the top of a checkout, and in the packages `xdpipe/programs`
and `xdpipe/examples` of an installed wheel (see `package-dir` in pyproject.toml).
"""

from pathlib import Path

from xdpipe.errors import XdpipeError

_PACKAGE = Path(__file__).resolve().parent
_CHECKOUT = _PACKAGE.parent


def program_source(name: str) -> str:
    """Return the path of a program of `bpf/`, such as `steer.c`, or of a header of its."""
    return _find(name, _PACKAGE / "programs", _CHECKOUT / "bpf")


def example(name: str) -> str:
    """Return the path of a pipeline of `examples/`, such as `dns_guard.py`."""
    return _find(name, _PACKAGE / "examples", _CHECKOUT / "examples")


def _find(name: str, *directories: Path) -> str:
    for directory in directories:
        path = directory / name
        if path.is_file():
            return str(path)
    looked = " nor ".join(str(directory) for directory in directories)
    raise XdpipeError(f"{name}: not in {looked}; is xdpipe installed whole?")
