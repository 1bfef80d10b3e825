"""A jit stage's function compiled by numba to the contract of native stages.

    int xp_jit_run(struct xp_batch *b, void *table)

What comes out is an object file that knows of no Python: nothing in it allocates, asks for the
GIL, or raises but by returning -1.
"""

from __future__ import annotations

import dis
import re
import types as python_types
import warnings
from typing import TYPE_CHECKING, Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba import njit
from numba.core import cgutils, compiler, types
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target

from xdpipe.errors import CodeError
from xdpipe.jit_key import globals_of
from xdpipe.jit_layout import JitLayout
from xdpipe.jit_types import BYTES, I32, BatchType, Problem, TableType
from xdpipe.jit_values import Counters, batch_value, table_value

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

SYMBOL = "xp_jit_run"
_HELPERS = {
    "boundscheck": True,
    "_nrt": False,
    "no_cfunc_wrapper": True,
    "no_cpython_wrapper": True,
}
_LIBC = """
    memcpy memmove memset memcmp
    acos acosh asin asinh atan atan2 atanh cbrt ceil copysign cos cosh erf erfc exp exp2 expm1 fabs
    floor fmod frexp hypot ldexp lgamma log log10 log1p log2 nearbyint nextafter pow rint round sin
    sinh sqrt tan tanh tgamma trunc
"""
"""What the object may call."""


def compile_function(function: Callable[..., Any], layout: JitLayout) -> bytes:
    """Compile a stage's function; return an object file (ELF) that has SYMBOL.

    Raises:
        CodeError: it does not compile; the message has file, line and reason.
    """
    Problem.noted.clear()
    helpers: dict[Any, Any] = {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # numba's, about itself
            return _compile(_with_helpers(function, helpers), layout)
    except CodeError:
        raise
    except Exception as error:  # not all that numba raises is a NumbaError
        raise CodeError(_told(error, [function, *helpers])) from error


@global_compiler_lock
def _compile(function: Callable[..., Any], layout: JitLayout) -> bytes:
    typing, target = cpu_target.typing_context, cpu_target.target_context
    typing.refresh()
    target.refresh()
    batch = BatchType(layout)
    kinds: dict[str, Any] = {
        "batch": batch,
        "counters": TableType("counters", layout),
        "state": TableType("state", layout),
    }
    code = function.__code__
    names = code.co_varnames[: code.co_argcount]
    flags = compiler.Flags()
    flags.boundscheck = True
    flags.nrt = False  # so that nothing can allocate
    flags.no_cfunc_wrapper = flags.no_cpython_wrapper = True
    flags.error_model = "python"
    flags.forceinline = True
    flags.no_compile = True  # before the entry is in the same module
    compiled = compiler.compile_extra(
        typing, target, function, tuple(kinds[name] for name in names), None, flags, {}
    )
    if compiled.signature.return_type != types.none:
        raise CodeError(
            f"{where(function)}: the stage returns a {compiled.signature.return_type}, which "
            "nobody looks at; decide by batch.drop(i) and its kin"
        )
    compiled.library.add_ir_module(_entry(compiled, layout, [kinds[name] for name in names]))
    compiled.library.finalize()
    return _object(compiled.library.get_llvm_str(), function, compiled.fndesc.llvm_func_name)


def _entry(compiled: Any, layout: JitLayout, kinds: Sequence[Any]) -> ir.Module:
    """Return a module with SYMBOL, which calls the compiled function with arguments of these."""
    target = compiled.target_context
    module = compiled.library.create_ir_module("xdpipe.entry")
    entry = ir.Function(module, ir.FunctionType(I32, [BYTES, BYTES]), name=SYMBOL)
    builder = ir.IRBuilder(entry.append_basic_block())
    c, table = entry.args
    counters = Counters(builder, layout, table)
    args = []
    for kind in kinds:
        if isinstance(kind, BatchType):
            args.append(batch_value(target, builder, kind, c, table))
        else:
            words = counters.local if kind.what == "counters" else table
            args.append(table_value(target, builder, kind, words))
    status, _ = target.call_internal_no_propagate(
        builder, compiled.fndesc, compiled.signature, args
    )
    counters.give_back()
    with builder.if_then(status.is_error, likely=False):
        at = builder.gep(table, [ir.IntType(64)(8 * JitLayout.RAISED)])
        raised = builder.bitcast(at, status.excinfoptr.type.as_pointer())
        with builder.if_then(cgutils.is_null(builder, builder.load(raised))):
            builder.store(status.excinfoptr, raised)
        builder.ret(I32(-1))
    builder.ret(I32(0))
    return module


def _object(text: str, function: Callable[..., Any], inlined: str) -> bytes:
    """Return the object file of a module: for this CPU, to be loaded anywhere.

    Args:
        text: of the module.
        function: for messages.
        inlined: name of a function of which nobody needs a copy.
    """
    module = llvm.parse_assembly(text)
    libc = _LIBC.split()
    for symbol in (*module.functions, *module.global_variables):
        if symbol.is_declaration and not symbol.name.startswith("llvm."):
            if text.count(symbol.name) < 2 or symbol.name in libc:  # declared, not used
                continue
            raise CodeError(_calls(symbol.name, function))
        if symbol.name == inlined:
            symbol.linkage = "available_externally"
        elif not symbol.is_declaration and symbol.name != SYMBOL:
            symbol.linkage = "internal"
    machine = llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(),
        opt=3, reloc="pic", codemodel="default",
    )  # fmt: skip
    return bytes(machine.emit_object(module))


def _calls(symbol: str, function: Callable[..., Any]) -> str:
    """Say that the code calls what a jit stage may not."""
    if symbol.startswith("NRT_"):
        return f"{where(function)}: {_ALLOCATES}"
    what, reason = "print", "no print, no objects of Python's"
    if "random" in symbol:
        what, reason = "random", "keep a generator's numbers in state={…}"
    lines = [
        instruction.positions.lineno
        for code in _codes(function.__code__)
        for instruction in dis.get_instructions(code)
        if instruction.argval == what and instruction.positions is not None
    ]
    place = f"{function.__code__.co_filename}:{lines[0]}" if lines else where(function)
    return f"{place}: it calls Python itself ({symbol}), which a jit stage may not: {reason}"


def where(function: Callable[..., Any]) -> str:
    """Return file:line of a function."""
    return f"{function.__code__.co_filename}:{function.__code__.co_firstlineno}"


def _with_helpers(function: Any, known: dict[Any, Any], path: tuple[Any, ...] = ()) -> Any:
    """Return a copy of a function whose plain Python functions numba compiles with it.

    So a user's helper functions need no decorator, and without numba they are what they were.

    Args:
        function: the stage's, or one that it calls.
        known: what became of functions that were met already.
        path: the functions that led here.

    Raises:
        CodeError: one of them calls itself; on hostile input that could be without end.
    """
    names = set().union(*map(globals_of, _codes(function.__code__)))

    def compiled(value: Any) -> Any:
        if not isinstance(value, python_types.FunctionType):
            return value
        if value in (*path, function):
            raise CodeError(f"{where(value)}: {value.__name__} calls itself; write it as a loop")
        if value not in known:
            copy = _with_helpers(value, known, (*path, function))
            known[value] = njit(**_HELPERS)(copy)
        return known[value]

    scope = {
        name: compiled(value) if name in names else value
        for name, value in function.__globals__.items()
    }
    cells = function.__closure__
    closure = cells and tuple(python_types.CellType(compiled(c.cell_contents)) for c in cells)
    return _copy(function, scope, closure)


def _copy(function: Any, scope: Mapping[str, Any], closure: Any) -> Any:
    copy = python_types.FunctionType(
        function.__code__, dict(scope), function.__name__, function.__defaults__, closure
    )
    copy.__qualname__ = function.__qualname__
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


def _codes(code: python_types.CodeType) -> Iterator[python_types.CodeType]:
    """Yield a function's code and that of the functions within it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, python_types.CodeType):
            yield from _codes(constant)


_PLACE = re.compile(
    r'at (\S[^\n"]*?) \((\d+)\)|from (\S[^\n"]*?) \((\d+)\)|"(/[^\n"]*)", line (\d+)'
)
_NOISE = re.compile(
    r"Failed in |- Resolution failure|During|File |\s*$|There (is|are) |This error|<"
)
_ALLOCATES = (
    "it makes an array, a list, a text or the like, and a jit stage may not allocate; declare "
    "arrays by state={…}"
)


def _told(error: Exception, functions: Sequence[Callable[..., Any]]) -> str:
    """Say in one line what numba says in many, with the place in the user's code."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    files = {function.__code__.co_filename for function in functions}
    places = [f"{a or c or e}:{b or d or f}" for a, b, c, d, e, f in _PLACE.findall(text)]
    loc = getattr(error, "loc", None)
    places += [f"{loc.filename}:{loc.line}"] if loc is not None else []
    place = next((place for place in places if place.rpartition(":")[0] in files), None)
    return f"{place or where(functions[0])}: {_reason(text)}"


def _reason(text: str) -> str:
    if Problem.noted:
        return Problem.noted[0]
    if "IMPORT_NAME" in text:
        return "an import within the function; write it at the top of the file"
    if "<dynamic> raise" in text:
        return "an exception with a value that is known only at run time; raise it with constants"
    written = re.search(r'lowering "?\(?(\w+)(?:\([0-9a-f]{12}\)|\))\.(\w+) = ', text)
    if written is not None:
        name = f"{written[1]}.{written[2]}"
        return f"{name} = …: write into it, {name}[i] = …"
    if "NRT required" in text or "Only accept returning of array" in text:
        return _ALLOCATES
    unknown = re.search(r">>> (.+)", text)
    if unknown is not None:
        call = re.sub(r"Literal\[\w+\]\(([^()]*)\)|\([0-9a-f]{12}\)", r"\1", unknown[1])
        hint = (
            "; a column is read and written by packet, batch.name[i]" if "column " in call else ""
        )
        return f"cannot be compiled: {call}{hint}"
    lines = [line.strip() for line in text.splitlines() if not _NOISE.match(line)]
    return f"cannot be compiled: {lines[0] if lines else type(text).__name__}"
