"""Calls in a user's code: which rule is about them, where they lead, and what they give."""

from __future__ import annotations

import ast
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from xdpipe import lint_known, lint_rules
from xdpipe.lint_eval import Expressions
from xdpipe.lint_frame import SILENT, Context, Frame, last_name, shown
from xdpipe.lint_growth import GROWS
from xdpipe.lint_value import UNKNOWN, Value, join, origin

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from xdpipe.lint_module import Class, Function


_PUSHES = frozenset({"heapq.heappush", *(f"bisect.insort{s}" for s in ("", "_left", "_right"))})
"""Functions that put something into their first argument."""


@dataclass(frozen=True)
class Call:
    """A call, and what is known of its parts.

    Attributes:
        node: in the code.
        base: what the method is of; UNKNOWN where no method is called.
        called: what is called.
        args: the arguments without a name.
        options: those with one.
    """

    node: ast.Call
    base: Value
    called: Value
    args: Sequence[Value]
    options: Mapping[str, Value]

    @property
    def label(self) -> str:
        """What the code calls it."""
        return shown(self.node.func)

    @property
    def method(self) -> str:
        """The name of the method; empty where none is called."""
        return self.node.func.attr if isinstance(self.node.func, ast.Attribute) else ""

    @property
    def everything(self) -> list[Value]:
        """All arguments."""
        return [*self.args, *self.options.values()]

    @property
    def written(self) -> dict[str, ast.expr]:
        """The arguments with a name, as the code has them."""
        return {k.arg: k.value for k in self.node.keywords if k.arg}

    @property
    def of_super(self) -> bool:
        """Whether it is `super().method(…)`."""
        func = self.node.func
        return (
            isinstance(func, ast.Attribute)
            and isinstance(func.value, ast.Call)
            and last_name(func.value.func) == "super"
        )


class Calls(Expressions):
    """Goes through calls."""

    def _eval_Call(self, node: ast.Call, frame: Frame, ctx: Context) -> Value:
        func, base, called = node.func, UNKNOWN, UNKNOWN
        if isinstance(func, ast.Attribute):
            base = self.eval(func.value, frame, ctx)
            if not base.batch:
                called = self.attribute(base, func.attr, ctx, shown(func))
        else:
            called = self.eval(func, frame, ctx)
        args = [self.eval(arg, frame, ctx) for arg in node.args]
        options = {k.arg or "**": self.eval(k.value, frame, ctx) for k in node.keywords}
        call = Call(node, base, called, args, options)
        if base.batch:
            if call.method == "packet" and ctx.loop:
                self.note("XP204", node, shown(node), frame, ctx)
            return lint_known.batch_method(call.method, args)
        if last_name(func) == "super" and not node.args:
            return self._super(frame)
        code = self._look_at_call(call, frame, ctx)
        results = self._own_calls(call, frame, ctx)
        unknown = not results and base.origins <= {"collections.deque()"}
        if call.method in GROWS and (base.growing or (unknown and "append" in call.method)):
            self._put_into(call, frame, ctx)
        if results:
            return join(results)
        if code != "XP111":  # a thread's function is not on the way
            self._given_functions(call.everything, ctx)
        return self._result(call)

    def _result(self, call: Call) -> Value:
        """Return what a call gives that leads out of the user's code."""
        base = call.base
        if base.array or (base.view and not base.growing):
            n_given = len(call.args)
            return lint_known.array_method(base, call.method, call.args, call.written, n_given)
        if base.growing and not base.origins:
            return lint_known.container_method(base, call.method)
        return join(self._known_call(came, call) for came in sorted(call.called.origins))

    def _known_call(self, came: str, call: Call) -> Value:
        if came.startswith("numpy."):
            name = came.removeprefix("numpy.")
            return lint_known.numpy_call(name, call.everything, call.written, len(call.args))
        known = lint_known.python_call(came, call.args, call.node.args, call.written)
        if known is not None:
            return known
        if came == "getattr" and len(call.args) > 1:
            name_given = lint_known.constant(call.node.args[1])
            if isinstance(name_given, str):
                if call.args[0].batch:
                    return lint_known.batch_attribute(name_given)
                return self.attribute(call.args[0], name_given, SILENT, name_given)
        return origin(f"{came}()") if len(came) < 200 else UNKNOWN

    # Where calls lead

    def _super(self, frame: Frame) -> Value:
        """Return what super() finds: the class behind the one in whose body the method stands."""
        method = frame.method
        if method.cls is None or method.owner not in method.cls.order:
            return UNKNOWN
        place = method.cls.order.index(method.owner)
        return Value(instances=frozenset(method.cls.order[place + 1 : place + 2]))

    def _own_calls(self, call: Call, frame: Frame, ctx: Context) -> list[Value]:
        """Go through those of the user's own functions and classes that are called."""
        starred = any(isinstance(arg, ast.Starred) for arg in call.node.args)
        passed = () if starred else call.args
        functions: set[tuple[Function, Class | None]] = set(call.called.functions)
        for cls in call.called.instances:
            functions |= {(f, cls) for f, _ in (cls.own("__call__") or UNKNOWN).functions}
        results = []
        for function, of in sorted(functions, key=lambda pair: pair[0].node.lineno):
            self._look_at_decorators(function, call, frame, ctx)
            if of is not None and call.of_super:
                of = frame.method.cls  # what super() found is of the class it was called in
            results.append(self.enter(function, of, passed, call.options, ctx, call.label))
        for made in sorted(call.called.classes, key=lambda cls: cls.node.lineno):
            for function, _ in (made.own("__init__") or UNKNOWN).functions:
                self.enter(function, made, passed, call.options, ctx, call.label)
            view = any(value.view for value in call.everything)
            results.append(Value(instances=frozenset({made}), view=view))
        return results

    def _given_functions(self, args: Sequence[Value], ctx: Context) -> None:
        """Go through functions that are handed to others, which will call them."""
        through = any(arg.per_packet for arg in args)
        inner = replace(ctx, loop="packets" if through else ctx.loop)
        for arg in args:
            for function, cls in arg.functions:
                name = getattr(function.node, "name", "lambda")
                self.enter(function, cls, (), {}, inner, name)

    # What calls are about

    def _look_at_call(self, call: Call, frame: Frame, ctx: Context) -> str | None:
        """Look which rule is about a call, and return its code."""
        node = call.node
        for came in sorted(call.called.origins):
            if came in _PUSHES and node.args:
                self.grows(node.args[0], frame, ctx, node)
            if code := self._rule(came, call, ctx):
                whole = code in ("XP202", "XP402")
                what = shown(node) if whole else _told(call.label, came)
                self.note(code, node, what, frame, ctx)
                return code
        if not isinstance(node.func, ast.Attribute):
            return None
        if ctx.kind == "jit" and call.method in lint_rules.JIT_ARRAY_METHODS:
            self.note("XP401", node, call.label, frame, ctx)
        elif call.method == "format":
            self.note("XP402", node, call.label, frame, ctx)
        called, base = call.called, call.base
        known = called.functions or called.instances or called.origins or base.growing
        if not known and (call.method == "tofile" or not base.array):
            by_name = lint_rules.rule_of_method(last_name(node.func.value), call.method)
            if by_name is not None:
                self.note(by_name, node, call.label, frame, ctx)
                return by_name
        return None

    def _rule(self, came: str, call: Call, ctx: Context) -> str | None:
        """Return the code of the rule that is about calling what came from there, here."""
        if code := lint_rules.rule_of_call(came):
            return code
        if ctx.kind == "jit":
            if lint_rules.makes_array(came):
                return "XP401"
            return "XP402" if came in lint_rules.JIT_OBJECTS else None
        if ctx.loop == "packets" and lint_rules.is_clock(came):
            return "XP205"
        return "XP202" if lint_known.goes_through(came, call.args) else None

    def _look_at_decorators(
        self, function: Function, call: Call, frame: Frame, ctx: Context
    ) -> None:
        """Look at what a function that is called became by its decorators."""
        if isinstance(function.node, ast.Lambda):
            return
        decorators = zip(function.node.decorator_list, function.decorators, strict=False)
        for node, value in decorators:
            if any(lint_rules.rule_of_call(came) == "XP203" for came in value.origins):
                self.note("XP203", call.node, f"{call.label} → @{shown(node)}", frame, ctx)
            options = node.keywords if isinstance(node, ast.Call) else []
            unbounded = any(
                k.arg == "maxsize" and isinstance(k.value, ast.Constant) and k.value.value is None
                for k in options
            )
            cache = "functools.cache" in value.origins
            if cache or (unbounded and "functools.lru_cache()" in value.origins):
                there = Frame(function.module, {})
                self.note("XP302", node, f"{call.label} → @{shown(node)}", there, ctx)

    def _put_into(self, call: Call, frame: Frame, ctx: Context) -> None:
        """Look at a call that puts something into a container."""
        assert isinstance(call.node.func, ast.Attribute)
        place = call.node.func.value
        for value in call.args:
            self.kept(place, value, frame, ctx, call.node)
        if call.base.growing or not call.base.origins:
            self.grows(place, frame, ctx, call.node)


def _told(label: str, came: str) -> str:
    """Return what is called, as the code says it, and where it came from if that differs."""
    if label == came or "." not in f"{label}{came}":
        return label
    same = label.rpartition(".")[2] == came.rpartition(".")[2]
    return came if same and "(" not in came else f"{label} ({came})"
