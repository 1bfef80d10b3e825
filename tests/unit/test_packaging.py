"""A wheel and a source distribution build, without the network, and hold what they must."""

import importlib.util
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
GENERATED = {"_core.c", "_libpcap.py"}

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("build") is None or importlib.util.find_spec("setuptools") is None,
    reason="no build tool: pip install build setuptools",
)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the source distribution from the checkout, and the wheel from that."""
    directory = tmp_path_factory.mktemp("packaging")
    copy = directory / "checkout"
    tracked = [
        path
        for path in ROOT.rglob("*")
        if path.is_file()
        and not {".git", ".venv", ".vm", ".vagrant", "build", "dist"}
        & set(path.relative_to(ROOT).parts)
        and not any(part.endswith(".egg-info") for part in path.parts)
        and path.suffix not in (".so", ".o", ".pyc")
    ]
    for path in tracked:  # a copy, since building writes into the tree
        target = copy / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    result = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", directory / "dist", copy],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout
    return directory / "dist"


def files_below(directory: str, *patterns: str) -> set[str]:
    """Return what the checkout has below a directory, as names relative to it."""
    top = ROOT / directory
    return {
        str(path.relative_to(top))
        for pattern in patterns
        for path in top.glob(pattern)
        if path.name not in GENERATED
    }


def test_the_wheel_holds_the_core_the_programs_the_headers_and_the_examples(built: Path) -> None:
    [wheel] = built.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    wanted = {
        *(f"xdpipe/{name}" for name in files_below("xdpipe", "**/*.py", "py.typed")),
        *(f"xdpipe/core/{name}" for name in files_below("xdpipe/core", "*.h")),
        *(f"xdpipe/programs/{name}" for name in files_below("bpf", "*.c", "*.h", "LICENSE")),
        *(f"xdpipe/examples/{name}" for name in files_below("examples", "*.py")),
    }
    assert (wanted | {"xdpipe/_libpcap.py"}) - names == set()
    [core] = [name for name in names if name.startswith("xdpipe/core/_core.")]
    assert core.endswith(".so")
    assert {name.split("/")[0].split("-")[0] for name in names} == {"xdpipe"}


def test_the_wheel_names_its_command_and_its_licences(built: Path) -> None:
    [wheel] = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        info = {
            name.split(".dist-info/")[1]: archive.read(name).decode()
            for name in archive.namelist()
            if ".dist-info/" in name
        }
    assert "xdpipe = xdpipe.cli:main" in info["entry_points.txt"]
    assert "License-Expression: Apache-2.0 AND (GPL-2.0-only OR BSD-2-Clause)" in info["METADATA"]
    assert {"licenses/LICENSE", "licenses/bpf/LICENSE"} <= set(info)


def test_the_source_distribution_holds_all_that_builds_it(built: Path) -> None:
    [source] = built.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    wanted = {
        "LICENSE",
        "setup.py",
        "pyproject.toml",
        "CHANGELOG.md",
        *(f"xdpipe/{name}" for name in files_below("xdpipe", "**/*.[ch]", "**/*.py", "py.typed")),
        *(f"bpf/{name}" for name in files_below("bpf", "*.c", "*.h", "LICENSE")),
        *(f"examples/{name}" for name in files_below("examples", "*.py")),
        *(f"tests/{name}" for name in files_below("tests", "**/*.py", "**/*.c")),
    }
    assert wanted - names == set()
    assert not any(Path(name).name in GENERATED for name in names)


def test_what_the_wheel_installs_finds_its_core_and_its_programs(
    built: Path, tmp_path: Path
) -> None:
    [wheel] = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from xdpipe.core import _core\n"
        "from xdpipe.resources import program_source\n"
        "print(_core.__file__, program_source('LICENSE'), sep='\\n')\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/"
    )
    core, licence = result.stdout.splitlines()
    assert Path(core).parent == tmp_path / "xdpipe" / "core"
    assert Path(licence) == tmp_path / "xdpipe" / "programs" / "LICENSE"
