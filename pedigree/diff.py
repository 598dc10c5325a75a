"""pedigree diff A [B]: two versions side by side, rows first: what came, went and changed, and what that did.

A and B are git revisions, tags, branches or experiments; without B the workspace is the second. Rows are compared by
content, data stages by their rates, mixtures by lengths and shares, models item by item on the evaluation, and the
inputs of each stage by what dvc.lock recorded. Two runs are no experiment: what differs before a metric is named as
what may have moved it, and whether the metric moved by more than chance is said beside it.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

from pedigree.causes import roots_before
from pedigree.journey import JUDGED, KINDS
from pedigree.layout import show_value, table
from pedigree.lockfile import flatten
from pedigree.snapshot import Snapshot
from stages.common.errors import InputError
from stages.common.files import write_json, write_table

EXAMPLES = 5  # rows of each kind named for a source
CODE_FILES = 3  # named of what differs before a model
LEAST_DRIFT = 0.02  # of a source's mean length or share: less is not shown
TRAINED = ("sft", "align", "quantize")
MODELS = ("base", "sft", "align", "quantized")
METRICS = ("base", "pool", "dedup", "scrub", "decontaminate", "mix", "sft", "align", "quantize")
RATES = {  # per row that comes in: metrics file, keys
    "pool": ("refused", "no_consent", "excluded"),
    "dedup": ("exact_duplicates", "near_duplicates", "swapped_labels"),
    "scrub": ("changed", "failed", "equal_replies", "entities"),
    "decontaminate": ("contaminated", "filtered"),
}
Sides = tuple[Snapshot, Snapshot]


def read_metrics(snapshot: Snapshot) -> dict[str, dict[str, Any]]:
    """What each stage measured, eval/<model> among them; stages that have not run are left out."""
    names = [*METRICS, *(f"eval/{model}" for model in MODELS)]
    paths = {name: snapshot.find(f"metrics/{name}.json") for name in names}
    return {name: json.loads(path.read_text()) for name, path in paths.items() if path is not None}


def read_both(sides: Sides) -> tuple[str, pl.LazyFrame, pl.LazyFrame] | None:
    """The earliest table of rows that is in reach on both sides."""
    for name in ("pool", *JUDGED):
        tables = [side.scan(f"data/{name}/rows.parquet") for side in sides]
        if tables[0] is not None and tables[1] is not None:
            return name, tables[0], tables[1]
    return None


def by_content(rows: pl.LazyFrame) -> pl.LazyFrame:
    """row_id without a key: source, text and number among equals. For versions whose ids are of different keys."""
    from stages.common.rows import text_of_row

    text = pl.struct("source", "label", text_of_row().alias("text")).hash()
    number = pl.int_range(pl.len()).over(text)
    return rows.with_columns(row_id=pl.format("{}-{}", text, number))


def compare_data(sides: Sides) -> tuple[str, pl.DataFrame, pl.DataFrame]:
    """The stage that was compared, counts of each source (before, after, added, removed, changed), and the rows."""
    from pedigree.versions import compare_rows

    found = read_both(sides)
    if found is None:
        away = sorted({*sides[0].out_of_reach, *sides[1].out_of_reach})
        raise InputError(f"no table of rows is in reach on both sides ({', '.join(away) or 'run `dvc repro`'})")
    name, before, after = found
    if sides[0].read_params()["pool"]["subject_key"] != sides[1].read_params()["pool"]["subject_key"]:
        before, after = by_content(before), by_content(after)
    changes = compare_rows(before, after)
    counts = [rows.group_by("source", maintain_order=True).len(side).collect() for rows, side in
              ((after, "after"), (before, "before"))]  # fmt: skip
    kinds = changes.group_by("source", "change").len()
    whole = counts[0].join(counts[1], on="source", how="full", coalesce=True)
    for kind in ("added", "removed", "changed"):
        whole = whole.join(
            kinds.filter(change=kind).select("source", pl.col("len").alias(kind)), on="source", how="left"
        )
    return name, whole.select("source", pl.exclude("source").fill_null(0)), changes


def rates(metrics: dict[str, dict[str, Any]]) -> dict[str, float]:
    """`dedup.near_duplicates` and the like, per row (of pool: record) that came in."""
    found = {}
    for stage, keys in RATES.items():
        measured = metrics.get(stage, {})
        for key in keys:
            for name, count in flatten(measured.get(key, 0), f"{stage}.{key}"):
                found[name] = count / max(1, measured.get("rows_in", 0))
    return found


def lengths(snapshot: Snapshot) -> pl.DataFrame:
    """Of each source in the training mixture: mean, median and 95th percentile of tokens a row, share of its kind."""
    tables = [snapshot.scan(f"data/mix/{kind}.parquet") for kind in KINDS]
    columns = ["source", "kind", "tokens", "split"]
    rows = [part.select(columns).filter(split="train") for part in tables if part is not None]
    if not rows:
        return pl.DataFrame(schema={"source": pl.String, "mean": pl.Float64, "median": pl.Float64, "p95": pl.Float64,
                                    "share": pl.Float64})  # fmt: skip
    tokens = pl.col("tokens")
    return (
        pl.concat(rows)
        .group_by("source", "kind")
        .agg(tokens.sum().alias("sum"), mean=tokens.mean(), median=tokens.median(), p95=tokens.quantile(0.95))
        .with_columns(share=pl.col("sum") / pl.col("sum").sum().over("kind"))
        .select("source", "mean", "median", "p95", "share")
        .sort("source")
        .collect()
    )


def compare_models(sides: Sides) -> Iterator[dict[str, Any]]:
    """B minus A of each model and task, item by item where both have the items, with a 95 % interval."""
    from stages.cards.scores import compare

    for model in MODELS:
        tables = [side.scan(f"data/eval/{model}/items.parquet") for side in sides]
        if tables[0] is None or tables[1] is None:
            continue
        items = {"before": tables[0].collect(), "after": tables[1].collect()}
        both = items["after"].join(items["before"], on=["task", "subtask", "item"], how="semi")
        for task in both["task"].unique(maintain_order=True):
            for found in compare(items, "after", "before", [task]):
                means = [items[side].filter(task=task)["correct"].mean() for side in ("before", "after")]
                yield {
                    "model": model, "task": task, "items": found.items, "before": means[0], "after": means[1],
                    "difference": found.value, "low": found.low, "high": found.high, "verdict": found.verdict,
                }  # fmt: skip


def changed_leaves(before: Any, after: Any) -> dict[str, list[Any]]:
    """key → [before, after] of what differs; null where a side has none."""
    one, other = dict(flatten(before)), dict(flatten(after))
    keys = [*one, *(key for key in other if key not in one)]
    return {key: [one.get(key), other.get(key)] for key in keys if one.get(key) != other.get(key)}


def build_report(sides: Sides) -> tuple[dict[str, Any], pl.DataFrame]:
    """All of the comparison as one object, and the table of changed rows."""
    stage, counts, changes = compare_data(sides)
    metrics, locks = [read_metrics(side) for side in sides], [side.lock for side in sides]
    drift = lengths(sides[0]).join(lengths(sides[1]), on="source", how="full", coalesce=True, suffix="_after")
    scored = [name for name in locks[1] if name.startswith("eval@")]
    causes = {name: roots_before(name, locks[0], locks[1]) for name in scored or locks[1]}
    report = {
        "before": sides[0].name,
        "after": sides[1].name,
        "rows_compared_at": stage,
        "rows": counts.rows(named=True),
        "examples": [line for group in changes.partition_by("source", "change", maintain_order=True)
                     for line in group.head(EXAMPLES).rows(named=True)],
        "rates": changed_leaves(rates(metrics[0]), rates(metrics[1])),
        "lengths": drift.rows(named=True),
        "parameters": changed_leaves(sides[0].read_params(), sides[1].read_params()),
        "metrics": changed_leaves(metrics[0], metrics[1]),
        "evaluation": list(compare_models(sides)),
        "causes": {name: [cause._asdict() for cause in found] for name, found in causes.items()},
        "out_of_reach": sorted({*sides[0].out_of_reach, *sides[1].out_of_reach}),
    }  # fmt: skip
    return report, changes


def show_report(report: dict[str, Any]) -> str:
    shown = (show_rows, show_rates, show_drift, show_leaves, show_metrics, show_models, show_causes)
    parts = [f"{report['before']} → {report['after']}", *(show(report) for show in shown)]
    if report["out_of_reach"]:
        parts.append(f"not in reach, so not compared: {', '.join(report['out_of_reach'])}")
    return "\n\n".join(filter(None, parts))


def show_rows(report: dict[str, Any]) -> str:
    names = ("before", "after", "added", "removed", "changed")
    lines = [[line["source"], *(f"{line[name]:,}" for name in names)] for line in report["rows"]]
    sums = ["all", *(f"{sum(line[name] for line in report['rows']):,}" for name in names)]
    heads = [[f"rows after {report['rows_compared_at']}", *names]]
    text = table([*heads, *lines, sums], right=range(1, 6))
    examples: dict[str, list[list[str]]] = {}
    for line in report["examples"]:
        what = f"was {line['former_id']}, similarity {line['similarity']:.2f}" if line["former_id"] else ""
        numbered = f"record {line['record']}" + (" of before" if line["change"] == "removed" else "")
        examples.setdefault(line["file"], []).append([line["change"], numbered, line["row_id"], what])
    shown = [f"{file}, up to {EXAMPLES} of each kind\n{table(lines, indent='  ')}" for file, lines in examples.items()]
    return "\n".join([text, *shown])


def show_rates(report: dict[str, Any]) -> str:
    lines = [[name, *(f"{value or 0:.2%}" for value in values)] for name, values in report["rates"].items()]
    lines = [line for line in lines if line[1] != line[2]]
    return table([["rates", "before", "after"], *lines], right=(1, 2)) if lines else ""


def show_drift(report: dict[str, Any]) -> str:
    lines = []
    for line in report["lengths"]:
        values = [line[name] or 0 for name in ("mean", "mean_after", "share", "share_after")]
        if abs(values[1] - values[0]) > LEAST_DRIFT * values[0] or abs(values[3] - values[2]) > LEAST_DRIFT:
            lines.append([line["source"], *(f"{value:.1f}" for value in values[:2]), *(f"{v:.1%}" for v in values[2:])])
    heads = ["in the mixture", "tokens a row", "after", "share", "after"]
    return table([heads, *lines], right=range(1, 5)) if lines else ""


def show_leaves(report: dict[str, Any]) -> str:
    lines = [[name, *show_change(before, after)] for name, (before, after) in report["parameters"].items()]
    return "parameters\n" + table(lines, indent="  ") if lines else ""


def show_change(before: Any, after: Any) -> list[str]:
    """A value, an arrow and another value; of two lists what came and went."""
    if isinstance(before, list) and isinstance(after, list):
        came, went = ([item for item in one if item not in other] for one, other in ((after, before), (before, after)))
        return [f"+{len(came)} -{len(went)} of {len(before)}", "", show_value(came or went)]
    return [show_value(before), "→", show_value(after)]


def show_metrics(report: dict[str, Any]) -> str:
    """Losses and the like: metrics of training and quantizing that differ."""
    lines = [
        [name, show_value(before), show_value(after)]
        for name, (before, after) in report["metrics"].items()
        if name.partition(".")[0] in TRAINED and not name.endswith("digest")
    ]
    return table([["metrics", "before", "after"], *lines], right=(1, 2)) if lines else ""


def show_models(report: dict[str, Any]) -> str:
    heads = ["accuracy", "before", "after", "difference", "95 %, paired", ""]
    lines = [show_score(line) for line in report["evaluation"]]
    return table([heads, *lines], right=range(1, 5)) if lines else ""


def show_score(line: dict[str, Any]) -> list[str]:
    name, means = f"{line['model']} {line['task']}", [f"{line[side]:.3f}" for side in ("before", "after")]
    if line["difference"] == line["low"] == line["high"] == 0:
        return [name, *means, "", "", "the same on every item"]
    interval = f"({line['low']:+.3f} to {line['high']:+.3f})"
    return [name, *means, f"{line['difference']:+.3f}", interval, line["verdict"]]


def show_causes(report: dict[str, Any]) -> str:
    """What may have moved scores, each with the models that it stands before."""
    scored = any(stage.startswith("eval@") for stage in report["causes"])
    before: dict[tuple[str, str, str], list[str]] = {}
    for stage, causes in report["causes"].items():
        for kind, name, told in merge_causes(causes):
            before.setdefault((kind, name, told), []).append(stage.removeprefix("eval@"))
    lines = [[kind, name, told, ", ".join(models)] for (kind, name, told), models in before.items()]
    alone = [stage.removeprefix("eval@") for stage, causes in report["causes"].items() if len(causes) == 1]
    heads = ["what differs before the scores", "", "", "of models"] if scored else ["what differs", "", "", "before"]
    said = f"\nthe only difference before {', '.join(alone)}: evidence, though no proof" if alone else ""
    none = f"nothing before {'the scores' if scored else ', '.join(report['causes'])} differs"
    return table([heads, *lines]) + said if lines else none


def merge_causes(causes: list[dict[str, Any]]) -> Iterator[tuple[str, str, str]]:
    """kind, name and change in words: a source that came or went is one, and so is all code."""
    whole = {cause["name"].split(".")[1]: cause for cause in causes if cause["name"].startswith("sources.")
             and cause["name"].endswith(".name")}  # fmt: skip
    for name, cause in whole.items():
        yield "source", name, "added" if cause["before"] is None else "removed"
    for cause in causes:
        parts = cause["name"].split(".")
        if cause["kind"] == "code" or (parts[0] == "sources" and parts[1] in whole):
            continue
        change = ("", "", "") if cause["kind"] == "data" else show_change(cause["before"], cause["after"])
        yield cause["kind"], cause["name"], " ".join(filter(None, change))
    code = [cause["name"] for cause in causes if cause["kind"] == "code"]
    if code:
        yield "code", f"{len(code)} files", ", ".join(code[:CODE_FILES]) + (", ..." if len(code) > CODE_FILES else "")


def diff(arguments: argparse.Namespace) -> None:
    sides = Snapshot(arguments.before), Snapshot(arguments.after)
    for side in sides:
        if not side.lock:
            raise InputError(f"{side.name} has no dvc.lock: nothing has run there")
    report, changes = build_report(sides)
    if arguments.output:
        path = Path(arguments.output)
        if path.suffix == ".parquet":
            write_table(path, changes)
        elif path.suffix == ".json":
            write_json(path, report)
        else:
            raise InputError(f"{path}: expected a name that ends in .json (the comparison) or .parquet (the rows)")
    print(json.dumps(report, ensure_ascii=False) if arguments.json else show_report(report))
