"""Contracts: what a table between two stages must hold. Who writes it checks it before it lands; who reads it, again.

A contract is the columns of a table with their types, and invariants: each a pure function that finds the offending
rows, a sentence that says what is wrong with them, and, where it is not the usual one, the remedy. All breaches of a
table are told at once, by row ids, never by content. They are declared in `row_contracts.py`, `item_contracts.py`,
`mixture_contracts.py` and `probes.py`; docs/contracts.md lists them.

Finders work on lazy tables, whole columns at a time, and all of a table run side by side: the rules of rows take 1.4
seconds of processor time for a million rows, those of the mixture 8, of which 5 make words of prompts (docs/log.md).
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from stages.common.errors import InputError
from stages.common.files import write_table

Find = Callable[..., pl.LazyFrame]
Columns = Mapping[str, pl.DataType | type[pl.DataType]]
SHOWN = 3  # keys of offending rows in a message


@dataclass(frozen=True)
class Invariant:
    """What holds for every row of a table."""

    name: str
    """A few words; a table's invariants have different names."""
    says: str
    """What is wrong where it does not hold."""
    find: Find
    """The lazy table, and what `needs` names → the offending rows, with the contract's keys among their columns."""
    needs: tuple[str, ...] = ()
    """Arguments of `find` by name: lazy tables beside this one, or values. A writer has all of them; a reader leaves
    out the invariants of which it lacks some."""
    remedy: str = ""
    """What to do; empty: the table is written anew."""


def where(breaks: pl.Expr) -> Find:
    """Finds the rows for which the expression is true or null."""
    return lambda table: table.filter(breaks.fill_null(True))


def unlike(table_name: str, key: str = "row_id", other: str = "row_id") -> Find:
    """Finds the rows whose `key` stands in no row of the table that is given under `table_name`."""
    return lambda table, **given: table.join(given[table_name].select(other), left_on=key, right_on=other, how="anti")


@dataclass(frozen=True, eq=False)
class Contract:
    """What a table must hold."""

    path: str
    """Where it stands; of a table that is never written, what it is called."""
    maker: str
    """The stage that makes it."""
    columns: Columns
    """Exactly these, in any order."""
    keys: tuple[str, ...]
    """Columns that name a row in a message."""
    invariants: tuple[Invariant, ...]
    beside: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Of what invariants need: the files in which `pedigree verify` finds it."""
    unit: str = "row"

    def read(self, **given: Any) -> pl.DataFrame:
        """The table. Raises InputError where there is none, where it cannot be read, or on a breach."""
        if not Path(self.path).exists():
            raise InputError(f"{self.path}: there is no such file; run `dvc repro {self.maker}`")
        try:
            table = pl.read_parquet(self.path)
        except (pl.exceptions.PolarsError, OSError):
            raise InputError(f"{self.path}: is no whole Parquet file; {self._write_anew()}") from None
        if told := self.find_breaches(table.lazy(), **given):
            raise InputError("\n".join(told))
        return table

    def check(self, table: pl.DataFrame, **given: Any) -> pl.DataFrame:
        """The table, which is about to be written or used. Raises InputError on a breach; TypeError where something
        that an invariant needs is not given."""
        if told := self.find_faults(table, given):
            raise InputError("\n".join(told))
        return table

    def find_faults(self, table: pl.DataFrame, given: Mapping[str, Any]) -> list[str]:
        """The breaches of a table that its maker is about to write, a line each."""
        if missing := {name for each in self.invariants for name in each.needs} - set(given):
            raise TypeError(f"{self.path}: its contract needs {', '.join(sorted(missing))}")
        own = f"that is a fault of the stage {self.maker}, which has written nothing; please report it"
        return self._tell(self._list_breaches(table.lazy(), given), own)

    def find_breaches(self, table: pl.LazyFrame, **given: Any) -> list[str]:
        """The breaches of a table that was read, a line each."""
        return self._tell(self._list_breaches(table, given), self._write_anew())

    def _write_anew(self) -> str:
        folder = Path(self.path).parent.as_posix()
        return (
            f"it was edited, or is of another version or run: `dvc checkout --force {folder}` brings back the recorded "
            f"one, `dvc repro --force --single-item {self.maker}` makes a new one"
        )

    def _list_breaches(self, table: pl.LazyFrame, given: Mapping[str, Any]) -> list[tuple[str, str]]:
        """(what is wrong, remedy or "") of each breach."""
        if wrong := list(self._compare_columns(table.collect_schema())):
            return [(f"columns: {told}", "") for told in wrong]
        lazy = {name: value.lazy() if isinstance(value, pl.DataFrame) else value for name, value in given.items()}
        checked = [each for each in self.invariants if set(each.needs) <= set(lazy)]
        found = pl.collect_all(
            [each.find(table, **{name: lazy[name] for name in each.needs}).select(self.keys) for each in checked]
        )
        return [
            (f"{each.name}: {each.says} ({self._name_rows(rows)})", each.remedy)
            for each, rows in zip(checked, found, strict=True)
            if rows.height
        ]

    def _compare_columns(self, schema: pl.Schema) -> Iterable[str]:
        expected = pl.Schema(self.columns)
        missing, strange = [name for name in expected if name not in schema], sorted(set(schema) - set(expected))
        if missing:
            yield f"{', '.join(missing)} missing"
        if strange:
            yield f"{', '.join(strange)} not expected"
        for name, dtype in expected.items():
            if name in schema and schema[name] != dtype:
                yield f"{name} is {_short(schema[name])}, expected {_short(dtype)}"

    def _name_rows(self, rows: pl.DataFrame) -> str:
        """3 rows: a, b, c."""
        names = rows.unique(maintain_order=True).sort(self.keys).head(SHOWN)
        told = ["/".join("null" if value is None else str(value) for value in line) for line in names.iter_rows()]
        more = ", ..." if rows.n_unique() > SHOWN else ""
        return f"{rows.height} {self.unit}{'s' * (rows.height > 1)}: {', '.join(told)}{more}"

    def _tell(self, breaches: list[tuple[str, str]], usual: str) -> list[str]:
        """A line each; the usual remedy once, behind the last one that has none of its own."""
        last = max((place for place, (_, remedy) in enumerate(breaches) if not remedy), default=-1)
        told = []
        for place, (wrong, own) in enumerate(breaches):
            remedy = own or (usual if place == last else "")
            told.append(f"{self.path}, {wrong}{f'; {remedy}' if remedy else ''}")
        return told


def _short(dtype: pl.DataType) -> str:
    """A type as a message shows it: `List(Struct(role, content))`, without the types of the fields.

    >>> _short(pl.List(pl.Struct({"role": pl.String, "content": pl.String})))
    'List(Struct(role, content))'
    """
    if isinstance(dtype, pl.List):
        return f"List({_short(pl.Series([], dtype=dtype.inner).dtype)})"
    if isinstance(dtype, pl.Struct):
        return f"Struct({', '.join(each.name for each in dtype.fields)})"
    return str(dtype)


def write_tables(tables: Mapping[Contract, pl.DataFrame], **given: Any) -> None:
    """Write each table where its contract says, after all of them were checked. Raises InputError."""
    faults = [told for contract, table in tables.items() for told in contract.find_faults(table, given)]
    if faults:
        raise InputError("\n".join(faults))
    for contract, table in tables.items():
        write_table(contract.path, table)


def unique(name: str, says: str, *keys: str) -> Invariant:
    """No two rows have the same keys, and no key is null."""
    null = pl.any_horizontal(pl.col(key).is_null() for key in keys)
    return Invariant(name, says, where(null | pl.struct(keys).is_duplicated()))
