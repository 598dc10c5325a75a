"""Find personal data and replace it.

data/dedup, evaluation sets → data/scrub/{rows,ledger,items,findings,probes}.parquet, metrics/scrub.json

Presidio (docs: data-privacy-stack.github.io/presidio) with its pattern recognisers, ours, and a model or lists for
names looks at every text of a row: contents of messages, values inside tool calls, chosen and rejected replies. What it
finds becomes what `entities` says (stages/pii/operators.py); public facts of `allow` stay, what `deny` names goes.
What was found is counted, and where (findings.parquet: places and types, for `pedigree review`), never copied. A row in
which a recogniser fails is dropped: it must not pass unread. A second look (stages/pii/residual.py) counts what still
seems to be personal data. The evaluation items go through the same, so that decontaminate compares like with like.
"""

from stages.common.stage import run, say  # isort: skip

import json
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import polars as pl

from stages.common.contracts import write_tables
from stages.common.engine import Engine, Work, map_batches, slices
from stages.common.errors import InputError
from stages.common.evalsets import load_items
from stages.common.files import write_csv, write_json
from stages.common.item_contracts import ITEMS
from stages.common.ledger import ledger_lines
from stages.common.params import load, load_tasks
from stages.common.probes import PROBES, Probes, add_probes, judge_personal_data, read_probes, score, split_off
from stages.common.row_contracts import DEDUP, FINDINGS, SCRUB, SCRUB_LEDGER, replies_are_equal
from stages.pii.given import read_secrets
from stages.pii.params import Scrub
from stages.pii.worker import FOUND_SCHEMA, build_scrubber, make_worker
from stages.probes.leaks import plant_leaks

Build = Callable[[], Work]

BATCH_ROWS = 5000  # up to so many, nobody waits the seconds in which another process imports Presidio


def scrub_table(table: pl.DataFrame, build: Build, engine: Engine, title: str) -> pl.DataFrame:
    """Rows or items after the replacement, with FOUND_SCHEMA or `failed`."""
    batches, total = slices(table, BATCH_ROWS)
    return pl.concat(list(map_batches(build, batches, engine, title, total)) or [build()(table)])


def split_scrubbed(scrubbed: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Of the rows with FOUND_SCHEMA those that go on, the ledger, and the places of the findings.

    A pair whose replies differed in personal data alone teaches nothing any more, so it goes.
    """
    lines: list[dict[str, str | None]] = []
    places = []
    judged = scrubbed.with_columns(equal=replies_are_equal().fill_null(False))
    for row_id, failed, equal, replaced, found in judged.select(
        "row_id", "failed", "equal", "replaced", "places"
    ).iter_rows():
        if failed is not None:
            lines.append({"row_id": row_id, "action": "drop", "reason": "scrub_failed", "detail": failed})
            continue
        if equal:
            lines.append({"row_id": row_id, "action": "drop", "reason": "equal_replies"})
            continue
        if counts := json.loads(replaced):
            detail = ",".join(f"{entity}={count}" for entity, count in counts.items())
            lines.append({"row_id": row_id, "action": "change", "reason": "pii", "detail": detail})
        places += [{"row_id": row_id} | place for place in json.loads(found)]
    kept = judged.filter(pl.col("failed").is_null(), ~pl.col("equal")).drop(*FOUND_SCHEMA, "equal")
    return kept, ledger_lines("scrub", lines), pl.DataFrame(places, FINDINGS.columns)


def add_up(counts: pl.Series) -> Counter[str]:
    """The sum of counts by name, from a column of JSON."""
    total: Counter[str] = Counter()
    for text in counts.drop_nulls():
        total.update(json.loads(text))
    return total


def count_by_source(scrubbed: pl.DataFrame, ledger: pl.DataFrame) -> dict[str, dict[str, int]]:
    """Source → reason → rows dropped."""
    dropped = ledger.filter(action="drop").join(scrubbed.select("row_id", "source"), on="row_id")
    counts: dict[str, dict[str, int]] = {}
    for source, reason, rows in dropped.group_by("source", "reason").len().sort("source", "reason").iter_rows():
        counts.setdefault(source, {})[reason] = rows
    return counts


def measure(params: Scrub, scrubbed: pl.DataFrame, ledger: pl.DataFrame, not_covered: list[str]) -> dict[str, Any]:
    """The metrics: findings by entity, every entity of params.yaml, in its order; the second look by source."""
    count = dict(ledger.group_by("reason").len().iter_rows())
    failed, equal = count.get("scrub_failed", 0), count.get("equal_replies", 0)
    replaced, kept = add_up(scrubbed["replaced"]), add_up(scrubbed["kept"])
    gone = [entity for entity, action in params.entities.items() if action != "keep"]
    residual = {
        source: dict(sorted(add_up(rows["residual"]).items()))
        for (source,), rows in sorted(scrubbed.partition_by("source", as_dict=True).items())
    }
    return {
        "rows_in": scrubbed.height,
        "rows_out": scrubbed.height - failed - equal,
        "changed": count.get("pii", 0),
        "failed": failed,
        "equal_replies": equal,
        "dropped_by_source": count_by_source(scrubbed, ledger),
        "entities": {entity: replaced[entity] for entity in dict.fromkeys([*gone, *sorted(replaced)])},
        "kept": {entity: kept[entity] for entity, action in params.entities.items() if action == "keep"},
        "residual": {source: counts for source, counts in residual.items() if counts},
        "names": params.names,
        "not_covered": not_covered,
    }


def check_items(items: pl.DataFrame) -> pl.DataFrame:
    """The items without the column `failed`. Raises InputError where a recogniser failed on one."""
    for item in items.filter(pl.col("failed").is_not_null()).iter_rows(named=True):
        raise InputError(
            f"task {item['task']}, {item['subtask']}, item {item['item']}: a recogniser failed ({item['failed']}); "
            "take the item out of its file, or the entity out of scrub.entities"
        )
    return items.select(*ITEMS.columns)


def is_sought(params: Scrub) -> pl.Expr:
    """Whether a probe of personal data is of a type that goes: one of `entities`, or a number of one of `locales`."""
    gone = [entity for entity, action in params.entities.items() if action != "keep"]
    sought = pl.col("probe").is_in(gone)
    if "NATIONAL_ID" in gone:
        of_locale = pl.col("probe").str.split("_").list.first().str.to_lowercase().is_in(params.locales)
        sought |= of_locale & ~pl.col("probe").is_in(list(params.entities))
    return sought


def main() -> None:
    params, engine, tasks, rows = load(Scrub, "scrub"), load(Engine, "engine"), load_tasks(), DEDUP.read()
    secrets = read_secrets(params)
    not_covered = build_scrubber(params, secrets).finder.not_covered
    if staying := [entity for entity in not_covered if entity == "PERSON" or entity in params.entities]:
        say("scrub", f"WARNING: nothing looks for {', '.join(staying)}: they stay; see scrub.names and scrub.entities")
    build, items = partial(make_worker, params.model_dump(), secrets), load_items(tasks)
    leaks = plant_leaks(items.filter(split="test"), rows.lazy(), load(Probes, "probes"))
    probes = pl.concat([read_probes("dedup", "scrub")[0].filter(is_sought(params)), leaks])
    scrubbed, of_probes = split_off(scrub_table(add_probes(rows, probes), build, engine, "scrub"))
    surrogates = [entity for entity, action in params.entities.items() if action == "surrogate"]
    probes = judge_personal_data(probes, split_scrubbed(of_probes)[0], surrogates)
    kept, ledger, findings = split_scrubbed(scrubbed)
    items = check_items(scrub_table(items, build, engine, "scrub items"))
    metrics = measure(params, scrubbed, ledger, not_covered)
    metrics |= {"probes_failed": of_probes["failed"].count(), "probes": score(probes, by_type=True)}
    tables = {SCRUB: kept, SCRUB_LEDGER: ledger, ITEMS: items, FINDINGS: findings, PROBES["scrub"]: probes}
    write_tables(tables, rows_in=rows, rows_out=kept)
    counts = metrics["entities"]
    write_csv("metrics/plots/scrub.csv", pl.DataFrame({"entity": list(counts), "count": list(counts.values())}))
    write_json("metrics/scrub.json", metrics)
    say(
        "scrub",
        f"{sum(counts.values())} findings replaced in {metrics['changed']} rows; {rows.height - kept.height} dropped",
    )


if __name__ == "__main__":
    run("scrub", main, outputs=["data/scrub"])
