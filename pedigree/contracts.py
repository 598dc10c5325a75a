"""The contracts of all tables: checked in the workspace for `pedigree verify`, and listed for docs/contracts.md.

`python -m pedigree.contracts` writes the list anew; a test compares it with the code.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

from stages.common.contracts import Contract, Invariant
from stages.common.errors import InputError
from stages.common.files import read_json, write_text
from stages.common.item_contracts import ITEMS, MARKED_ITEMS, evaluated_items
from stages.common.mixture_contracts import (
    ALIGN_CONSUMED,
    CALIBRATION,
    ENCODED,
    MIXTURE,
    MIXTURES,
    PAIRS,
    QUANTIZED_CONSUMED,
    SFT_CONSUMED,
)
from stages.common.params import PARAMS_FILE, read_yaml
from stages.common.probes import PROBES
from stages.common.row_contracts import (
    ALIKE,
    CLUSTERS,
    DECONTAMINATE,
    DECONTAMINATE_LEDGER,
    DEDUP,
    DEDUP_LEDGER,
    FINDINGS,
    MIX_LEDGER,
    POOL,
    POOL_LEDGER,
    REFUSED,
    ROW_INVARIANTS,
    SCRUB,
    SCRUB_LEDGER,
    SUBJECTS,
)

PAGE = Path("docs/contracts.md")
MARK = "<!-- The rest is written by `python -m pedigree.contracts`. -->\n"
MODELS = ("base", "sft", "align", "quantized")
IN_FILES = (
    *(POOL, DEDUP, SCRUB, DECONTAMINATE),
    *(POOL_LEDGER, DEDUP_LEDGER, SCRUB_LEDGER, DECONTAMINATE_LEDGER, MIX_LEDGER),
    *(REFUSED, SUBJECTS, CLUSTERS, ALIKE, FINDINGS, ITEMS, MARKED_ITEMS),
    *PROBES.values(),
    *MIXTURES,
    *(SFT_CONSUMED, ALIGN_CONSUMED, QUANTIZED_CONSUMED),
    *(evaluated_items(model) for model in MODELS),
)
IN_MEMORY = (ENCODED, PAIRS, CALIBRATION)
"""Of rows as tokens, which are made and used in one stage."""


def scan(path: str) -> pl.LazyFrame | None:
    return pl.scan_parquet(path) if Path(path).is_file() else None


def scan_all(paths: tuple[str, ...]) -> pl.LazyFrame | None:
    """Those of the tables that are here, one above the other; None where none is."""
    tables = [table for path in paths if (table := scan(path)) is not None]
    return pl.concat(tables) if tables else None


def read_settings() -> dict[str, Any]:
    """What invariants need beside tables, as far as params.yaml, the base model and the clusters tell it."""
    params, given = read_yaml(PARAMS_FILE), {}
    caps = [(source["name"], source.get("repeat_cap") or params["mix"]["repeat_cap"]) for source in params["sources"]]
    given["caps"] = pl.LazyFrame(caps, {"source": pl.String, "repeats": pl.Int64}, orient="row")
    given["max_length_tokens"] = params["mix"]["max_length_tokens"]
    config = Path("models/base/config.json")
    if config.is_file():
        given["window"] = read_json(config).get("max_position_embeddings")
    clusters, alike = scan(CLUSTERS.path), scan(ALIKE.path)
    if clusters is not None and alike is not None:
        pairs = alike.filter(why="label").select("row_id", "other_id")
        given["links"] = pl.concat([clusters.select("row_id", other_id="cluster"), pairs])
    return given


def planned_steps(contract: Contract) -> dict[str, int]:
    """How many steps training took; nothing of private training, of which a step may have drawn no row."""
    metrics = Path(f"metrics/{contract.maker}.json")
    measured = read_json(metrics) if metrics.is_file() else {}
    return {"steps": measured["steps"]} if "steps" in measured and "sample_rate" not in measured else {}


def check_table(contract: Contract, table: pl.LazyFrame | None, settings: dict[str, Any]) -> list[str]:
    """The breaches of a table that is here."""
    if table is None:
        return []
    beside = {name: other for name, paths in contract.beside.items() if (other := scan_all(paths)) is not None}
    try:
        return contract.find_breaches(table, **settings, **planned_steps(contract), **beside)
    except (pl.exceptions.PolarsError, OSError):
        beside_it = ", ".join(path for paths in contract.beside.values() for path in paths if Path(path).is_file())
        return [f"{contract.path}: cannot be read{f', or what stands beside it ({beside_it})' if beside_it else ''}"]


def check_tables() -> tuple[int, list[str]]:
    """How many tables of contracts are here, and all breaches of them."""
    settings, faults = read_settings(), []
    for contract in IN_FILES:
        if contract in MIXTURES:  # of one kind what no other one has a part in; the rest of all kinds together
            own = tuple(each for each in contract.invariants if each not in MIXTURE.invariants)
            contract = replace(contract, invariants=own, beside={})
        faults += check_table(contract, scan(contract.path), settings)
    if not any(fault.startswith("data/mix/") for fault in faults):
        faults += check_table(MIXTURE, scan_all(tuple(contract.path for contract in MIXTURES)), settings)
    return sum(Path(contract.path).is_file() for contract in IN_FILES), faults


def goes_to(contract: Contract) -> str:
    """The arrow of dvc.yaml that a table is a part of: `pool → dedup`."""
    if contract in IN_MEMORY:
        return f"mix → {contract.maker}"
    graph, path = read_yaml(Path("dvc.yaml"))["stages"], Path(contract.path)
    places = {path.as_posix(), path.parent.as_posix()} | ({"models/${key}"} if path.parts[0] == "models" else set())
    readers = [name for name, stage in graph.items() if places & set(stage.get("do", stage)["deps"])]
    others = ", ".join(name for name in readers if name != contract.maker)
    return f"{contract.maker} → {others}" if others else contract.maker


def describe_columns(contract: Contract) -> str:
    names = [f"`{name}` {str(dtype).split('(')[0]}" for name, dtype in contract.columns.items()]
    return ", ".join(names)


def list_invariants(invariants: tuple[Invariant, ...]) -> str:
    lines = ["| invariant | broken where | needs beside the table | remedy |", "|---|---|---|---|"]
    for each in invariants:
        lines.append(f"| {each.name} | {each.says} | {', '.join(each.needs)} | {each.remedy} |")
    return "\n".join(lines) + "\n"


def write_list() -> str:
    """The contracts as Markdown: first what holds for every row, then each table; tables of one contract together."""
    parts = ["## Every row, from pool to the mixture\n", list_invariants(ROW_INVARIANTS)]
    groups: dict[tuple[object, ...], list[Contract]] = {}
    for contract in (*IN_FILES, *IN_MEMORY):
        same = (*contract.columns, *((each.name, each.says) for each in contract.invariants))
        groups.setdefault(same, []).append(contract)
    for first, *others in groups.values():
        parts.append("## " + ", ".join(f"`{contract.path}`" for contract in (first, *others)) + "\n")
        parts.append("; ".join(dict.fromkeys(goes_to(contract) for contract in (first, *others))) + "\n")
        is_of_rows = set(ROW_INVARIANTS) <= set(first.invariants)
        own = tuple(each for each in first.invariants if not is_of_rows or each not in ROW_INVARIANTS)
        more = " Every row as above, and:" if is_of_rows else ""
        parts.append(f"Columns: {describe_columns(first)}.{more}\n")
        parts.append(list_invariants(own))
    return "\n".join(parts)


def write_page() -> None:
    if not PAGE.is_file():
        raise InputError(f"{PAGE}: there is no such file; run from the repository's root")
    write_text(PAGE, PAGE.read_text(encoding="utf-8").partition(MARK)[0] + MARK + "\n" + write_list())


if __name__ == "__main__":
    write_page()
