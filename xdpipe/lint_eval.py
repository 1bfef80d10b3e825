"""What expressions of a user's code give, and what is wrong with them; nothing of it is run."""

from __future__ import annotations

import ast
import builtins
from abc import ABC, abstractmethod
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from xdpipe import lint_known
from xdpipe.lint_frame import Context, Frame, shown
from xdpipe.lint_module import Class, Function
from xdpipe.lint_rules import words
from xdpipe.lint_value import COUNT, SCALAR, UNKNOWN, Value, join, origin

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from xdpipe.lint_module import FunctionNode
    from xdpipe.lint_program import Program

_BUILTINS = frozenset(dir(builtins))
_PATH_TEXTS = words("name stem suffix suffixes parts anchor")
"""What a path has besides paths."""


class Expressions(ABC):
    """Goes through expressions; what statements are made of."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.attributes: dict[tuple[Class, str], Value] = {}
        """What was put into instances on the way here."""

    # What statements do

    @abstractmethod
    def enter(self, function: Function, cls: Class | None, args: Sequence[Value],
              options: Mapping[str, Value], ctx: Context, label: str) -> Value:  # fmt: skip
        """Go through a function of the user's as it is called; return what it returns."""

    @abstractmethod
    def assign(self, target: ast.expr, value: Value, frame: Frame, ctx: Context,
               at: ast.stmt | ast.expr) -> None:  # fmt: skip
        """Put a value into a target."""

    @abstractmethod
    def kept(self, place: ast.expr, value: Value, frame: Frame, ctx: Context,
             at: ast.stmt | ast.expr) -> None:  # fmt: skip
        """Note that a value is put into a container."""

    @abstractmethod
    def grows(self, place: ast.expr, frame: Frame, ctx: Context, at: ast.stmt | ast.expr) -> None:
        """Note that a container gets one more."""

    @abstractmethod
    def summary(self, cls: Class, name: str) -> Value:
        """Return what a class's methods put into self.name, taken together."""

    def note(self, code: str, node: ast.stmt | ast.expr, what: str, frame: Frame, ctx: Context,
             last: ast.expr | None = None) -> None:  # fmt: skip
        """Note a finding, if code that is run so is to be free of it.

        Args:
            code: of the rule.
            node: where.
            what: in the code.
            frame: of the code.
            ctx: how one got there.
            last: on whose last line a comment may allow it; None: on node's.
        """
        wanted = {
            "hot": code < "XP400",
            "jit": code < "XP200" or code >= "XP400",
            "cold": code == "XP111",
        }
        if wanted.get(ctx.kind, False):
            end = (last or node).end_lineno or node.lineno
            self.program.note(code, frame.module, node, end, ctx.stage, (*ctx.chain, what))

    # Expressions

    def eval(self, node: ast.expr | None, frame: Frame, ctx: Context) -> Value:
        """Go through an expression; return what it gives."""
        if node is None:
            return UNKNOWN
        method = getattr(self, f"_eval_{type(node).__name__}", None)
        if method is not None:
            value: Value = method(node, frame, ctx)
            return value
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.expr):
                self.eval(child, frame, ctx)
        return UNKNOWN

    def _eval_Constant(self, node: ast.Constant, frame: Frame, ctx: Context) -> Value:
        if isinstance(node.value, str | bytes):
            return Value(short=True)
        return UNKNOWN if node.value is None or node.value is ... else SCALAR

    def _eval_Name(self, node: ast.Name, frame: Frame, ctx: Context) -> Value:
        found = frame.find(node.id)
        if found is not None:
            return found[1]
        if node.id in _BUILTINS:
            return origin(node.id)
        if frame.module.stars:
            return origin(*(f"{star}.{node.id}" for star in frame.module.stars))
        return UNKNOWN

    def _eval_Attribute(self, node: ast.Attribute, frame: Frame, ctx: Context) -> Value:
        base = self.eval(node.value, frame, ctx)
        if base.batch:
            return lint_known.batch_attribute(node.attr)
        return self.attribute(base, node.attr, ctx, shown(node))

    def attribute(self, base: Value, name: str, ctx: Context, label: str) -> Value:
        """Return what `base.name` is; a property is gone through."""
        found = [self._of_instance(cls, name, ctx, label) for cls in base.instances]
        for cls in base.classes:
            own = cls.own(name)
            found.append(own if own is not None else UNKNOWN)
        for module in base.modules:
            found.append(self.program.name_in(module, name))
        if base.array:
            found.append(lint_known.array_attribute(base, name))
        for came in base.origins:
            if not (came.startswith("pathlib.") and name in _PATH_TEXTS) and len(came) < 200:
                found.append(origin(f"{came}.{name}"))
        return join(found)

    def _of_instance(self, cls: Class, name: str, ctx: Context, label: str) -> Value:
        if (cls, name) in self.attributes:
            return self.attributes[cls, name]
        values = [self.summary(each, name) for each in cls.order]
        own = cls.own(name)
        if own is None and not any(name in each.attributes for each in cls.order):
            bases = [base for each in cls.order for base in each.bases]
            cames = [came for base in bases for came in base.origins]
            return origin(*(f"{came}().{name}" for came in cames if not came.startswith("xdpipe.")))
        if own is not None:
            methods = own.functions
            values.append(replace(own, functions=frozenset()))
            for function, _ in methods:
                if function.decorated("property"):
                    values.append(self.enter(function, cls, (), {}, ctx, label))
                elif function.decorated("functools.cached_property"):
                    silent = ctx.silent  # it is run once
                    values.append(self.enter(function, cls, (), {}, silent, label))
                else:
                    bound = None if function.decorated("staticmethod") else cls
                    values.append(Value(functions=frozenset({(function, bound)})))
        return join(values)

    def _eval_Subscript(self, node: ast.Subscript, frame: Frame, ctx: Context) -> Value:
        base = self.eval(node.value, frame, ctx)
        index = self.eval(node.slice, frame, ctx)
        if isinstance(node.slice, ast.Slice):
            index = self.eval(node.slice.upper, frame, ctx.silent)
        elif isinstance(node.slice, ast.Tuple):
            index = join(self.eval(elt, frame, ctx.silent) for elt in node.slice.elts)
        return lint_known.subscript(base, node.slice, index)

    def _eval_BinOp(self, node: ast.BinOp, frame: Frame, ctx: Context) -> Value:
        left, right = self.eval(node.left, frame, ctx), self.eval(node.right, frame, ctx)
        if isinstance(node.op, ast.Mod) and isinstance(lint_known.constant(node.left), str):
            self.note("XP402", node, shown(node), frame, ctx)
            return UNKNOWN
        if left.array or right.array:
            return Value(per_packet=left.per_packet or right.per_packet, array=True,
                         wide=left.wide or right.wide)  # fmt: skip
        additive = isinstance(node.op, ast.Add | ast.Sub)
        if (left.count or right.count) and additive:
            return COUNT
        if additive and (left.growing or right.growing):
            return replace(join([left, right]), items=None)
        if isinstance(node.op, ast.Div) and any(o.startswith("pathlib.") for o in left.origins):
            return left
        return SCALAR if left.scalar and right.scalar else UNKNOWN

    def _eval_UnaryOp(self, node: ast.UnaryOp, frame: Frame, ctx: Context) -> Value:
        value = self.eval(node.operand, frame, ctx)
        return SCALAR if isinstance(node.op, ast.Not) else value.copy

    def _eval_BoolOp(self, node: ast.BoolOp, frame: Frame, ctx: Context) -> Value:
        return join([self.eval(value, frame, ctx) for value in node.values])

    def _eval_Compare(self, node: ast.Compare, frame: Frame, ctx: Context) -> Value:
        values = [self.eval(each, frame, ctx) for each in (node.left, *node.comparators)]
        if any(isinstance(op, ast.In | ast.NotIn | ast.Is | ast.IsNot) for op in node.ops):
            return SCALAR
        if any(value.array for value in values):
            return Value(per_packet=any(v.per_packet for v in values), array=True,
                         wide=any(v.wide for v in values))  # fmt: skip
        return SCALAR

    def _eval_IfExp(self, node: ast.IfExp, frame: Frame, ctx: Context) -> Value:
        self.eval(node.test, frame, ctx)
        return join([self.eval(each, frame, ctx) for each in (node.body, node.orelse)])

    def _eval_NamedExpr(self, node: ast.NamedExpr, frame: Frame, ctx: Context) -> Value:
        value = self.eval(node.value, frame, ctx)
        self.assign(node.target, value, frame, ctx, node)
        return value

    def _eval_Starred(self, node: ast.Starred, frame: Frame, ctx: Context) -> Value:
        return self.eval(node.value, frame, ctx)

    def _eval_Await(self, node: ast.Await, frame: Frame, ctx: Context) -> Value:
        return self.eval(node.value, frame, ctx)

    def _eval_Yield(self, node: ast.Yield, frame: Frame, ctx: Context) -> Value:
        frame.yields.append(self.eval(node.value, frame, ctx))
        return UNKNOWN

    def _eval_YieldFrom(self, node: ast.YieldFrom, frame: Frame, ctx: Context) -> Value:
        frame.yields.append(self.eval(node.value, frame, ctx).row)
        return UNKNOWN

    def _eval_JoinedStr(self, node: ast.JoinedStr, frame: Frame, ctx: Context) -> Value:
        for part in node.values:
            if isinstance(part, ast.FormattedValue):
                self.eval(part.value, frame, ctx)
        self.note("XP402", node, shown(node), frame, ctx)
        return UNKNOWN

    def _eval_Lambda(self, node: ast.Lambda, frame: Frame, ctx: Context) -> Value:
        return self.function(node, frame, ())

    def function(self, node: FunctionNode, frame: Frame, decorators: tuple[Value, ...]) -> Value:
        """Return a function as it is defined."""
        function = frame.module.functions.get(node)
        closure = frame.outer if frame.is_class else frame
        if function is None:
            owner = frame.owner if frame.is_class else None
            function = Function(node, frame.module, owner, closure, decorators)
            frame.module.functions[node] = function
        function.closure = closure
        return Value(functions=frozenset({(function, None)}))

    # Displays and comprehensions

    def _display(self, node: ast.List | ast.Tuple | ast.Set, frame: Frame, ctx: Context) -> Value:
        values = [self.eval(elt, frame, ctx) for elt in node.elts]
        growing: Literal["", "list", "set"] = (
            "list" if isinstance(node, ast.List) else "set" if isinstance(node, ast.Set) else ""
        )
        if growing:
            self.note("XP402", node, shown(node), frame, ctx)
        starred = any(isinstance(elt, ast.Starred) for elt in node.elts)
        return Value(
            items=None if starred or growing == "set" or len(values) > 64 else tuple(values),
            element=join(values) if growing == "set" else None,
            short=bool(values) and not starred, view=any(v.view for v in values), growing=growing,
        )  # fmt: skip

    _eval_List = _eval_Tuple = _eval_Set = _display

    def _eval_Dict(self, node: ast.Dict, frame: Frame, ctx: Context) -> Value:
        for key in node.keys:
            self.eval(key, frame, ctx)
        values = [self.eval(value, frame, ctx) for value in node.values]
        self.note("XP402", node, shown(node), frame, ctx)
        whole = None not in node.keys
        return Value(
            element=join(values) if values else None, short=bool(values) and whole,
            view=any(v.view for v in values), growing="dict",
        )  # fmt: skip

    def _comprehension(
        self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp, frame: Frame,
        ctx: Context,
    ) -> Value:  # fmt: skip
        inner = Frame(frame.module, {}, outer=frame)
        entries = False
        for generator in node.generators:
            through = self.eval(generator.iter, inner, ctx)
            if through.per_packet or through.batch:
                entries = True
                self.note("XP201", node, shown(node), frame, ctx)
            ctx = self.in_loop(ctx, through)
            self.assign(generator.target, through.row, inner, ctx.silent, node)
            for test in generator.ifs:
                self.eval(test, inner, ctx)
        if isinstance(node, ast.DictComp):
            self.eval(node.key, inner, ctx)
            element = self.eval(node.value, inner, ctx)
        else:
            element = self.eval(node.elt, inner, ctx)
        growing: Literal["", "list", "set", "dict"] = (
            "list" if isinstance(node, ast.ListComp)
            else "set" if isinstance(node, ast.SetComp)
            else "dict" if isinstance(node, ast.DictComp) else ""
        )  # fmt: skip
        if not isinstance(node, ast.GeneratorExp):
            self.note("XP402", node, shown(node), frame, ctx)
        return Value(per_packet=entries, element=element, view=element.view, growing=growing)

    _eval_ListComp = _eval_SetComp = _eval_GeneratorExp = _eval_DictComp = _comprehension

    def in_loop(self, ctx: Context, through: Value) -> Context:
        """Return the context of the body of a loop through this."""
        if ctx.loop == "packets" or through.per_packet or through.batch:
            return replace(ctx, loop="packets")
        return ctx if through.short else replace(ctx, loop="some")
