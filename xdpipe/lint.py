"""Read a pipeline's stages, without running them, for what breaks a hot path: `check --lint`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from xdpipe.errors import XdpipeError
from xdpipe.lint_program import Program
from xdpipe.lint_rules import RULES


@dataclass(frozen=True)
class Finding:
    """Something that breaks a hot path.

    Attributes:
        code: of the rule.
        file: as it was named; one beside it likewise.
        line: from 1 on.
        column: from 1 on, in characters.
        stage: the class, or the function of a jit stage; empty: the file itself, as it is imported.
        chain: from the stage to what is wrong, call by call.
        title: of the rule.
        why: it is wrong there.
        cure: what to do instead.
    """

    code: str
    file: str
    line: int
    column: int
    stage: str
    chain: tuple[str, ...]
    title: str
    why: str
    cure: str

    def __str__(self) -> str:
        return (
            f"{self.file}:{self.line}:{self.column}: {self.code} {self.title}: "
            f"{' → '.join(self.chain)}: {self.why}; {self.cure}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return what `--json` shows."""
        return {**asdict(self), "chain": list(self.chain)}


@dataclass(frozen=True)
class Lint:
    """What was found in a file and the modules beside it.

    Attributes:
        findings: in the order of files and lines.
        n_allowed: how many more there are that a comment allows: `# noqa: XP103`.
    """

    findings: tuple[Finding, ...]
    n_allowed: int

    def to_dict(self) -> dict[str, Any]:
        """Return what `--json` shows."""
        return {
            "findings": [finding.to_dict() for finding in self.findings],
            "allowed": self.n_allowed,
        }


def lint(file: str | Path) -> Lint:
    """Read a pipeline file and look for what breaks its stages' hot path.

    Looked at is what runs for each batch: `process` of each class that derives from Stage, jit
    stages, and the functions and methods that they call, in the file and in modules beside it.

    Raises:
        XdpipeError: no such file, or no Python; the message begins with file and line.
    """
    path = Path(file)
    if not path.is_file():
        raise XdpipeError(f"{file}: no such file; name a Python file that declares `pipeline`")
    try:
        program = Program(path, str(file))
        program.look()
    except RecursionError:
        raise XdpipeError(f"{file}:1: nested too deeply to be read") from None
    findings = [
        Finding(p.code, p.file, p.line, p.column, p.stage, p.chain, rule.title, rule.why, rule.cure)
        for p in program.places.values()
        for rule in (RULES[p.code],)
    ]
    findings.sort(key=lambda f: (f.file != str(file), f.file, f.line, f.column, f.code))
    return Lint(tuple(findings), program.n_allowed)
