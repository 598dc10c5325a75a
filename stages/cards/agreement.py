"""The card is rendered only where all that it states agrees: metrics with each other, with the tables, with dvc.lock.

Each claim is a number of one file beside what another one says of the same thing. Those that differ are told together,
each with the file, both values and the command that mends it.
"""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from stages.cards.digests import digest_path, list_outputs, list_reads
from stages.cards.flow import REASONS, add_up
from stages.cards.inputs import CURVES, MODELS, Facts, is_number
from stages.cards.tables import READER
from stages.common.errors import InputError

DIGITS = 1e-5  # relative: metrics have six digits
DUPLICATES = {"exact_duplicate": "exact_duplicates", "near_duplicate": "near_duplicates",
              "swapped_labels": "swapped_labels"}  # fmt: skip
"""Reason in the ledger → key in metrics/dedup.json."""
UNSCRUBBED = {"scrub_failed": "failed", "equal_replies": "equal_replies"}
"""Reason in the ledger of a drop → key in metrics/scrub.json."""
RAW_TABLES = ("data/pool", "data/dedup")  # not here on every machine; metrics/pool.json and dedup.json are


class Claim(NamedTuple):
    """What a file states, and what another one says of it."""

    where: str
    stated: Any
    against: str
    found: Any
    stage: str
    """To run where they differ."""

    @property
    def holds(self) -> bool:
        both = (self.stated, self.found)
        if any(isinstance(value, float) for value in both) and all(is_number(value) for value in both):
            return math.isclose(self.stated, self.found, rel_tol=DIGITS, abs_tol=DIGITS)
        return bool(self.stated == self.found)

    def __str__(self) -> str:
        return f"{self.where}: {self.stated}, but {self.against}: {self.found}; run `dvc repro --force {self.stage}`"


def check(facts: Facts) -> None:
    """Raises InputError where two statements differ, with all that do."""
    for claims in (claims_of_lock, claims_of_counts, claims_of_tables, claims_of_training, claims_of_evaluation):
        if faults := [str(claim) for claim in claims(facts) if not claim.holds]:
            raise InputError("\n".join(faults))


def is_quoted(path: str) -> bool:
    """Whether the card reads an output: all tables but the raw ones, all metrics, and the curves that it draws."""
    if path.startswith("metrics/plots/"):
        return Path(path).stem in CURVES
    return path.startswith(("data/", "metrics/")) and path not in RAW_TABLES


def claims_of_lock(facts: Facts) -> Iterator[Claim]:
    """What is here is what dvc.lock recorded, and what a stage read is what another one wrote."""
    outputs = list_outputs(facts.lock)
    hashed: dict[str, str] = {}

    def digest(path: str) -> str:
        if path not in hashed:
            hashed[path] = digest_path(Path(path)) if Path(path).exists() else "nothing"
        return hashed[path]

    for path, out in outputs.items():
        if is_quoted(path):
            yield Claim(path, digest(path), f"dvc.lock recorded what {out.stage} wrote", out.md5, out.stage)
    for read in list_reads(facts.lock):
        stage, path = read.stage, read.path
        raw = path.startswith("data/raw/")
        if path in outputs:
            maker = outputs[path]
            told = f"dvc.lock, {path} as {stage} read it"
            yield Claim(told, read.md5, f"as {maker.stage} wrote it", maker.md5, stage)
        elif path.startswith("data/") and (not raw or stage == "eval@base"):  # a file of a folder, or what was asked
            yield Claim(path, digest(path), f"dvc.lock recorded what {stage} read", read.md5, stage)


def claims_of_counts(facts: Facts) -> Iterator[Claim]:
    """Metrics of the data stages: each adds up, and takes in what the one before gave out."""
    metrics = facts.metrics
    pool, dedup, scrub, clean, mix = (metrics[name] for name in ("pool", "dedup", "scrub", "decontaminate", "mix"))
    sums = {
        "records_in": pool["records_read"] + pool["refused"],
        "refused": add_up(pool["refused_by_source"]),
        "rows_out": add_up(pool["rows"]),
        "excluded": add_up(pool["excluded_by_source"]),
    }
    parts = ("records_read and refused", "refused_by_source", "rows", "excluded_by_source")
    for (key, found), part in zip(sums.items(), parts, strict=True):
        yield Claim(f"metrics/pool.json, {key}", pool[key], f"{part} add up to", found, "pool")
    for source, number in pool.get("no_consent", {}).items():
        refused = pool["refused_by_source"].get(source, 0)
        told = f"of refused_by_source.{source}, {refused}, no more than"
        yield Claim(f"metrics/pool.json, no_consent.{source}", number, told, min(number, refused), "pool")
    told = "metrics/pool.json, records_by_source add up to"
    yield Claim("metrics/pool.json, records_in", pool["records_in"], told, add_up(pool["records_by_source"]), "pool")
    gone = {
        "dedup": sum(dedup[key] for key in DUPLICATES.values()),
        "scrub": scrub["failed"] + scrub["equal_replies"],
        "decontaminate": clean["dropped"] + add_up(clean["filtered"]),
        "mix": add_up(mix["left_out"]),
    }
    before = "pool"
    for stage, dropped in gone.items():
        own = metrics[stage]
        told = f"metrics/{before}.json, rows_out"
        yield Claim(f"metrics/{stage}.json, rows_in", own["rows_in"], told, metrics[before]["rows_out"], stage)
        told = f"rows_in less {dropped} that went"
        yield Claim(f"metrics/{stage}.json, rows_out", own["rows_out"], told, own["rows_in"] - dropped, stage)
        before = stage
    for reason, key in DUPLICATES.items():
        found = sum(counts.get(reason, 0) for counts in dedup["dropped_by_source"].values())
        yield Claim(f"metrics/dedup.json, {key}", dedup[key], "dropped_by_source add up to", found, "dedup")
    for reason, key in UNSCRUBBED.items():
        found = sum(counts.get(reason, 0) for counts in scrub["dropped_by_source"].values())
        yield Claim(f"metrics/scrub.json, {key}", scrub[key], "dropped_by_source add up to", found, "scrub")


def claims_of_tables(facts: Facts) -> Iterator[Claim]:
    """Metrics of the data stages against their tables, and the rows of each source, which must all be accounted for."""
    metrics, tables = facts.metrics, facts.tables
    yield from claims_of_raw_tables(metrics)
    counted = {
        "scrub": {"changed": pl.col("action") == "change"}
        | {key: pl.col("reason") == reason for reason, key in UNSCRUBBED.items()},
        "decontaminate": {
            "dropped": (pl.col("reason") == "contaminated") & (pl.col("action") == "drop"),
            "marked": (pl.col("reason") == "contaminated") & (pl.col("action") == "change"),
        },
    }
    for stage, keys in counted.items():
        told = f"rows in data/{stage}/rows.parquet"
        yield Claim(
            f"metrics/{stage}.json, rows_out", metrics[stage]["rows_out"], told, tables.rows[stage].height, stage
        )
        for key, condition in keys.items():
            found = tables.ledgers[stage].filter(condition).height
            told = f"lines in data/{stage}/ledger.parquet"
            yield Claim(f"metrics/{stage}.json, {key}", metrics[stage].get(key, 0), told, found, stage)
    for stage, key in (("decontaminate", "filtered"), ("mix", "left_out")):
        for reason, number in metrics[stage][key].items():
            found = tables.ledgers[stage].filter(reason=reason).height
            told = f"lines in data/{stage}/ledger.parquet"
            yield Claim(f"metrics/{stage}.json, {key}.{reason}", number, told, found, stage)
    for task, number in metrics["decontaminate"]["dirty_items"].items():
        found = tables.items.filter(task=task, dirty=True).height
        told = "items marked in data/decontaminate/items.parquet"
        yield Claim(f"metrics/decontaminate.json, dirty_items.{task}", number, told, found, "decontaminate")
    yield from claims_of_mixture(facts)
    for line in facts.flow:
        found = sum(getattr(line, reason) for reason in REASONS)
        yield Claim(f"metrics/pool.json, rows of {line.source}", line.rows, "the tables account for", found, "pool")


def claims_of_raw_tables(metrics: Mapping[str, Any]) -> Iterator[Claim]:
    """pool and dedup, where their tables are here: dvc.yaml cannot ask for them, they never leave their machine."""
    for stage in ("pool", "dedup"):
        path = Path(f"data/{stage}/rows.parquet")
        if path.is_file():
            found = pl.scan_parquet(path).select(pl.len()).collect().item()
            yield Claim(f"metrics/{stage}.json, rows_out", metrics[stage]["rows_out"], f"rows in {path}", found, stage)
    refused, rows, ledger = (Path(f"data/pool/{name}.parquet") for name in ("refused", "rows", "ledger"))
    if refused.is_file():
        counts = dict(
            pl.read_parquet(refused, columns=["source", "file", "record"]).unique()["source"].value_counts().iter_rows()
        )
        for source, number in metrics["pool"]["refused_by_source"].items():
            where = f"metrics/pool.json, refused_by_source.{source}"
            yield Claim(where, number, f"records in {refused}", counts.get(source, 0), "pool")
    if rows.is_file():
        counts = dict(pl.read_parquet(rows, columns=["source"])["source"].value_counts().iter_rows())
        for source, number in metrics["pool"]["rows"].items():
            yield Claim(f"metrics/pool.json, rows.{source}", number, f"rows in {rows}", counts.get(source, 0), "pool")
    for path, stage, keys in (
        (ledger, "pool", {"excluded": "excluded"}),
        (Path("data/dedup/ledger.parquet"), "dedup", DUPLICATES),
    ):
        if path.is_file():
            counts = dict(pl.read_parquet(path, columns=["reason"])["reason"].value_counts().iter_rows())
            for reason, key in keys.items():
                where = f"metrics/{stage}.json, {key}"
                yield Claim(where, metrics[stage][key], f"lines in {path}", counts.get(reason, 0), stage)


def claims_of_mixture(facts: Facts) -> Iterator[Claim]:
    """metrics/mix.json and metrics/plots/mix.csv against data/mix."""
    mix, mixture = facts.metrics["mix"], facts.tables.mixture
    yield Claim("metrics/mix.json, rows_out", mix["rows_out"], "rows in data/mix", mixture["row_id"].n_unique(), "mix")
    for (kind,), part in mixture.group_by("kind", maintain_order=True):
        train = part.filter(split="train")
        found = {
            "train_rows": train.height,
            "heldout_rows": part.height - train.height,
            "train_tokens": train["tokens"].sum(),
        }
        for key, number in found.items():
            where = f"metrics/mix.json, {kind}.{key}"
            yield Claim(where, mix[str(kind)][key], f"data/mix/{kind}.parquet has", number, "mix")
    train = mixture.filter(split="train")
    amounts = dict(
        train.group_by("source")
        .agg(pl.len() if facts.params["mix"]["unit"] == "rows" else pl.col("tokens").sum())
        .iter_rows()
    )
    rows = dict(train.group_by("source").len().iter_rows())
    kinds = {source.name: source.kind for source in facts.sources}
    whole: dict[str, int] = {}
    for name, amount in amounts.items():
        whole[kinds[name]] = whole.get(kinds[name], 0) + amount
    for line in facts.curves["mix"].iter_rows(named=True):
        name = line["source"]
        realised = amounts.get(name, 0) / whole[line["kind"]] if whole.get(line["kind"]) else 0.0
        for key, number in (("rows", rows.get(name, 0)), ("realised", realised)):
            yield Claim(f"metrics/plots/mix.csv, {key} of {name}", line[key], "data/mix has", number, "mix")


def claims_of_training(facts: Facts) -> Iterator[Claim]:
    """Metrics of the trainings against what they consumed; each model's parent; sizes."""
    metrics, tables = facts.metrics, facts.tables
    for kind, model in READER.items():
        own, consumed = metrics[model], tables.consumed[model]
        mixed = tables.mixture.filter(kind=kind, split="train")
        file = f"models/{model}/consumed.parquet"
        strange = consumed.join(mixed, on="row_id", how="anti").height
        yield Claim(file, strange, f"rows that are not in the training part of data/mix/{kind}.parquet", 0, model)
        if "epsilon" in own:  # rows are drawn by chance, and some steps see none
            found, told = mixed.height, f"rows in data/mix/{kind}.parquet"
        else:
            found, told = consumed["row_id"].n_unique(), f"rows in {file}"
            yield Claim(
                f"metrics/{model}.json, steps", own["steps"], f"steps in {file}", consumed["step"].n_unique(), model
            )
        yield Claim(f"metrics/{model}.json, rows_in", own["rows_in"], told, found, model)
        yield Claim(f"metrics/{model}.json, steps", own["steps"], f"lines of metrics/plots/{model}.csv",
                    facts.curves[model].height, model)  # fmt: skip
    for model, parent in facts.parents.items():
        expected = "models/sft" if model == "align" else "models/base"
        yield Claim(f"models/{model}/parent.json, parent", parent["parent"], "it is trained on", expected, model)
    digest = facts.parents["sft"]["digest"]
    yield Claim("models/sft/parent.json, digest", digest, "metrics/base.json, digest", metrics["base"]["digest"], "sft")
    quantize = metrics["quantize"]
    if not facts.generated:
        height = tables.consumed["quantized"].height
        told = "rows in models/quantized/consumed.parquet"
        yield Claim("metrics/quantize.json, rows_in", quantize["rows_in"], told, height, "quantize")
    share = quantize["bytes"] / metrics["base"]["bytes"]
    yield Claim(
        "metrics/quantize.json, bytes_share", quantize["bytes_share"], "bytes over those of base", share, "quantize"
    )
    for stage, model in (("base", "base"), ("quantize", "quantized")):
        found = sum(file.stat().st_size for file in Path("models", model).glob("*.safetensors"))
        told = f"bytes of models/{model}/*.safetensors"
        yield Claim(f"metrics/{stage}.json, bytes", metrics[stage]["bytes"], told, found, stage)


def claims_of_evaluation(facts: Facts) -> Iterator[Claim]:
    """Scores against the items: the mean where each is right or wrong, clean and dirty apart."""
    for model in MODELS:
        stage = f"eval@{model}"
        file = f"data/eval/{model}/items.parquet"
        for task in facts.tasks:
            scores, items = facts.scores[model][task.name], facts.items[model].filter(task=task.name)
            where = f"metrics/eval/{model}.json, {task.name}"
            yield Claim(f"{where}.items", scores["items"], f"items in {file}", items.height, stage)
            judged = items["correct"].drop_nulls()
            if judged.len() != items.height or not judged.is_in([0.0, 1.0]).all():
                continue  # its aggregation is not known here
            metric = next(iter(scores))
            if items["subtask"].n_unique() == 1:  # a group may weigh its members
                yield Claim(f"{where}.{metric}", scores[metric], f"mean of {file}", judged.mean(), stage)
            for part, dirty in (("clean", False), ("dirty", True)):
                own = items.filter(dirty=dirty)["correct"]
                yield Claim(f"{where}.{part}_items", scores[f"{part}_items"], f"items in {file}", own.len(), stage)
                if own.len():
                    key = f"{part}_{metric}"
                    yield Claim(f"{where}.{key}", scores[key], f"mean of {file}", own.mean(), stage)
