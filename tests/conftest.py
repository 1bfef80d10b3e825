"""Marks each test with its tier, its directory, and skips the tiers that this machine cannot run.

A skip says what the machine lacks.
"""

import fcntl
import importlib.util
import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hosts import nics

TESTS = Path(__file__).resolve().parent
CAPTURES = TESTS.parent.parent / "shared" / "captures"
HUGE_PAGES = Path("/proc/sys/vm/nr_hugepages")
BY_TSHARK = "_tshark.py"
TIERS = ("unit", "bpf", "veth", "captures", "vm")
LONGEST = "test_sanitizers.py"
"""Where tests run in several processes it begins first, or one would end long after the others."""

CAP_NET_ADMIN = 12
CAP_SYS_ADMIN = 21
CAP_BPF = 39


def _has_capability(number: int) -> bool:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> number & 1)
    return False


def _lacks_bpf() -> str | None:
    if os.geteuid() != 0 and not (_has_capability(CAP_BPF) and _has_capability(CAP_NET_ADMIN)):
        return "no privilege to load eBPF programs: not root, without CAP_BPF and CAP_NET_ADMIN"
    if importlib.util.find_spec("bcc") is None:
        return "no bcc for this Python: install python3-bpfcc and use /usr/bin/python3"
    return None


def _lacks_veth() -> str | None:
    if not (_has_capability(CAP_NET_ADMIN) and _has_capability(CAP_SYS_ADMIN)):
        return "no privilege to make network namespaces: no CAP_NET_ADMIN and CAP_SYS_ADMIN"
    return _lacks_bpf()


def _lacks_captures() -> str | None:
    if not CAPTURES.is_dir():
        return f"no captures: there is no folder {os.path.relpath(CAPTURES, TESTS.parent)}"
    return None


def _lacks_vm() -> str | None:
    if not nics():
        return "not in the test VM: these run in it, by ./dev vm test"
    return _lacks_veth()


def _lacks_image() -> str | None:
    if nics():
        return "in the test VM: these are for the host"
    from vm.cache import CACHE  # test_sanitizers copies the tests without vm/

    if not any(CACHE.glob("root-*")):
        return "the test VM has not been made: ./dev vm build"
    return _lacks_veth()


LACKS = {
    "unit": lambda: None,
    "bpf": _lacks_bpf,
    "veth": _lacks_veth,
    "captures": _lacks_captures,
    "vm": _lacks_vm,
    "vm/commands": _lacks_image,
}
"""What a machine lacks for the tests of a directory, or of those below it that are not named."""


def pytest_configure(config: pytest.Config) -> None:
    """Have SIGINT be as in the foreground: what a shell's background ignores, all inherit."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name bytes by their argument: a gzip file says when it was made, and all that run tests
    beside each other are to collect the same names.
    """
    return argname if isinstance(val, bytes) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    lacks: dict[str, str | None] = {}
    for item in items:
        path = item.path.relative_to(TESTS) if item.path.is_relative_to(TESTS) else None
        if path is None or path.parts[0] not in TIERS:
            raise pytest.UsageError(f"{item.path}: tests lie in tests/{{{','.join(TIERS)}}}/")
        item.add_marker(path.parts[0])
        if path.name.endswith(BY_TSHARK):  # the first of them runs tshark over all captures
            item.add_marker(pytest.mark.timeout(1500))
        place = next(str(parent) for parent in path.parents if str(parent) in LACKS)
        if place not in lacks:
            lacks[place] = LACKS[place]()
        reason = lacks[place]
        if reason is not None:
            item.add_marker(pytest.mark.skip(reason=reason))
    items.sort(key=lambda item: item.path.name != LONGEST)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object:
    """Have tests of a file run in one process, since they share what is dear to make.

    So do all that compare with what tshark says. Those over veth, and those that start VMs, share
    nothing: as each file takes as long as it does, one process would be left with the last.
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            if file.startswith(("tests/veth/", "tests/vm/commands/")):
                return nodeid
            return BY_TSHARK if file.endswith(BY_TSHARK) else file

    return ByFile(config, log)


@pytest.fixture(scope="session")
def captures() -> Path:
    """Return the folder of shared captures; skip where it is absent."""
    reason = _lacks_captures()
    if reason is not None:
        pytest.skip(reason)
    return CAPTURES


@pytest.fixture
def huge_pages_alone() -> Iterator[None]:
    """Have no other test change the number of huge pages, which is the machine's."""
    with open(Path(tempfile.gettempdir()) / "xdpipe-tests-huge-pages", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.fixture
def huge_pages(huge_pages_alone: None) -> Iterator[None]:
    """Have huge pages for two queues."""
    before = int(HUGE_PAGES.read_text())
    HUGE_PAGES.write_text(str(before + 24))
    if int(HUGE_PAGES.read_text()) < before + 24:
        pytest.skip("this machine has no 24 huge pages of 2 MiB to give")
    yield
    HUGE_PAGES.write_text(str(before))
