"""Drop or mark rows that overlap an evaluation item, after leaving out rows that would teach something bad.

data/scrub/{rows,items,probes}.parquet → data/decontaminate/{rows,ledger,items,report,probes}.parquet,
metrics/decontaminate.json

Compared are the questions and answers of exactly the items that eval will run, and of the worked examples that lm-eval
may show before them (stages/contamination/items.py), by two rules (stages/contamination/overlaps.py): a row overlaps an
item when it holds at least `threshold` of the different word n-grams of one of the item's texts, or one whole run of
`run` words of it, 13 in GPT-3 (Brown et al. 2020, appendix C). An item shorter than `run` words goes by the share
alone, one shorter than `ngram` is sought whole. The rules may differ from task to task.

A reworded item is not found. items.parquet says which items are dirty, so that eval can score clean and dirty apart;
report.parquet shows the worst cases with the words that matched. The filters (block `filters`) come first and are told
in stages/quality/filters.py.
"""

from functools import partial
from typing import Annotated, Any, Literal

import polars as pl
from pydantic import Field

from stages.common.stage import run, say  # isort: skip
from stages.common.contracts import write_tables
from stages.common.engine import LOCAL, Engine, map_batches, slices
from stages.common.errors import InputError
from stages.common.files import write_json, write_table
from stages.common.item_contracts import MARKED_ITEMS
from stages.common.ledger import LEDGER_SCHEMA
from stages.common.params import Name, Params, PositiveInt, load, load_tasks
from stages.common.probes import PROBES, read_probes, rows_of, score
from stages.common.row_contracts import DECONTAMINATE, DECONTAMINATE_LEDGER, SCRUB
from stages.contamination.items import comparable, item_texts, list_asked, read_items
from stages.contamination.overlaps import find_overlaps
from stages.contamination.report import report_worst
from stages.probes.similarity import judge_leaks
from stages.quality.filters import JUDGED, REASONS, Filters, make_filter

BATCH = 20_000  # rows filtered at a time
WARNINGS = 3  # items named on the terminal

Threshold = Annotated[float, Field(gt=0, le=1)]
Action = Literal["drop", "mark"]


class TaskRules(Params):
    """What differs for one task; what is not given is as for all. An empty `run` turns that rule off."""

    ngram: PositiveInt | None = None
    threshold: Threshold | None = None
    run: PositiveInt | None = None
    action: Action | None = None


class Decontaminate(Params):
    """Which rows hold an evaluation item."""

    ngram: PositiveInt
    """Words per n-gram (characters in scripts without spaces); an item shorter than this is compared whole."""
    threshold: Threshold
    """Share in (0, 1] of an item's n-grams that a row must hold to count as an overlap."""
    run: PositiveInt | None
    """Words of an item that make an overlap by themselves where a row has them in a row; empty: no such rule."""
    common: PositiveInt
    """A run that stands in more items than this is common wording and makes no overlap."""
    action: Action
    """What becomes of a row that overlaps an item: `drop` takes it out, `mark` says so in the ledger."""
    examples: Literal["drop", "mark", "ignore"]
    """The same for the worked examples of a task with num_fewshot; they give no answer away that is asked for."""
    tasks: dict[Name, TaskRules]
    """Task → the rules that differ for it: {mmlu: {threshold: 0.5, action: mark}}."""


def rules_of(params: Decontaminate, tasks: list[str]) -> pl.DataFrame:
    """One line per task: task, ngram, threshold, run, action. Raises InputError on rules for an unknown task."""
    unknown = sorted(set(params.tasks) - set(tasks))
    if unknown:
        raise InputError(f"params.yaml, decontaminate.tasks.{unknown[0]}: no such task; there are {', '.join(tasks)}")
    common = {name: getattr(params, name) for name in TaskRules.model_fields}
    own = {
        task: {name: value for name, value in rules.model_dump(exclude_unset=True).items() if value or name == "run"}
        for task, rules in params.tasks.items()
    }
    schema = {"task": pl.String, "ngram": pl.Int64, "threshold": pl.Float64, "run": pl.Int64, "action": pl.String}
    return pl.DataFrame([{"task": task} | common | own.get(task, {}) for task in tasks], schema)


def filter_rows(rows: pl.DataFrame, filters: Filters, engine: Engine) -> pl.DataFrame:
    """The rows to leave out, with the reason: row_id, reason, detail."""
    batches, total = slices(rows, BATCH)
    judged = map_batches(partial(make_filter, filters), batches, engine, "decontaminate: filters", total)
    return pl.concat([pl.DataFrame(schema=JUDGED), *judged])


def compare(
    rows: pl.DataFrame, items: pl.DataFrame, params: Decontaminate, tasks: list[str], engine: Engine = LOCAL
) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Overlaps (row_id, item, share, text, run), marked items, and the worst cases.

    `item` is a position in `items`, which come back with action, rows (that overlap it), dirty, blind (no
    text), asked (see `list_asked`).
    """
    items = items.join(rules_of(params, tasks), on="task", maintain_order="left").with_columns(
        action=pl.when(pl.col("split") == "test").then("action").otherwise(pl.lit(params.examples))
    )
    items = items.filter(pl.col("action") != "ignore")
    texts = comparable(item_texts(items))
    texts = texts.hstack(items.select("ngram", "threshold", "run")[texts["item"]])
    overlaps = find_overlaps(rows, texts, params.common, engine)
    counted = items.with_columns(item_position=pl.int_range(pl.len(), dtype=pl.Int64)).join(
        overlaps.group_by(item_position="item").agg(rows=pl.len().cast(pl.Int64)),
        on="item_position",
        how="left",
        maintain_order="left",
    )
    counted = counted.join(
        list_asked(texts), left_on="item_position", right_on="item", how="left", maintain_order="left"
    )
    marked = counted.with_columns(
        pl.col("asked").fill_null([]),
        pl.col("rows").fill_null(0),
        dirty=pl.col("rows").fill_null(0) > 0,
        blind=~pl.col("item_position").is_in(texts["item"].unique().implode()),
    ).select("task", "subtask", "split", "item", "dirty", "rows", "blind", "action", "asked")
    return overlaps, marked, report_worst(rows, items, texts, overlaps)


def name_item() -> pl.Expr:
    """What the ledger calls an item."""
    return pl.when(pl.col("split") == "test").then(pl.format("{}/{}/{}", "task", "subtask", "item")).otherwise(
        pl.format("{}/{}/{}/{}", "task", "subtask", "split", "item")
    )  # fmt: skip


def find_wording(
    overlaps: pl.DataFrame, items: pl.DataFrame, rules: pl.DataFrame, common: int
) -> list[tuple[str, int]]:
    """The items that more than `common` rows overlap by a run alone, with the number of these rows: the most first."""
    named = items.join(rules.select("task", "threshold"), on="task", maintain_order="left")
    of_item = named.select("threshold", name=name_item())[overlaps["item"]]
    alone = overlaps.hstack(of_item).filter("run", pl.col("share") < pl.col("threshold"))
    counts = alone.group_by("name").len().filter(pl.col("len") > common)
    return counts.sort(-pl.col("len").cast(pl.Int64), "name").rows()


def write_lines(filtered: pl.DataFrame, items: pl.DataFrame, overlaps: pl.DataFrame) -> pl.DataFrame:
    """The ledger: the filtered rows, and each row that overlaps an item with the one that it overlaps most.

    A row is dropped when one of its items says so; then it names the one of these that it overlaps most.
    """
    of_item = items[overlaps["item"]]
    most = (
        overlaps.with_columns(of_item["action"], of_item.select(name_item().alias("other_id"))["other_id"])
        .sort("row_id", pl.col("action") != "drop", -pl.col("share"), "item")
        .unique("row_id", keep="first", maintain_order=True)
    )
    by_run = pl.when("run").then(pl.lit(",run")).otherwise(pl.lit(""))
    share = (pl.col("share") * 100).round().cast(pl.Int64).cast(pl.String).str.zfill(3)
    contaminated = most.select(
        "row_id",
        "other_id",
        action=pl.when(pl.col("action") == "drop").then(pl.lit("drop")).otherwise(pl.lit("change")),
        reason=pl.lit("contaminated"),
        detail=pl.format("share={}.{}{}", share.str.head(1), share.str.tail(2), by_run),
    )
    left_out = filtered.with_columns(action=pl.lit("drop"), other_id=pl.lit(None, pl.String))
    lines = pl.concat([left_out, contaminated], how="diagonal").with_columns(stage=pl.lit("decontaminate"))
    return lines.select(*LEDGER_SCHEMA).cast(LEDGER_SCHEMA).sort("row_id")  # type: ignore[arg-type]


def measure(
    rows: pl.DataFrame, items: pl.DataFrame, overlaps: pl.DataFrame, ledger: pl.DataFrame, tasks: list[str]
) -> dict[str, Any]:
    """metrics/decontaminate.json; a row that overlaps items of two tasks counts in both."""
    of_item = items[overlaps["item"]]
    pairs = overlaps.select("row_id", "run").with_columns(of_item["task"], of_item["split"])

    def count_rows(condition: pl.Expr | bool) -> dict[str, int]:
        return {task: pairs.filter(pl.col("task") == task, condition)["row_id"].n_unique() for task in tasks}

    def count_items(condition: pl.Expr | bool) -> dict[str, int]:
        test = items.filter(split="test")
        return {task: test.filter(pl.col("task") == task, condition).height for task in tasks}

    overlapping = ledger.filter(pl.col("reason") == "contaminated")
    filtered = ledger.filter(pl.col("reason") != "contaminated").join(rows.select("row_id", "source"), on="row_id")
    by_source = filtered.group_by("source", "reason").len().sort("source", "reason")
    return {
        "rows_in": rows.height,
        "rows_out": rows.height - ledger.filter(action="drop").height,
        "dropped": overlapping.filter(action="drop").height,
        "marked": overlapping.filter(action="change").height,
        "contaminated": count_rows(pl.col("split") == "test"),
        "by_run": count_rows(pl.col("run")),
        "like_examples": count_rows(pl.col("split") == "fewshot"),
        "dirty_items": count_items(pl.col("dirty")),
        "items": count_items(True),
        "blind_items": count_items(pl.col("blind")),
        "filtered": {reason: filtered.filter(reason=reason).height for reason in REASONS},
        "filtered_by_source": {
            source: dict(table.select("reason", "len").iter_rows())
            for (source,), table in by_source.group_by("source", maintain_order=True)
        },
    }


def try_probes(
    probes: pl.DataFrame, items: pl.DataFrame, params: Decontaminate, tasks: list[str], engine: Engine
) -> pl.DataFrame:
    """The probes with what the comparison says of them; by themselves, so that no item is marked for their sake."""
    overlaps, _, _ = compare(rows_of(probes), items, params, tasks, engine)
    rules = {task: (ngram, threshold, run) for task, ngram, threshold, run, _ in rules_of(params, tasks).iter_rows()}
    return judge_leaks(probes, set(overlaps["row_id"]), items.filter(split="test"), rules)


def main() -> None:
    params, filters, tasks = load(Decontaminate, "decontaminate"), load(Filters, "filters"), load_tasks()
    engine, names = load(Engine, "engine"), [task.name for task in tasks]
    rows, items = SCRUB.read(), read_items(names)
    probes, _ = read_probes("scrub", "decontaminate")
    filtered = filter_rows(rows, filters, engine)
    compared = rows.filter(~pl.col("row_id").is_in(filtered["row_id"].implode()))
    overlaps, marked, report = compare(compared, items, params, names, engine)
    ledger = write_lines(filtered, marked, overlaps)
    dropped = ledger.filter(action="drop")["row_id"]
    kept = rows.filter(~pl.col("row_id").is_in(dropped.implode()))
    asked = marked.filter(split="test").select(*MARKED_ITEMS.columns)
    probes = try_probes(probes, items, params, names, engine)
    tables = {DECONTAMINATE: kept, DECONTAMINATE_LEDGER: ledger, MARKED_ITEMS: asked, PROBES["decontaminate"]: probes}
    write_tables(tables, rows_in=rows, rows_out=kept)
    write_table("data/decontaminate/report.parquet", report)
    metrics = measure(rows, marked, overlaps, ledger, names) | {"probes": score(probes)}
    write_json("metrics/decontaminate.json", metrics)
    tell(find_wording(overlaps, marked, rules_of(params, names), params.common), asked, metrics)


def tell(wording: list[tuple[str, int]], asked: pl.DataFrame, metrics: dict[str, Any]) -> None:
    """What came of it, in a few lines on the terminal."""
    for item, count in wording[:WARNINGS]:
        advice = f"if it is wording of your data, raise or empty decontaminate.tasks.{item.partition('/')[0]}.run"
        say("decontaminate", f"WARNING: {count} rows overlap {item} by a run of words alone; {advice}")
    left_out, overlapping = sum(metrics["filtered"].values()), metrics["dropped"] + metrics["marked"]
    dirty = f"{asked['dirty'].sum()} of {asked.height} evaluation items"
    say("decontaminate", f"of {metrics['rows_in']} rows {left_out} were filtered, {overlapping} overlap {dirty}")


if __name__ == "__main__":
    run("decontaminate", main, outputs=["data/decontaminate"])
