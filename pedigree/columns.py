"""Which column of which table each column comes from: what the stages do to columns, said in one place.

OpenLineage's words (column lineage facet 1-2-0): a column is an IDENTITY of another, a TRANSFORMATION or an AGGREGATION
of others; all of a table may depend on columns by which its rows were chosen (FILTER), brought together (GROUP_BY) or
put in order (SORT). `masking` is true where the value can no longer be read: a replacement, a digest.
tests/test_catalogue.py compares this with the tables of a run: every column is named, what is an identity is equal.

A stage reads from a folder the tables that are named here for the tables that it writes, and no other.
"""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from pedigree.journey import KINDS
from stages.common.formats import FIELDS
from stages.common.probes import PROBE_SCHEMA
from stages.common.rows import CONVERSATIONS, ROW_SCHEMA

ROW = tuple(ROW_SCHEMA)
TEXTS = CONVERSATIONS
SAID = (*TEXTS, "tools")
FOUND = ("expected", "similarity", "caught")  # of a probe: what the stage that it measures finds
PLANTED = tuple(name for name in PROBE_SCHEMA if name not in (*ROW, *FOUND))
TRAINED_ON = {"sft": "sft", "align": "preference", "quantized": "sft"}
# Kind and field of a raw record → the columns that it fills; every other field is part of `messages`.
FEEDS = {
    ("preference", "chosen"): ("messages", "chosen"),
    ("preference", "rejected"): ("messages", "rejected"),
    ("unpaired", "completion"): ("chosen",),
    ("unpaired", "output"): ("chosen",),
    ("unpaired", "label"): ("label",),
    ("unpaired", "tag"): ("label",),
}
INDIRECT = ("FILTER", "GROUP_BY", "SORT", "CONDITIONAL")


class Origin(NamedTuple):
    """Columns of a table come from columns of another: of an identity one from one, else each from all of them."""

    columns: tuple[str, ...]
    """Empty: the whole table, all of its columns."""
    table: str
    fields: tuple[str, ...]
    subtype: str
    masking: bool = False

    @property
    def type(self) -> str:
        return "INDIRECT" if self.subtype in INDIRECT else "DIRECT"

    def pairs(self) -> Iterator[tuple[str, str]]:
        """Each column with each column that it comes from; of an identity one with one."""
        if self.subtype == "IDENTITY":
            yield from zip(self.columns, self.fields, strict=True)
        else:
            yield from ((column, field) for column in self.columns for field in self.fields)


def same(table: str, *columns: str) -> Origin:
    return Origin(columns, table, columns, "IDENTITY")


def made(columns: tuple[str, ...], table: str, *fields: str, subtype: str = "TRANSFORMATION") -> Origin:
    return Origin(columns, table, fields, subtype)


def chosen(table: str, *fields: str, subtype: str = "FILTER") -> Origin:
    return Origin((), table, fields, subtype)


POOL, DEDUP, SCRUB, CLEAN = (f"data/{stage}/rows.parquet" for stage in ("pool", "dedup", "scrub", "decontaminate"))
ITEMS, ASKED = "data/scrub/items.parquet", "data/decontaminate/items.parquet"
QUESTION = ("question", "choices", "answer")
CLUSTERS, ALIKE = "data/clusters/clusters.parquet", "data/clusters/alike.parquet"
PROBES = {stage: f"data/{stage}/probes.parquet" for stage in ("pool", "dedup", "scrub", "decontaminate")}
UNTOUCHED = tuple(name for name in ROW if name not in SAID)

ORIGINS: dict[str, tuple[Origin, ...]] = {
    DEDUP: (same(POOL, *ROW), chosen(POOL, *SAID, "kind", "label", "source")),
    "data/dedup/ledger.parquet": (
        Origin(("row_id", "other_id"), POOL, ("row_id", "row_id"), "IDENTITY"),
        made(("reason", "detail"), POOL, *SAID, "label"),
    ),
    PROBES["dedup"]: (
        same(PROBES["pool"], *ROW, *PLANTED),
        made(FOUND, PROBES["pool"], *SAID),
        made(FOUND, POOL, *SAID),
    ),
    CLUSTERS: (
        Origin(("cluster", "row_id"), POOL, ("row_id", "row_id"), "IDENTITY"),
        made(("similarity", "kept"), POOL, *SAID),
        chosen(POOL, *SAID, "kind", "label", "source"),
    ),
    ALIKE: (
        Origin(("row_id", "other_id"), POOL, ("row_id", "row_id"), "IDENTITY"),
        made(("similarity", "why"), POOL, *SAID, "label"),
    ),
    SCRUB: (
        same(DEDUP, *UNTOUCHED),
        chosen(DEDUP, "chosen", "rejected", "kind"),  # a pair that differed in personal data alone goes
        *(Origin((name,), DEDUP, (name,), "TRANSFORMATION", masking=True) for name in SAID),
    ),
    "data/scrub/ledger.parquet": (same(DEDUP, "row_id"), made(("reason", "detail"), DEDUP, *SAID)),
    "data/scrub/findings.parquet": (
        same(DEDUP, "row_id"),
        made(("place", "start", "end", "entity", "score"), DEDUP, *SAID),
    ),
    PROBES["scrub"]: (
        same(PROBES["dedup"], *UNTOUCHED, *PLANTED),
        *(Origin((name,), PROBES["dedup"], (name,), "TRANSFORMATION", masking=True) for name in SAID),
        made(FOUND, PROBES["dedup"], *SAID),
        made((*SAID, "similarity"), DEDUP, *SAID),  # leaks: an evaluation item, planted into a row
    ),
    CLEAN: (same(SCRUB, *ROW), chosen(SCRUB, *SAID), chosen(ITEMS, *QUESTION)),
    "data/decontaminate/ledger.parquet": (
        same(SCRUB, "row_id"),
        made(("reason", "detail"), SCRUB, *SAID),
        made(("reason", "detail"), ITEMS, *QUESTION),
        made(("other_id",), ITEMS, "task", "subtask", "item"),
    ),
    ASKED: (
        same(ITEMS, "task", "subtask", "item"),
        made(("dirty", "asked"), ITEMS, *QUESTION),
        made(("dirty",), SCRUB, *SAID),
        made(("rows",), SCRUB, "row_id", subtype="AGGREGATION"),
        chosen(ITEMS, "split"),
    ),
    "data/decontaminate/report.parquet": (
        same(ITEMS, "task", "subtask", "split", "item"),
        same(SCRUB, "row_id", "source"),
        made(("share", "run", "words", "matched"), SCRUB, *SAID),
        made(("share", "run", "words", "matched"), ITEMS, *QUESTION),
    ),
    PROBES["decontaminate"]: (
        same(PROBES["scrub"], *ROW, *PLANTED),
        made(FOUND, PROBES["scrub"], *SAID),
        made(FOUND, ITEMS, *QUESTION),
    ),
    "data/mix/ledger.parquet": (same(CLEAN, "row_id"), made(("reason", "detail"), CLEAN, *SAID, "source", "kind")),
    **{
        f"data/mix/{kind}.parquet": (
            same(CLEAN, *ROW),
            made(("tokens", "longest_tokens"), CLEAN, *SAID),
            made(("split",), CLEAN, "subject", "messages", "source", subtype="CONDITIONAL"),
            made(("split",), CLUSTERS, "row_id", "cluster", subtype="CONDITIONAL"),
            made(("split",), ALIKE, "row_id", "other_id", "why", subtype="CONDITIONAL"),
            made(("repeat", "position"), CLEAN, "row_id", "source", *SAID, subtype="SORT"),
            chosen(CLEAN, "source", "kind", *SAID),
        )
        for kind in KINDS
    },
    **{
        f"models/{model}/consumed.parquet": (
            same(f"data/mix/{kind}.parquet", "row_id"),
            made(("epoch", "step"), f"data/mix/{kind}.parquet", "position", *SAID, subtype="SORT"),
            chosen(f"data/mix/{kind}.parquet", "split"),
        )
        for model, kind in TRAINED_ON.items()
    },
    **{
        f"data/eval/{model}/items.parquet": (same(ASKED, "task", "subtask", "item", "dirty"),)
        for model in ("base", "sft", "align", "quantized")
    },
}


def read_from(outputs: list[str]) -> set[str]:
    """The tables that a stage reads which writes `outputs`."""
    return {origin.table for name in outputs for origin in ORIGINS.get(name, ())}


FROM_RAW = {"data/pool/rows.parquet": ROW, "data/pool/subjects.parquet": ("row_id", "subject")}
"""Tables that pool makes of raw files, and the columns that come from there."""


def of_table(name: str, origins: Iterable[Origin]) -> list[Origin]:
    """Of the origins of a raw file those of a table in FROM_RAW; of that of subjects none where no subject is named."""
    kept = [origin for origin in origins if set(origin.columns) <= set(FROM_RAW[name])]
    return kept if name.endswith("rows.parquet") or any("subject" in origin.columns for origin in kept) else []


def raw_origins(source: dict[str, Any], file: str) -> list[Origin]:
    """What the rows of data/pool take from the columns of a raw file, `source` as in params.yaml.

    Named are the columns that surely are there: those that the format requires or params.yaml maps, and the subject.
    """
    mapped = source.get("columns") or {}
    required = [name for name in FIELDS[source["format"]][0] if "|" not in name]
    fields = {name: mapped.get(name, name) for name in dict.fromkeys([*required, *mapped])}
    origins = [
        made(FEEDS.get((source["kind"], name), ("tools",) if name == "tools" else ("messages",)), file, field)
        for name, field in fields.items()
    ]
    if fields:
        origins.append(Origin(("row_id",), file, tuple(fields.values()), "TRANSFORMATION", masking=True))
    if source.get("subject"):
        origins.append(Origin(("subject",), file, (source["subject"],), "TRANSFORMATION", masking=True))
    return origins
