"""Where a user's code puts values: into names, instances and containers, and whether it may."""

from __future__ import annotations

import ast
from dataclasses import replace
from typing import TYPE_CHECKING

from xdpipe.lint_calls import Calls
from xdpipe.lint_frame import Context, Frame, shown
from xdpipe.lint_growth import attribute_is_bounded, global_is_bounded, key_is_bounded
from xdpipe.lint_value import COUNT, SCALAR, UNKNOWN, Value, join

if TYPE_CHECKING:
    from collections.abc import Sequence

_GROWING_ARRAYS = frozenset(
    f"numpy.{name}" for name in ("append", "concatenate", "hstack", "vstack", "insert")
)
_COUNTING = frozenset({"collections.Counter()", "collections.defaultdict()"})


class Stores(Calls):
    """Puts values into targets."""

    def assign(self, target: ast.expr, value: Value, frame: Frame, ctx: Context,
               at: ast.stmt | ast.expr) -> None:  # fmt: skip
        """Put a value into a target."""
        if isinstance(target, ast.Name):
            if target.id in frame.of_module:
                if value.view:
                    self.note("XP301", at, shown(at), frame, ctx)
                names = frame.module.names
                names[target.id] = join([names.get(target.id, UNKNOWN), value])
            else:
                frame.names[target.id] = value
        elif isinstance(target, ast.Starred):
            self.assign(target.value, Value(element=value.row), frame, ctx, at)
        elif isinstance(target, ast.Tuple | ast.List):
            for part, each in zip(target.elts, _unpacked(value, target.elts), strict=True):
                self.assign(part, each, frame, ctx, at)
        elif isinstance(target, ast.Attribute):
            self._put_attribute(target, value, frame, ctx, at)
        elif isinstance(target, ast.Subscript):
            base = self.eval(target.value, frame, ctx.silent)
            self.eval(target.slice, frame, ctx)
            if base.growing:
                self.kept(target.value, value, frame, ctx, at)
            if base.growing == "dict":
                self._grows_by_key(target, frame, ctx, at)

    def _put_attribute(self, target: ast.Attribute, value: Value, frame: Frame, ctx: Context,
                       at: ast.stmt | ast.expr) -> None:  # fmt: skip
        base = self.eval(target.value, frame, ctx.silent)
        for cls in base.instances:
            if ctx.kind in ("silent", "cold"):
                before = cls.attributes.get(target.attr)
                cls.attributes[target.attr] = value if before is None else join([before, value])
            self.attributes[cls, target.attr] = value
        kept = self._place(target, frame) is not None or base.classes
        if value.view and kept and not frame.in_init:
            self.note("XP301", at, shown(at), frame, ctx)

    # What is kept, and what grows

    def _place(self, node: ast.expr, frame: Frame) -> tuple[str, str] | None:
        """Return where something is that outlives the batch: ("self", name) or ("global", name)."""
        self_name = frame.method.self_name
        while isinstance(node, ast.Attribute | ast.Subscript):
            inner = node.value
            if isinstance(node, ast.Attribute) and self_name and _is_name(inner, self_name):
                return "self", node.attr
            node = inner
        if isinstance(node, ast.Name):
            found = frame.find(node.id)
            if found is not None and found[0].outer is None and not found[1].modules:
                return "global", node.id
        return None

    def kept(self, place: ast.expr, value: Value, frame: Frame, ctx: Context,
             at: ast.stmt | ast.expr) -> None:  # fmt: skip
        """Note that a value is put into a container."""
        if isinstance(place, ast.Name) and (found := frame.find(place.id)):
            holder, before = found
            holder.names[place.id] = replace(
                before, items=None, short=False, view=before.view or value.view,
                element=join([before.row, value]),
                per_packet=before.per_packet or ctx.loop == "packets",
            )  # fmt: skip
        if value.view and self._place(place, frame) is not None and not frame.in_init:
            self.note("XP301", at, shown(at), frame, ctx)

    def grows(self, place: ast.expr, frame: Frame, ctx: Context, at: ast.stmt | ast.expr) -> None:
        """Note that a container gets one more."""
        where = self._place(place, frame)
        if where is None or frame.in_init or ctx.kind != "hot":
            return
        kind, name = where
        method = frame.method
        if kind == "self":
            bounded = method.cls is not None and attribute_is_bounded(method.cls.order, name)
        else:
            bounded = global_is_bounded(frame.module, name)
        if not bounded:
            self.note("XP302", at, shown(at), frame, ctx)

    def _grows_by_key(self, target: ast.Subscript, frame: Frame, ctx: Context,
                      at: ast.stmt | ast.expr) -> None:  # fmt: skip
        key = self.eval(target.slice, frame, ctx.silent)
        if not (key_is_bounded(target.slice) or key.short or isinstance(target.slice, ast.Slice)):
            self.grows(target.value, frame, ctx, at)

    def _look_at_regrowth(
        self, target: ast.expr, node: ast.Assign, frame: Frame, ctx: Context
    ) -> None:
        """Look whether something is assigned to itself with more behind it."""
        if not isinstance(target, ast.Attribute | ast.Name) or not isinstance(node.value, ast.Call):
            return
        called = self.eval(node.value.func, frame, ctx.silent)
        text = ast.unparse(target)
        again = any(ast.unparse(each) == text for arg in node.value.args for each in ast.walk(arg)
                    if isinstance(each, ast.Attribute | ast.Name))  # fmt: skip
        if called.origins & _GROWING_ARRAYS and again:
            self.grows(target, frame, ctx, node)

    def _run_AugAssign(self, node: ast.AugAssign, frame: Frame, ctx: Context) -> None:
        target, value = node.target, self.eval(node.value, frame, ctx)
        before = self.eval(target, frame, ctx)
        if isinstance(target, ast.Name) and not before.array:
            summed = ast.BinOp(target, node.op, node.value)
            after = self._eval_BinOp(summed, frame, ctx.silent)
            self.assign(target, after, frame, ctx.silent, node)
        if before.growing in ("list", "set") and isinstance(node.op, ast.Add | ast.BitOr):
            self.kept(target, value, frame, ctx, node)
            self.grows(target, frame, ctx, node)
        elif isinstance(target, ast.Subscript):
            base = self.eval(target.value, frame, ctx.silent)
            if base.origins & _COUNTING:
                self._grows_by_key(target, frame, ctx, node)


def _is_name(node: ast.expr, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def _unpacked(value: Value, targets: Sequence[ast.expr]) -> list[Value]:
    n = len(targets)
    starred = any(isinstance(target, ast.Starred) for target in targets)
    if value.items is not None and len(value.items) == n and not starred:
        return list(value.items)
    if value.shape:
        return [COUNT, *[SCALAR] * (n - 1)]
    return [value.row if value.items is not None or value.element is not None else UNKNOWN] * n
