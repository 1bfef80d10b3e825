"""Debian's archive: package lists of our own, beside and apart from the host's."""

import os
import re
import subprocess
from pathlib import Path

from vm.cache import CACHE, VmError, say

MIRROR = os.environ.get("XDPIPE_VM_MIRROR") or "http://deb.debian.org/debian"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
SUITE = "trixie"
"""What the image and QEMU are of."""
SUITES = ("bookworm", SUITE, f"{SUITE}-backports")


def source(suite: str) -> str:
    """Return a line of sources.list."""
    return f"deb [signed-by={KEYRING}] {MIRROR} {suite} main"


class Archive:
    """Lists of all SUITES, fetched when first needed."""

    def __init__(self) -> None:
        self._place = CACHE / "apt"
        self._fresh = False

    def _run(self, *argv: str, cwd: Path | None = None) -> str:
        if not self._fresh:
            self._fresh = True
            self._update()
        environment = {**os.environ, "APT_CONFIG": str(self._place / "apt.conf")}
        done = subprocess.run(
            argv, cwd=cwd, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            lines = (done.stderr.strip() or done.stdout.strip()).splitlines() or ["no output"]
            raise VmError(f"{' '.join(argv[:3])}: {lines[-1]}; is there a network?")
        return done.stdout

    def _update(self) -> None:
        if not KEYRING.exists():
            raise VmError(f"{KEYRING} is missing; install: debian-archive-keyring")
        for name in ("lists/partial", "cache/archives/partial"):
            (self._place / name).mkdir(parents=True, exist_ok=True)
        sources = self._place / "sources.list"
        sources.write_text("".join(f"{source(suite)}\n" for suite in SUITES))
        settings = {
            "Dir::Etc::sourcelist": sources, "Dir::Etc::sourceparts": "-",
            "Dir::State::lists": self._place / "lists", "Dir::Cache": self._place / "cache",
            "Dir::State::status": "/dev/null", "APT::Architecture": "amd64",
            # lists of archived suites are past their date
            "Acquire::Check-Valid-Until": "false", "Acquire::Languages": "none",
            "APT::Sandbox::User": "root", "Debug::NoLocking": "1",
        }  # fmt: skip
        text = "".join(f'{name} "{value}";\n' for name, value in settings.items())
        (self._place / "apt.conf").write_text(text)
        say("fetching Debian's package lists")
        self._run("apt-get", "-q", "update")

    def versions(self, package: str) -> list[str]:
        """Return the versions of a package, the newest first."""
        rows = self._run("apt-cache", "madison", package).splitlines()
        return [row.split("|")[1].strip() for row in rows]

    def depends(self, package: str, version: str) -> list[str]:
        """Return the names that a package of a version depends on directly."""
        shown = self._run("apt-cache", "show", f"{package}={version}")
        found = re.search(r"^Depends: (.*)$", shown, re.MULTILINE)
        return [part.split()[0] for part in found[1].split(",")] if found else []

    def extract(self, packages: list[str], into: Path) -> None:
        """Fetch packages and unpack them; none of their scripts is run."""
        debs = into.with_name(into.name + ".debs")
        debs.mkdir()
        self._run("apt-get", "-q", "download", *packages, cwd=debs)
        into.mkdir(exist_ok=True)
        for deb in sorted(debs.iterdir()):
            subprocess.run(["dpkg-deb", "--extract", deb, into], check=True)
            deb.unlink()
        debs.rmdir()
