"""The ledger: one line for each row that a stage dropped or changed. Nothing disappears silently."""

import polars as pl

from stages.common.errors import InputError

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


def check_balance(stage: str, rows_in: pl.DataFrame, rows_out: pl.DataFrame, ledger: pl.DataFrame) -> None:
    """rows_in = rows_out + dropped, with unique ids on both sides; else the stage has lost a row and fails."""
    dropped = set(ledger.filter(pl.col("action") == "drop")["row_id"])
    before, after = set(rows_in["row_id"]), set(rows_out["row_id"])
    if len(before) != rows_in.height or len(after) != rows_out.height:
        raise InputError(f"{stage}: row_id is not unique; run `dvc repro --force pool`")
    if before != after | dropped or after & dropped:
        lost = sorted(before - after - dropped)[:3]
        raise RuntimeError(f"{stage}: rows_in {len(before)} != rows_out {len(after)} + dropped {len(dropped)}; {lost}")
