"""Compiled code is kept, used again, and never taken from where another user could have written."""

import os
import threading
from pathlib import Path
from typing import Any

import pytest

from xdpipe import kept_code
from xdpipe.c_compiler import find_compiler
from xdpipe.kept_code import kept


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDPIPE_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


class Maker:
    """Makes a file, and counts how often."""

    def __init__(self, content: bytes = b"code") -> None:
        self.n = 0
        self.content = content

    def __call__(self, directory: Path) -> dict[str, Any]:
        self.n += 1
        (directory / "code.so").write_bytes(self.content)
        return {"told": self.n}

    def get(self, key: str | None = "key", **options: Any) -> tuple[bytes, dict[str, Any]]:
        with kept(key, self, **options) as (directory, told):
            return (directory / "code.so").read_bytes(), told


def test_what_is_kept_is_not_made_again(cache: Path) -> None:
    make = Maker()
    assert make.get() == make.get() == (b"code", {"told": 1})
    assert make.n == 1
    assert make.get("another") == (b"code", {"told": 2})
    assert {path.name for path in (cache / "stages").iterdir()} == {"key", "another", "lock"}


def test_only_we_can_write_what_is_kept(cache: Path) -> None:
    old = os.umask(0)
    try:
        Maker().get()
    finally:
        os.umask(old)
    for path in (cache, cache / "stages", cache / "stages/key"):
        assert path.stat().st_mode & 0o777 == 0o700
    for path in (cache / "stages/key").iterdir():
        assert path.stat().st_mode & 0o777 == 0o600


def test_without_a_key_it_is_made_anew_and_gone_afterwards(cache: Path) -> None:
    make = Maker()
    assert make.get(None) == (b"code", {"told": 1})
    with kept(None, make) as (directory, told):
        assert told == {"told": 2}
    assert not directory.exists()
    assert not cache.exists()


def test_what_is_not_valid_any_more_is_made_anew() -> None:
    make = Maker()
    make.get()
    assert make.get(valid=lambda told: told["told"] == 2) == (b"code", {"told": 2})
    assert make.get(valid=lambda told: told["told"] == 2) == (b"code", {"told": 2})


def test_what_fails_leaves_nothing(cache: Path) -> None:
    def fail(directory: Path) -> dict[str, Any]:
        (directory / "half").write_bytes(b"x")
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"), kept("key", fail):
        pass
    assert [path.name for path in (cache / "stages").iterdir()] == ["lock"]


@pytest.mark.parametrize("harm", ["cut", "changed", "no meta", "other meta", "writable", "a file"])
def test_what_is_damaged_is_made_anew(cache: Path, harm: str) -> None:
    Maker().get()
    entry = cache / "stages/key"
    if harm == "cut":
        (entry / "code.so").write_bytes(b"co")
    elif harm == "changed":
        (entry / "code.so").write_bytes(b"cade")
    elif harm == "no meta":
        (entry / "meta.json").unlink()
    elif harm == "other meta":
        (entry / "meta.json").write_text('["x"]')
    elif harm == "writable":
        (entry / "code.so").chmod(0o666)
    else:
        for path in entry.iterdir():
            path.unlink()
        entry.rmdir()
        entry.write_text("x")
    again = Maker(b"new")
    assert again.get()[0] == b"new"


@pytest.mark.parametrize("harm", ["group", "others", "above", "a link to one of another's"])
def test_what_others_could_write_is_not_used(
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    harm: str,
) -> None:
    Maker(b"evil").get()
    if harm == "group":
        (cache / "stages").chmod(0o770)
    elif harm == "others":
        (cache / "stages").chmod(0o702)
    elif harm == "above":
        cache.chmod(0o777)
    else:
        elsewhere = tmp_path / "open"
        elsewhere.mkdir()
        elsewhere.chmod(0o777)
        (cache / "stages").rename(elsewhere / "stages")
        (cache / "stages").symlink_to(elsewhere / "stages")
    make = Maker()
    monkeypatch.setattr(kept_code, "_told", set())
    assert make.get()[0] == make.get()[0] == b"code"
    assert make.n == 2  # nothing is kept there, either
    [told] = capfd.readouterr().err.splitlines()
    assert told.endswith("could be written by others, so what stages compile to is not kept")


@pytest.mark.skipif(os.geteuid() != 0, reason="not root: no file can be given to another user")
def test_what_another_user_has_is_not_used(cache: Path) -> None:
    Maker(b"evil").get()
    os.chown(cache / "stages", 65534, 65534)
    make = Maker()
    assert make.get()[0] == b"code"
    os.chown(cache / "stages", 0, 0)
    os.chown(cache / "stages/key", 65534, 65534)
    assert make.get()[0] == b"code"
    os.chown(cache / "stages/key/code.so", 65534, 65534)
    assert make.get()[0] == b"code"
    os.chown(cache, 65534, 65534)
    assert make.get()[0] == b"code"
    assert make.n == 4


def test_the_longest_unused_go(cache: Path) -> None:
    room = kept_code.STAGES._replace(n_kept=3)
    make = Maker()
    for i, key in enumerate("abc"):
        make.get(key, room=room)
        os.utime(cache / "stages" / key, (i, i))
    make.get("a", room=room)  # used now
    make.get("d", room=room)
    assert {path.name for path in (cache / "stages").iterdir()} == {"a", "c", "d", "lock"}


def test_what_is_kept_has_no_more_bytes_than_it_may(cache: Path) -> None:
    room = kept_code.STAGES._replace(n_bytes=10_000)
    make = Maker(bytes(4000))
    for i, key in enumerate("abc"):
        make.get(key, room=room)
        os.utime(cache / "stages" / key, (i, i))
    assert {path.name for path in (cache / "stages").iterdir()} == {"b", "c", "lock"}
    Maker(bytes(20_000)).get("large", room=room)
    assert {path.name for path in (cache / "stages").iterdir()} == {"large", "lock"}


def test_what_a_killed_process_left_is_removed_and_what_another_makes_is_not(cache: Path) -> None:
    rooms = [kept_code.STAGES._replace(waits=False)] * 2

    def slowly(directory: Path) -> dict[str, Any]:
        (cache / "stages/new-left").mkdir()
        (cache / "stages/new-left/half").write_bytes(b"x")
        Maker().get("meanwhile", room=rooms[1])
        (directory / "code.so").write_bytes(b"slow")
        return {}

    with kept("key", slowly, room=rooms[0]) as (directory, _):
        assert (directory / "code.so").read_bytes() == b"slow"
    assert {path.name for path in (cache / "stages").iterdir()} == {"key", "meanwhile", "lock"}


def test_of_several_at_once_one_makes_it() -> None:
    make = Maker()
    inside = threading.Event()
    original = make.__call__

    def slowly(directory: Path) -> dict[str, Any]:
        inside.wait(10)
        return original(directory)

    def get() -> None:
        with kept("key", slowly) as (directory, _):
            got.append((directory / "code.so").read_bytes())

    got: list[bytes] = []
    threads = [threading.Thread(target=get) for _ in range(4)]
    for thread in threads:
        thread.start()
    inside.set()
    for thread in threads:
        thread.join()
    assert got == [b"code"] * 4
    assert make.n == 1


def test_where_nothing_can_be_kept_it_works_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDPIPE_CACHE_DIR", "/proc/nowhere")
    make = Maker()
    assert make.get() == (b"code", {"told": 1})
    assert make.get() == (b"code", {"told": 2})


@pytest.mark.skipif(find_compiler() is None, reason="no C compiler: apt install gcc")
def test_libraries_are_loaded_whatever_becomes_of_their_files(tmp_path: Path) -> None:
    compiler = find_compiler()
    assert compiler is not None
    loaded = []
    path = tmp_path / "code.so"
    for n in (1, 2, 3):  # of one path, as of a stage that was compiled again
        (tmp_path / "code.c").write_text(f"int answer(void) {{ return {n}; }}")
        assert compiler.run(["-shared", "-fPIC", "-o", "code.so", "code.c"], tmp_path) == (True, "")
        loaded.append(kept_code.load(path))
        path.unlink()
    assert [library.answer() for library in loaded] == [1, 2, 3]
    path.write_bytes(b"no library")
    with pytest.raises(OSError, match=r"code\.so"):
        kept_code.load(path)
