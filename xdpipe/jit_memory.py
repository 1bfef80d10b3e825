"""Memory as a jit stage's machine code reads and writes it, and what LLVM is told of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llvmlite import ir
from numba.core import cgutils

from xdpipe.jit_types import I8, I64

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import TypeAlias

    from numba.core import types

    Builder: TypeAlias = Any

NO_PACKET = "no packet has this index"
COUNTERS, PACKET = "the counters", "packets"


def read(builder: Builder, at: Any, kind: ir.Type, offset: int = 0) -> Any:
    """Load what lies aligned at an address plus some bytes."""
    return builder.load(builder.bitcast(byte(builder, at, I64(offset)), kind.as_pointer()))


def byte(builder: Builder, at: Any, offset: Any) -> Any:
    """Return an address plus some bytes."""
    return builder.gep(at, [offset])


def element(builder: Builder, at: Any, kind: ir.Type, i: Any) -> Any:
    """Return the address of element i of an array of these."""
    return builder.gep(builder.bitcast(at, kind.as_pointer()), [i])


def alone(builder: Builder, access: Any, what: str, others: Iterable[str]) -> Any:
    """Tell LLVM of a load or store that it touches a memory that others do not (LangRef, noalias).

    Each column, the counters and the packets are memory of their own. Else a verdict that is
    written could be the counter that is read next, and a loop over packets would go one by one.

    Args:
        builder: where it was made.
        access: the load or store, which is returned.
        what: which memory it is.
        others: names of all of them.
    """
    module = builder.module
    domain = module.add_metadata(["xdpipe"])
    scopes = {name: module.add_metadata([name, domain]) for name in (what, *others)}
    mine = scopes.pop(what)
    access.set_metadata("alias.scope", module.add_metadata([mine]))
    access.set_metadata("noalias", module.add_metadata(list(scopes.values())))
    return access


def proxy(ty: types.Type, context: Any, builder: Builder, value: Any = None) -> Any:
    """Return the members of a value, as attributes."""
    return cgutils.create_struct_proxy(ty)(context, builder, value=value)


def checked(context: Any, builder: Builder, index: Any, n: Any, what: str) -> Any:
    """Return an index from 0 to n - 1; raise IndexError for another."""
    with builder.if_then(builder.icmp_unsigned(">=", index, n), likely=False):
        context.call_conv.return_user_exc(builder, IndexError, (what,))
    return index


def is_zero(builder: Builder, value: Any) -> Any:
    """Return whether a byte is 0."""
    return builder.icmp_unsigned("==", value, I8(0))
