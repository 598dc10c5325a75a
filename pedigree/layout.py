"""Aligned plain text, at most `WIDTH` columns."""

import difflib
import json
from collections.abc import Iterable, Sequence
from typing import Any

WIDTH = 100


def table(rows: Sequence[Sequence[str]], right: Sequence[int] = (), indent: str = "") -> str:
    """Rows as lines with aligned columns, those of `right` to the right; the last column is never padded."""
    columns = max((len(row) for row in rows), default=0)
    widths = [max((len(row[column]) for row in rows if column < len(row)), default=0) for column in range(columns)]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(widths[column]) if column in right else cell.ljust(widths[column])
            for column, cell in enumerate(row)
        ]
        lines.append((indent + "  ".join(cells)).rstrip())
    return "\n".join(lines)


def shorten(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 3] + "..."


def show_value(value: Any, width: int = 36) -> str:
    """A YAML value in one short line: `null`, `true`, 0.0005, text as it is, lists by what they hold."""
    if isinstance(value, str):
        return shorten(value, width)
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return f"{len(value)} entries"
    return shorten(json.dumps(value, ensure_ascii=False), width)


def nearest(name: str, names: Iterable[str]) -> str:
    """` did you mean X?` for the valid name that is most like `name`, else an empty text."""
    found = difflib.get_close_matches(name, list(names), n=1, cutoff=0.6)
    return f"; did you mean `{found[0]}`?" if found else ""


def show_bytes(count: float) -> str:
    """Decimal units, three significant digits: 539 kB, 98.4 MB, 2.61 GB."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 999.5 or unit == "TB":
            break
        count /= 1000
    return f"{count:.0f} B" if unit == "B" else f"{count:.3g} {unit}"
