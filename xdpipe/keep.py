"""Memory that a C struct points to lives as long as the struct itself."""

from typing import Any
from weakref import WeakKeyDictionary

_KEPT: WeakKeyDictionary[Any, tuple[Any, ...]] = WeakKeyDictionary()


def keep_with(struct: Any, *things: Any) -> Any:
    """Hold these as long as the struct is held; return the struct.

    cffi's structs hold nothing that their pointers point to. A stage may be bound by several
    chains, each of which holds the state that it was given, and nothing else.
    """
    _KEPT[struct] = things
    return struct
