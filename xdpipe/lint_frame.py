"""Where one stands in a user's code while reading it: how one got there, and the names there."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from xdpipe.lint_module import Class, Module
    from xdpipe.lint_value import Value

_LABEL = 60


@dataclass(frozen=True)
class Context:
    """How one got to some code.

    Attributes:
        stage: whose code it is.
        chain: by which calls, the first function first.
        kind: `hot`: it runs for each batch; `jit`: as machine code; `cold`: once; `silent`: only
            what it leaves behind is of interest.
        loop: `packets`: within a loop over packets; `some`: within another one.
    """

    stage: str
    chain: tuple[str, ...]
    kind: Literal["hot", "jit", "cold", "silent"]
    loop: Literal["", "some", "packets"] = ""

    @property
    def silent(self) -> Context:
        """The same where only what it leaves behind is of interest."""
        return replace(self, kind="silent")


SILENT = Context("", (), "silent")


@dataclass(eq=False)
class Frame:
    """The names that code sees: its own, then those of what it stands in; the last is a module's.

    Attributes:
        self_name: what a method calls its instance.
        owner: the class in whose body the function stands.
        cls: the class of the instance.
    """

    module: Module
    names: dict[str, Value]
    outer: Frame | None = None
    self_name: str = ""
    owner: Class | None = None
    cls: Class | None = None
    is_class: bool = False
    in_init: bool = False
    of_module: set[str] = field(default_factory=set)
    returns: list[Value] = field(default_factory=list)
    yields: list[Value] = field(default_factory=list)

    def find(self, name: str) -> tuple[Frame, Value] | None:
        """Return a name's value, and the frame that has it."""
        frame: Frame | None = self
        while frame is not None:
            if name in frame.names:
                return frame, frame.names[name]
            frame = frame.outer
        return None

    @property
    def method(self) -> Frame:
        """The frame of the method that the code stands in, its own where it stands in none."""
        frame: Frame | None = self
        while frame is not None and not frame.self_name:
            frame = frame.outer
        return self if frame is None else frame


def shown(node: ast.AST) -> str:
    """Return code as it is told in one line."""
    if isinstance(node, ast.For | ast.AsyncFor | ast.With | ast.AsyncWith):
        text = ast.unparse(node).partition("\n")[0].rstrip(":")
    else:
        text = " ".join(ast.unparse(node).split())
    return text if len(text) <= _LABEL else f"{text[: _LABEL - 1]}…"


def last_name(node: ast.expr) -> str:
    """Return what stands behind the last dot."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""
