"""What stages that keep something by key have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from xdpipe.action import only
from xdpipe.errors import XdpipeError
from xdpipe.key import Flow, Key, Prefix
from xdpipe.key_table import KeyTable, require_n_keys
from xdpipe.stage import NativeStage

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray


class KeyedStage(NativeStage):
    """A native stage with a table of entries by key.

    Args:
        columns: that make the key.
        n_keys: entries of the table.
        mark: of the packets that it looks at; None: all.
        shown: entries in the report at the most.
    """

    entry_type: ClassVar[str]
    """The C struct of an entry, before the key."""
    fields: ClassVar[tuple[str, ...]]
    """Names of its members but the first."""

    def __init__(
        self, columns: Sequence[str | Prefix | Flow], n_keys: int, mark: int | None, shown: int
    ) -> None:
        require_n_keys(self.name, n_keys)
        if not (isinstance(shown, int) and shown >= 0):
            raise XdpipeError(f"{self.name}: shown={shown!r}: a number of entries, or 0")
        self.key = Key(self.name, columns)
        self.n_keys = n_keys
        self.shown = shown
        self._only = only(self.name, mark)
        # which columns it looks at is said to each of its instances
        self.requires = self.key.requires  # type: ignore[misc]
        self._table: KeyTable | None = None
        self._c_key: Any = None

    def make_table(self) -> KeyTable:
        """Return a new table, and have a key with a new secret."""
        self._c_key = self.key.to_c()
        self._table = KeyTable(self.entry_type, self.fields, self.key.n_words, self.n_keys)
        return self._table

    @property
    def table(self) -> NDArray[np.void]:
        """The entries in use: a view, with `fields` and `key` as fields."""
        if self._table is None:
            self.bind_alone()
        assert self._table is not None
        return self._table.rows

    def tell(
        self, rows: NDArray[np.void], *fields: str, **more: NDArray[np.uint64]
    ) -> list[dict[str, Any]]:
        """Return for each of these entries its key by column, and numbers by name.

        Args:
            rows: of `table`.
            fields: names of those that are told.
            more: what else there is of each, by name; comes first.
        """
        numbers = {**more, **{name: rows[name] for name in fields}}
        return [
            {
                **self.key.decode(row["key"].tobytes()),
                **{name: int(values[i]) for name, values in numbers.items()},
            }
            for i, row in enumerate(rows)
        ]
