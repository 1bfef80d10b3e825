"""A user's file and the modules beside it that it imports, and what was found in them."""

from __future__ import annotations

import ast
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xdpipe.lint_frame import SILENT, Context, Frame
from xdpipe.lint_module import Module, read_module
from xdpipe.lint_rules import JIT_DECORATORS
from xdpipe.lint_value import UNKNOWN, Value, origin
from xdpipe.lint_walk import Walk

if TYPE_CHECKING:
    from pathlib import Path

    from xdpipe.lint_module import Class, Function

_ELSEWHERE = frozenset({"xdpipe", *sys.stdlib_module_names})
"""Modules that are not the user's, even if there are files of that name beside the pipeline's."""


@dataclass(frozen=True)
class Place:
    """Something that breaks a hot path: which rule, where, and how one gets there."""

    code: str
    file: str
    line: int
    column: int
    stage: str
    chain: tuple[str, ...]


class Program:
    """The code that a pipeline file brings with it; read, never run.

    Args:
        path: of the file.
        shown: what to call it.

    Raises:
        XdpipeError: it, or a module beside it, cannot be read or is no Python.
    """

    def __init__(self, path: Path, shown: str) -> None:
        self._root = path.resolve().parent
        self._shown_root = shown[: len(shown) - len(path.name)] if shown.endswith(path.name) else ""
        self._modules: dict[str, Module | None] = {}
        self._frames: dict[Module, Frame] = {}
        self.places: dict[tuple[str, int, int, str], Place] = {}
        """By file, line, column and code; how one gets there first."""
        self.n_allowed = 0
        self._allowed: set[tuple[str, int, int, str]] = set()
        self.main = read_module(path, shown, path.stem)
        self._modules[path.stem] = self.main
        self._go_through(self.main)

    def frame(self, module: Module) -> Frame:
        """Return the frame of a module's names."""
        if module not in self._frames:
            self._frames[module] = Frame(module, module.names)
        return self._frames[module]

    def _go_through(self, module: Module) -> None:
        """Go through a module as an import would, and through classes that stand deeper in it."""
        ctx = Context("", (module.shown,), "cold")
        walk = Walk(self)
        walk.run(module.tree.body, self.frame(module), ctx)
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ClassDef) and node not in module.classes:
                names = dict(module.names)
                walk.run([node], Frame(module, names, outer=self.frame(module)), SILENT)

    def look(self) -> None:
        """Go through what runs for each batch, and what runs once in a stage."""
        for module in list(filter(None, self._modules.values())):
            for cls in list(module.classes.values()):
                if cls.is_stage:
                    self._look_at_stage(cls)
            for function in list(module.functions.values()):
                if function.decorated(*JIT_DECORATORS):
                    self._look_at_jit(function)

    def _look_at_stage(self, cls: Class) -> None:
        name = cls.node.name
        batch = Value(batch=True)
        for method, kind, args in (("__init__", "cold", ()), ("process", "hot", (batch,))):
            own = cls.own(method)
            for function, _ in own.functions if own is not None else ():
                ctx = Context(name, (), kind)  # type: ignore[arg-type]
                Walk(self).enter(function, cls, args, {}, ctx, f"{name}.{method}")

    def _look_at_jit(self, function: Function) -> None:
        name = getattr(function.node, "name", "lambda")
        Walk(self).enter(function, None, (Value(batch=True),), {}, Context(name, (), "jit"), name)

    # Modules beside the file

    def absolute(self, module: Module, name: str, level: int) -> str:
        """Return the full name of what `from ..name import …` in a module names."""
        if level == 0:
            return name
        parts = module.name.split(".") if module.name else []
        up = level - 1 if module.package else level
        return ".".join([*parts[: len(parts) - up], *([name] if name else [])])

    def load(self, name: str) -> Module | None:
        """Return a module of the user's, None if it is somebody else's."""
        if not name or name.partition(".")[0] in _ELSEWHERE:
            return None
        if name not in self._modules:
            self._modules[name] = None  # while it is gone through, for one that imports it in turn
            parts = name.split(".")
            base = self._root.joinpath(*parts)
            for path in (base.with_name(f"{parts[-1]}.py"), base / "__init__.py"):
                if path.is_file():
                    where = path.relative_to(self._root).as_posix()
                    module = read_module(path, f"{self._shown_root}{where}", name)
                    self._modules[name] = module
                    self._go_through(module)
                    break
        return self._modules[name]

    def imported(self, name: str) -> Value:
        """Return what `import name` makes of a name."""
        module = self.load(name)
        return Value(modules=frozenset({module})) if module is not None else origin(name)

    def imported_from(self, source: str, name: str) -> Value:
        """Return what `from source import name` gives."""
        module = self.load(source)
        if module is not None:
            return self.name_in(module, name)
        return self.imported(f"{source}.{name}" if source else name)

    def name_in(self, module: Module, name: str) -> Value:
        """Return what a module of the user's has under a name, or a module below it."""
        if name in module.names:
            return module.names[name]
        below = self.load(f"{module.name}.{name}") if module.package else None
        return Value(modules=frozenset({below})) if below is not None else UNKNOWN

    # Findings

    def note(self, code: str, module: Module, node: ast.stmt | ast.expr, last: int, stage: str,
             chain: tuple[str, ...]) -> None:  # fmt: skip
        """Note a finding, unless a comment allows it."""
        line, column = module.place(node)
        key = (module.shown, line, column, code)
        if module.allows(code, line, last):
            self._allowed.add(key)
            self.n_allowed = len(self._allowed)
        elif key not in self.places:
            self.places[key] = Place(code, module.shown, line, column, stage, chain)
