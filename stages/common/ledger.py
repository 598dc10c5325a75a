"""The ledger: one line for each row that a stage dropped or changed. Nothing disappears silently."""

import polars as pl

LEDGER_SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    "row_id": pl.String,
    "stage": pl.String,
    "action": pl.String,  # drop | change
    "reason": pl.String,
    "other_id": pl.String,  # the row or item that the reason speaks of
    "detail": pl.String,  # counts and scores; never a value out of the row
}


def ledger_lines(stage: str, lines: list[dict[str, str | None]]) -> pl.DataFrame:
    """Lines of {row_id, action, reason, other_id, detail} as a table with LEDGER_SCHEMA."""
    return pl.DataFrame([{"stage": stage, "other_id": None, "detail": None} | line for line in lines], LEDGER_SCHEMA)
