"""Whether what grows in a user's stage is cut back somewhere, by the text of its code."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from xdpipe.lint_rules import words

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from xdpipe.lint_module import Class, Module

GROWS = words("append appendleft extend extendleft insert add update setdefault")
_SHRINKS = words("clear pop popitem popleft remove discard")
_RARELY_CALLED = ("__init__", "report")


def _is(node: ast.AST, name: str, *, attribute: bool) -> bool:
    if attribute:
        named = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
        return named and node.attr == name  # type: ignore[attr-defined]
    return isinstance(node, ast.Name) and node.id == name


def _mentions(node: ast.AST, name: str, *, attribute: bool) -> bool:
    return any(_is(each, name, attribute=attribute) for each in ast.walk(node))


def _shrinks(node: ast.AST, name: str, *, attribute: bool) -> bool:
    """Return whether a statement or expression cuts it back, puts another there, or looks."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        if node.func.attr in _SHRINKS:
            return _mentions(node.func.value, name, attribute=attribute)
    elif isinstance(node, ast.Delete):
        return any(_mentions(target, name, attribute=attribute) for target in node.targets)
    elif isinstance(node, ast.Compare):
        return any(
            isinstance(call, ast.Call)
            and _is(call.func, "len", attribute=False)
            and _mentions(call, name, attribute=attribute)
            for call in ast.walk(node)
        )
    elif isinstance(node, ast.Assign):
        for target in node.targets:
            if isinstance(target, ast.Tuple | ast.List):
                if any(_is(each, name, attribute=attribute) for each in target.elts):
                    return True
            elif isinstance(target, ast.Subscript) and isinstance(target.slice, ast.Slice):
                if _is(target.value, name, attribute=attribute):
                    return True
            elif _is(target, name, attribute=attribute):
                grown = _mentions(node.value, name, attribute=attribute)
                return not grown or isinstance(node.value, ast.Subscript)
    return False


def _bounded_in(nodes: Iterable[ast.AST], name: str, *, attribute: bool) -> bool:
    return any(
        _shrinks(each, name, attribute=attribute) for node in nodes for each in ast.walk(node)
    )


def attribute_is_bounded(classes: Sequence[Class], name: str) -> bool:
    """Return whether self.name is cut back in a method that is called while the pipeline runs."""
    methods = [
        node
        for cls in classes
        for node in cls.node.body
        if not (isinstance(node, ast.FunctionDef) and node.name in _RARELY_CALLED)
    ]
    return _bounded_in(methods, name, attribute=True)


def global_is_bounded(module: Module, name: str) -> bool:
    """Return whether a module's name is cut back in one of its functions."""
    functions = (
        node for node in ast.walk(module.tree)
        if isinstance(node, ast.FunctionDef) and node.name not in _RARELY_CALLED
    )  # fmt: skip
    return _bounded_in(functions, name, attribute=False)


def key_is_bounded(key: ast.expr) -> bool:
    """Return whether a key is one of few, by how it is written: a constant, a remainder."""
    if isinstance(key, ast.Constant):
        return True
    if isinstance(key, ast.Tuple):
        return all(map(key_is_bounded, key.elts))
    if isinstance(key, ast.Attribute) and key.attr == "port":
        return True
    return isinstance(key, ast.BinOp) and isinstance(key.op, ast.Mod | ast.BitAnd)
