"""A file of the user's as read, never run: its tree, its names, and what its comments allow."""

from __future__ import annotations

import ast
import io
import re
import tokenize
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from xdpipe.errors import XdpipeError

if TYPE_CHECKING:
    from xdpipe.lint_value import Value

_NOQA = re.compile(
    r"#\s*noqa(?::\s*(?P<codes>[A-Z]+[0-9]+(?:[,\s]+[A-Z]+[0-9]+)*))?(?![\w:])", re.IGNORECASE
)
"""As flake8 and ruff read it: `# noqa`, or `# noqa: XP103, XP201`."""

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


@dataclass(eq=False)
class Module:
    """One file.

    Attributes:
        path: where it lies.
        shown: what to call it.
        name: by which others import it, dotted.
        package: whether it is a package's __init__.py.
        names: what its names are, once it was gone through.
        stars: modules elsewhere from which it imports all names.
        allowed: for a line, the codes that a comment allows there; () means all.
    """

    path: Path
    shown: str
    name: str
    package: bool
    tree: ast.Module
    lines: list[str]
    allowed: dict[int, tuple[str, ...]]
    names: dict[str, Value] = field(default_factory=dict)
    stars: list[str] = field(default_factory=list)
    classes: dict[ast.ClassDef, Class] = field(default_factory=dict)
    functions: dict[FunctionNode, Function] = field(default_factory=dict)

    def place(self, node: ast.expr | ast.stmt | ast.alias) -> tuple[int, int]:
        """Return line and column, from 1 on, in characters."""
        line = self.lines[node.lineno - 1] if node.lineno <= len(self.lines) else ""
        before = line.encode()[: node.col_offset].decode(errors="replace")
        return node.lineno, len(before) + 1

    def allows(self, code: str, first: int, last: int) -> bool:
        """Return whether a comment on the first or last line of something allows it."""
        for line in {first, last}:
            codes = self.allowed.get(line)
            if codes is not None and (not codes or any(code.startswith(c) for c in codes)):
                return True
        return False


@dataclass(eq=False)
class Class:
    """A class of the user's.

    Attributes:
        names: what stands in its body.
        attributes: what its methods put into self, taken together.
    """

    node: ast.ClassDef
    module: Module
    bases: tuple[Value, ...]
    names: dict[str, Value] = field(default_factory=dict)
    attributes: dict[str, Value] = field(default_factory=dict)
    summed: bool = False

    def __post_init__(self) -> None:
        """Note it and those of its bases that are the user's own, in the order of look-up."""
        bases = (cls for base in self.bases for own in base.classes for cls in own.order)
        self.order: tuple[Class, ...] = tuple(dict.fromkeys((self, *bases)))

    @property
    def is_stage(self) -> bool:
        """Whether it derives from a stage of xdpipe's, however far."""
        return any(
            name.startswith("xdpipe.stages.")
            or (name.startswith("xdpipe.") and name.endswith("Stage"))
            for cls in self.order
            for base in cls.bases
            for name in base.origins
        )  # fmt: skip

    def own(self, name: str) -> Value | None:
        """Return what stands under a name in its body or, failing that, in those of its bases."""
        return next((cls.names[name] for cls in self.order if name in cls.names), None)


@dataclass(eq=False)
class Function:
    """A function or method of the user's.

    Attributes:
        owner: the class in whose body it stands.
        closure: names of the function that it stands in, when that was last gone through.
        decorators: what it is decorated by.
    """

    node: FunctionNode
    module: Module
    owner: Class | None
    closure: object
    decorators: tuple[Value, ...] = ()

    def decorated(self, *names: str) -> bool:
        """Return whether a decorator, called or not, comes from a name or from below `name.`."""
        return any(
            origin.removesuffix("()") == name or (name.endswith(".") and origin.startswith(name))
            for value in self.decorators
            for origin in value.origins
            for name in names
        )


def _allowed(source: str) -> dict[int, tuple[str, ...]]:
    found: dict[int, tuple[str, ...]] = {}
    if "noqa" not in source.lower():
        return found
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT and (match := _NOQA.search(token.string)):
            codes = re.split(r"[,\s]+", match["codes"].strip()) if match["codes"] else []
            found[token.start[0]] = tuple(code.upper() for code in codes)
    return found


def read_module(path: Path, shown: str, name: str) -> Module:
    """Read a file and take it apart.

    Raises:
        XdpipeError: it cannot be read, or is no Python; the message begins with file and line.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise XdpipeError(f"{shown}: {error.strerror}; name a Python file") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the user's code, by who runs it
            tree = ast.parse(data, str(path))
        encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
        source = io.TextIOWrapper(io.BytesIO(data), encoding).read()
        allowed = _allowed(source)
    except SyntaxError as error:
        raise XdpipeError(f"{shown}:{error.lineno or 1}: {error.msg}") from error
    except (ValueError, LookupError, RecursionError, MemoryError, tokenize.TokenError) as error:
        raise XdpipeError(f"{shown}:1: cannot be read as Python: {error}") from error
    package = path.name == "__init__.py"
    return Module(path, shown, name, package, tree, source.split("\n"), allowed)
