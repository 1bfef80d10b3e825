"""Programs and examples are found in a checkout and in an installed package."""

from pathlib import Path

import pytest

from xdpipe import resources
from xdpipe.errors import XdpipeError


@pytest.mark.parametrize(
    ("find", "installed", "checkout"),
    [
        (resources.program_source, "xdpipe/programs", "bpf"),
        (resources.example, "xdpipe/examples", "examples"),
    ],
)
def test_a_file_is_found_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, find, installed: str, checkout: str
) -> None:
    monkeypatch.setattr(resources, "_PACKAGE", tmp_path / "xdpipe")
    monkeypatch.setattr(resources, "_CHECKOUT", tmp_path)
    with pytest.raises(XdpipeError, match=r"^x\.c: not in .* nor .*; is xdpipe installed whole\?$"):
        find("x.c")
    for directory in (checkout, installed):  # an installed one comes first
        path = tmp_path / directory / "x.c"
        path.parent.mkdir(parents=True)
        path.touch()
        assert find("x.c") == str(path)


def test_the_licence_of_the_programs_is_found_here() -> None:
    assert "GPL-2.0-only OR BSD-2-Clause" in Path(resources.program_source("LICENSE")).read_text()
