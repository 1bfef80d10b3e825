"""The command line, as far as it needs neither privilege nor interface."""

import importlib.metadata
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from xdpipe.cli import main

PYPROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"


def test_the_version_is_told_where_the_package_is_not_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In the VM xdpipe runs from the tree, which has no metadata."""

    def absent(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", absent)
    told = CliRunner().invoke(main, ["--version"])
    expected = tomllib.loads(PYPROJECT.read_text())["project"]["version"]
    assert (told.exit_code, told.output) == (0, f"xdpipe, version {expected}\n")
