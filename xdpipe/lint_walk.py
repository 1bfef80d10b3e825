"""The way through a user's code as it would run: statement by statement, from call to call."""

from __future__ import annotations

import ast
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from xdpipe import lint_rules
from xdpipe.lint_frame import SILENT, Context, Frame, last_name, shown
from xdpipe.lint_known import SMALL_STEP, constant
from xdpipe.lint_module import Class
from xdpipe.lint_stores import Stores
from xdpipe.lint_value import UNKNOWN, Value, join

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from xdpipe.lint_module import Function
    from xdpipe.lint_program import Program

K = TypeVar("K")

_DEEPEST = 40
"""Calls within calls that are followed."""
_MOST = 1000
"""Calls that are followed from one place on."""


class Walk(Stores):
    """Goes through code from one place on, a stage's process for one.

    Args:
        program: whose code.
    """

    def __init__(self, program: Program) -> None:
        super().__init__(program)
        self._active: list[Function] = []
        self._results: dict[object, Value] = {}
        self._n_entered = 0

    # From call to call

    def enter(self, function: Function, cls: Class | None, args: Sequence[Value],
              options: Mapping[str, Value], ctx: Context, label: str) -> Value:  # fmt: skip
        """Go through a function of the user's as it is called; return what it returns."""
        compiled = function.decorated(*lint_rules.COMPILED, *lint_rules.JIT_DECORATORS)
        if compiled and ctx.kind != "jit":
            return UNKNOWN
        key = (
            function,
            cls,
            tuple(args),
            tuple(sorted(options.items(), key=_first)),
            ctx.kind,
            ctx.loop,
        )
        if key in self._results:
            return self._results[key]
        too_many = len(self._active) > _DEEPEST or self._n_entered > _MOST
        if too_many or function in self._active:
            return UNKNOWN
        self._n_entered += 1
        self._active.append(function)
        inner = replace(ctx, chain=(*ctx.chain, label)) if label else ctx
        value = self._go_through(function, cls, args, options, inner)
        self._active.pop()
        self._results[key] = value
        return value

    def _go_through(self, function: Function, cls: Class | None, args: Sequence[Value],
                    options: Mapping[str, Value], ctx: Context) -> Value:  # fmt: skip
        closure = function.closure
        assert isinstance(closure, Frame)
        frame = Frame(
            function.module, {}, outer=closure, owner=function.owner, cls=cls,
            in_init=getattr(function.node, "name", "") == "__init__",
        )  # fmt: skip
        self._bind_parameters(function, frame, cls, args, options)
        if isinstance(function.node, ast.Lambda):
            return self.eval(function.node.body, frame, ctx)
        self.run(function.node.body, frame, ctx)
        if frame.yields:
            return Value(element=join(frame.yields))
        return join(frame.returns)

    def _bind_parameters(self, function: Function, frame: Frame, cls: Class | None,
                         args: Sequence[Value], options: Mapping[str, Value]) -> None:  # fmt: skip
        given = function.node.args
        names = [*given.posonlyargs, *given.args]
        values = list(args)
        if cls is not None and names:
            if function.decorated("classmethod"):
                values.insert(0, Value(classes=frozenset({cls})))
            else:
                values.insert(0, Value(instances=frozenset({cls})))
                frame.self_name = names[0].arg
        of_module = self.program.frame(function.module)
        defaults = dict(zip(names[::-1], given.defaults[::-1], strict=False))
        defaults |= {n: d for n, d in zip(given.kwonlyargs, given.kw_defaults, strict=True) if d}
        for place, parameter in enumerate([*names, *given.kwonlyargs]):
            value = options.get(parameter.arg, UNKNOWN)
            if place < len(values) and place < len(names):
                value = values[place]
            elif parameter.arg not in options and parameter in defaults:
                value = self.eval(defaults[parameter], of_module, SILENT)
            if value == UNKNOWN:
                value = self.annotated(parameter.annotation, of_module)
            frame.names[parameter.arg] = value
        if given.vararg:
            rest = tuple(values[len(names) :])
            frame.names[given.vararg.arg] = Value(items=rest) if rest else UNKNOWN
        if given.kwarg:
            frame.names[given.kwarg.arg] = UNKNOWN

    def annotated(self, node: ast.expr | None, frame: Frame) -> Value:
        """Return what a value is by its annotation."""
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            try:
                node = ast.parse(node.value, mode="eval").body
            except (SyntaxError, ValueError):
                return UNKNOWN
        if isinstance(node, ast.BinOp):
            return join([self.annotated(node.left, frame), self.annotated(node.right, frame)])
        if isinstance(node, ast.Subscript):
            if last_name(node.value) in ("Optional", "Annotated", "Final", "ClassVar"):
                first = node.slice.elts[0] if isinstance(node.slice, ast.Tuple) else node.slice
                return self.annotated(first, frame)
            node = node.value
        if not isinstance(node, ast.Name | ast.Attribute):
            return UNKNOWN
        named = self.eval(node, frame, SILENT)
        if named.origins & {"xdpipe.Batch", "xdpipe.batch.Batch"}:
            return Value(batch=True)
        arrays = {"numpy.ndarray", "numpy.typing.NDArray"}
        return Value(
            instances=named.classes, array=bool(named.origins & arrays),
            origins=frozenset(f"{came}()" for came in named.origins - arrays),
        )  # fmt: skip

    def summary(self, cls: Class, name: str) -> Value:
        """Return what a class's methods put into self.name, taken together."""
        if not cls.summed:
            cls.summed = True
            walk = Walk(self.program)
            for value in list(cls.names.values()):
                for function, _ in value.functions:
                    if function.owner is cls:
                        args: tuple[Value, ...] = ()
                        if getattr(function.node, "name", "") == "process":
                            args = (Value(batch=True),)
                        walk.attributes = {}
                        walk.enter(function, cls, args, {}, SILENT, "")
        return cls.attributes.get(name, UNKNOWN)

    # Statements

    def run(self, body: Iterable[ast.stmt], frame: Frame, ctx: Context) -> bool:
        """Go through statements; return whether what follows them is not reached."""
        ends = False
        for statement in body:
            method = getattr(self, f"_run_{type(statement).__name__}", None)
            if method is not None:
                ends = bool(method(statement, frame, ctx)) or ends
                continue
            for child in ast.iter_child_nodes(statement):
                if isinstance(child, ast.expr):
                    self.eval(child, frame, ctx)
        return ends

    def _branches(self, frame: Frame, ways: Sequence[Callable[[], bool]]) -> bool:
        """Go each of these ways from here; where they meet, a name is what it may be."""
        names, attributes = dict(frame.names), dict(self.attributes)
        ended = []
        open_ends = []
        for way in ways:
            _put(frame.names, names)
            _put(self.attributes, attributes)
            ended.append(way())
            if not ended[-1]:
                open_ends.append((dict(frame.names), dict(self.attributes)))
        if open_ends:
            _put(frame.names, _joined([each[0] for each in open_ends]))
            _put(self.attributes, _joined([each[1] for each in open_ends]))
        return all(ended)

    def _run_Return(self, node: ast.Return, frame: Frame, ctx: Context) -> bool:
        frame.returns.append(self.eval(node.value, frame, ctx))
        return True

    def _run_Raise(self, node: ast.Raise, frame: Frame, ctx: Context) -> bool:
        self.eval(node.exc, frame, ctx)
        return True

    def _run_Continue(self, node: ast.Continue, frame: Frame, ctx: Context) -> bool:
        return True

    _run_Break = _run_Continue

    def _run_If(self, node: ast.If, frame: Frame, ctx: Context) -> bool:
        self.eval(node.test, frame, ctx)
        if ast.unparse(node.test) in ("__name__ == '__main__'", "'__main__' == __name__"):
            return self.run(node.orelse, frame, ctx)
        return self._branches(
            frame,
            [lambda: self.run(node.body, frame, ctx), lambda: self.run(node.orelse, frame, ctx)],
        )

    def _run_For(self, node: ast.For, frame: Frame, ctx: Context) -> bool:
        through = self.eval(node.iter, frame, ctx)
        if through.per_packet or through.batch:
            what = f"for {shown(node.target).strip('()')} in {shown(node.iter)}"
            self.note("XP201", node, what, frame, ctx, node.iter)
        inner = self.in_loop(ctx, through)

        def turn() -> bool:
            self.assign(node.target, through.row, frame, inner.silent, node)
            self.run(node.body, frame, inner)
            return False

        self._branches(frame, [turn, lambda: False])
        return self.run(node.orelse, frame, ctx)

    _run_AsyncFor = _run_For

    def _run_While(self, node: ast.While, frame: Frame, ctx: Context) -> bool:
        self.eval(node.test, frame, ctx)
        counts = self._counts_packets(node.test, frame) and not _steps_far(node)
        if counts:
            self.note("XP201", node, f"while {shown(node.test)}", frame, ctx, node.test)
        loop = "packets" if counts or ctx.loop == "packets" else "some"
        inner = replace(ctx, loop=loop)  # type: ignore[arg-type]

        def turn() -> bool:
            self.run(node.body, frame, inner)
            return False

        self._branches(frame, [turn, lambda: False])
        return self.run(node.orelse, frame, ctx)

    def _counts_packets(self, test: ast.expr, frame: Frame) -> bool:
        """Return whether a condition compares something with the number of packets."""
        for each in ast.walk(test):
            if isinstance(each, ast.Compare):
                sides = [each.left, *each.comparators]
                numbers = [self.eval(side, frame, SILENT) for side in sides]
                fixed = any(isinstance(side, ast.Constant) for side in sides)
                if any(number.count for number in numbers) and not fixed:
                    return True
        return False

    def _run_Try(self, node: ast.Try, frame: Frame, ctx: Context) -> bool:
        def whole() -> bool:
            return self.run(node.body, frame, ctx) or self.run(node.orelse, frame, ctx)

        def caught(handler: ast.ExceptHandler) -> bool:
            if handler.name:
                frame.names[handler.name] = UNKNOWN
            return self.run(handler.body, frame, ctx)

        handlers = [lambda h=handler: caught(h) for handler in node.handlers]
        ends = self._branches(frame, [whole, *handlers])
        return self.run(node.finalbody, frame, ctx) or ends

    _run_TryStar = _run_Try

    def _run_With(self, node: ast.With, frame: Frame, ctx: Context) -> bool:
        for item in node.items:
            value = self.eval(item.context_expr, frame, ctx)
            self._look_at_with(item.context_expr, value, frame, ctx)
            entered = [
                self.enter(function, cls, (), {}, ctx, f"{shown(item.context_expr)}.{name}")
                for cls in value.instances
                for name in ("__enter__", "__exit__")
                for function, _ in (cls.own(name) or UNKNOWN).functions
            ]
            if item.optional_vars is not None:
                target = join(entered) if entered else value
                self.assign(item.optional_vars, target, frame, ctx.silent, node)
        return self.run(node.body, frame, ctx)

    _run_AsyncWith = _run_With

    def _look_at_with(self, node: ast.expr, value: Value, frame: Frame, ctx: Context) -> None:
        if isinstance(node, ast.Call):
            return  # a call that has been looked at
        codes = {lint_rules.rule_of_call(f"{came}.__enter__") for came in value.origins} - {None}
        known = value.origins or value.instances
        if not known and lint_rules.LOCK_NAME.search(last_name(node)):
            codes = {"XP101"}
        for code in sorted(filter(None, codes)):
            self.note(code, node, f"with {shown(node)}", frame, ctx)

    def _run_Match(self, node: ast.Match, frame: Frame, ctx: Context) -> bool:
        self.eval(node.subject, frame, ctx)

        def case(each: ast.match_case) -> bool:
            for pattern in ast.walk(each.pattern):
                name = getattr(pattern, "name", None) or getattr(pattern, "rest", None)
                if isinstance(name, str):
                    frame.names[name] = UNKNOWN
            self.eval(each.guard, frame, ctx)
            return self.run(each.body, frame, ctx)

        ways = [lambda e=each: case(e) for each in node.cases]
        return self._branches(frame, [*ways, lambda: False])

    # Names and attributes

    def _run_Import(self, node: ast.Import, frame: Frame, ctx: Context) -> None:
        for alias in node.names:
            name = alias.name if alias.asname else alias.name.partition(".")[0]
            self.program.load(alias.name)
            frame.names[alias.asname or name] = self.program.imported(name)

    def _run_ImportFrom(self, node: ast.ImportFrom, frame: Frame, ctx: Context) -> None:
        source = self.program.absolute(frame.module, node.module or "", node.level)
        for alias in node.names:
            if alias.name != "*":
                value = self.program.imported_from(source, alias.name)
                frame.names[alias.asname or alias.name] = value
                continue
            module = self.program.load(source)
            if module is None:
                frame.module.stars.append(source)
            else:
                public = {k: v for k, v in module.names.items() if not k.startswith("_")}
                frame.names.update(public)

    def _run_FunctionDef(
        self, node: ast.FunctionDef | ast.AsyncFunctionDef, frame: Frame, ctx: Context
    ) -> None:
        decorators = tuple(self.eval(each, frame, ctx) for each in node.decorator_list)
        value = self.function(node, frame, decorators)
        setter = any(last_name(each) in ("setter", "deleter") for each in node.decorator_list)
        if not setter:
            frame.names[node.name] = value

    _run_AsyncFunctionDef = _run_FunctionDef

    def _run_ClassDef(self, node: ast.ClassDef, frame: Frame, ctx: Context) -> None:
        bases = tuple(self.eval(base, frame, ctx) for base in node.bases)
        cls = frame.module.classes.get(node)
        if cls is None:
            cls = frame.module.classes[node] = Class(node, frame.module, bases)
            outer = frame.outer if frame.is_class else frame
            body = Frame(frame.module, cls.names, outer=outer, owner=cls, is_class=True)
            self.run(node.body, body, ctx)
        frame.names[node.name] = Value(classes=frozenset({cls}))

    def _run_Global(self, node: ast.Global, frame: Frame, ctx: Context) -> None:
        frame.of_module |= set(node.names)
        function = self._active[-1].node if self._active else None
        stored = {
            each.id
            for each in (ast.walk(function) if function else ())
            if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)
        }
        for name in node.names:
            if name in stored:
                self.note("XP112", node, f"global {name}", frame, ctx)

    def _run_Assign(self, node: ast.Assign, frame: Frame, ctx: Context) -> None:
        value = self.eval(node.value, frame, ctx)
        for target in node.targets:
            self.assign(target, value, frame, ctx, node)
            self._look_at_regrowth(target, node, frame, ctx)

    def _run_AnnAssign(self, node: ast.AnnAssign, frame: Frame, ctx: Context) -> None:
        value = self.eval(node.value, frame, ctx)
        if value == UNKNOWN:
            value = self.annotated(node.annotation, frame)
        if node.value is not None or not isinstance(node.target, ast.Name):
            self.assign(node.target, value, frame, ctx, node)
        elif frame.is_class:
            frame.names[node.target.id] = value


def _steps_far(node: ast.While) -> bool:
    """Return whether a loop's counter goes by many at a time, or by something that is not said."""
    names = {each.id for each in ast.walk(node.test) if isinstance(each, ast.Name)}
    steps = [
        constant(each.value)
        for each in ast.walk(node)
        if isinstance(each, ast.AugAssign)
        and isinstance(each.target, ast.Name)
        and each.target.id in names
    ]
    return bool(steps) and not any(isinstance(s, int) and s < SMALL_STEP for s in steps)


def _first(pair: tuple[str, Value]) -> str:
    return pair[0]


def _put(into: dict[K, Value], what: Mapping[K, Value]) -> None:
    into.clear()
    into.update(what)


def _joined(ways: Sequence[Mapping[K, Value]]) -> dict[K, Value]:
    keys = dict.fromkeys(key for way in ways for key in way)
    return {key: join(way[key] for way in ways if key in way) for key in keys}
