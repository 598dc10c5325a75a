"""The contracts of rows, ledgers, clusters and findings, from pool to mix."""

import json

import polars as pl

from stages.common.contracts import Contract, Find, Invariant, unique, unlike, where
from stages.common.ledger import LEDGER_SCHEMA
from stages.common.rows import CONVERSATIONS, PROBE_PREFIX, ROW_SCHEMA, texts_of

KINDS = ("sft", "preference", "unpaired")
LETTERS = {"system": "s", "user": "u", "assistant": "a", "tool": "t"}
BEGINNING = r"^(?:s?(?:u(?:ct+)*a)*(?:u(?:ct+)*c?)?)$"
"""The beginnings of all conversations, a letter a message: c is an assistant's message that calls a tool."""

_field = pl.element().struct.field
_of_kind = pl.col("kind")
_is_pair = _of_kind == "preference"


def write_turns(conversation: str) -> pl.Expr:
    """The turns of a conversation as a word: `sucta` is system, user, call, tool, assistant; ? an unknown role."""
    letter = _field("role").replace_strict(LETTERS, default="?", return_dtype=pl.String).fill_null("?")
    calls = (_field("role") == "assistant") & _field("tool_calls").is_not_null()
    word = pl.when(calls.fill_null(False)).then(pl.lit("c")).otherwise(letter)
    return pl.col(conversation).list.eval(word).list.join("").fill_null("")


def replies_are_equal() -> pl.Expr:
    """Whether both replies of a pair say the same, white space around them aside: nothing can be learned from it."""
    same = (texts_of("chosen") == texts_of("rejected")) & (write_turns("chosen") == write_turns("rejected"))
    return _is_pair & same


def in_any_message(broken: pl.Expr) -> pl.Expr:
    """Whether a message of the row breaks a rule, given over the fields of a message."""
    return pl.any_horizontal(
        pl.col(conversation).list.eval(broken).list.any().fill_null(False) for conversation in CONVERSATIONS
    )


def find_broken_json(table: pl.LazyFrame) -> pl.LazyFrame:
    """Rows with tools or tool calls that are not JSON. What Polars cannot read Python tries once more, which reads
    numbers and depths that Polars does not."""
    calls = _field("tool_calls")
    suspect = in_any_message(calls.is_not_null() & calls.str.json_path_match("$").is_null())
    tools = pl.col("tools").is_not_null() & pl.col("tools").str.json_path_match("$").is_null()
    rows = table.filter(suspect | tools).collect()
    broken = [
        not all(
            is_json(text) for text in [row["tools"], *(m["tool_calls"] for c in CONVERSATIONS for m in row[c] or [])]
        )
        for row in rows.iter_rows(named=True)
    ]
    return rows.filter(pl.Series(broken, dtype=pl.Boolean)).lazy()


def is_json(text: str | None) -> bool:
    try:
        return text is None or json.loads(text) is not None
    except (ValueError, RecursionError):
        return False


def where_turns(breaks: pl.Expr) -> Find:
    """`where`, of an expression over kind and, as words of turns, messages, chosen and rejected; a reply that is not
    there is null. The words are made once, which is most of the work."""
    words = [pl.when(pl.col(name).is_not_null()).then(write_turns(name)).alias(name) for name in CONVERSATIONS]
    return lambda table: table.select("row_id", "kind", *words).filter(breaks.fill_null(True))


_chosen, _rejected = pl.col("chosen").fill_null(""), pl.col("rejected").fill_null("")
_whole, _other = pl.col("messages") + _chosen, pl.col("messages") + _rejected
_known = ~pl.any_horizontal(words.str.contains("?", literal=True) for words in (_whole, _other))
_reply = r"^[ac](?:.*[ac])?$"
_empty = [pl.col(name).is_null() for name in ("chosen", "rejected", "label")]
_parts = {  # of each kind: whether chosen, rejected and label are empty
    "sft": (True, True, True), "preference": (False, False, True), "unpaired": (False, True, False),
}  # fmt: skip
_blank = ~_field("content").fill_null("").str.contains(r"\S")

UNIQUE_IDS = unique("unique ids", "a row_id stands twice or is missing", "row_id")
HIDDEN = Invariant(
    "hidden subjects",
    "the subject is no keyed digest (16 hex digits), so it may name somebody",
    where(pl.col("subject").is_not_null() & ~pl.col("subject").str.contains(r"^[0-9a-f]{16}$").fill_null(True)),
)
ROW_INVARIANTS = (
    Invariant("no probes", "a probe stands among the rows", where(pl.col("row_id").str.starts_with(PROBE_PREFIX))),
    Invariant("known kinds", f"the kind is none of {', '.join(KINDS)}", where(~_of_kind.is_in(KINDS))),
    Invariant(
        "known origin",
        "source, file or record is missing",
        where((pl.col("source") == "") | (pl.col("file") == "") | (pl.col("record") < 0)),
    ),
    Invariant("a licence", "the row has no licence", where(~pl.col("licence").str.contains(r"\S"))),
    HIDDEN,
    Invariant(
        "parts of its kind",
        "an sft row has a reply or label apart, a pair lacks chosen or rejected, or an unpaired row its reply or label",
        where(
            _of_kind.is_in(KINDS)
            & ~pl.any_horizontal(
                (_of_kind == kind) & pl.all_horizontal(~each ^ empty for each, empty in zip(_empty, parts, strict=True))
                for kind, parts in _parts.items()
            )
        ),
    ),
    Invariant("known roles", f"a message has none of the roles {', '.join(LETTERS)}", where_turns(~_known)),
    Invariant(
        "order of turns",
        "the turns do not alternate as a chat template needs them: system if any, user, assistant, user, ...; a tool's "
        "answers after its call",
        where_turns(_known & ~(_whole.str.contains(BEGINNING) & _other.str.contains(BEGINNING))),
    ),
    Invariant(
        "the assistant last",
        "what is to be learned does not end with the assistant, or a reply does not begin with it",
        where_turns(
            ((_of_kind == "sft") & ~pl.col("messages").str.contains("[ac?]$"))
            | (_known & ~pl.col("chosen").str.contains(_reply).fill_null(True))
            | (_known & ~pl.col("rejected").str.contains(_reply).fill_null(True))
        ),
    ),
    Invariant(
        "no empty message",
        "a message has neither text nor a tool call",
        where(in_any_message(_field("tool_calls").is_null() & _blank & (_field("role") != "tool"))),
    ),
    Invariant("tools as JSON", "tools or tool calls are not JSON", find_broken_json),
    Invariant("pairs that differ", "chosen and rejected say the same", where(replies_are_equal())),
)
CAME = Invariant("came from before", "a row is not among those that came in", unlike("rows_in"), ("rows_in",))


def rows_of(stage: str, before: str | None) -> Contract:
    invariants: tuple[Invariant, ...] = (UNIQUE_IDS, *ROW_INVARIANTS)
    beside: dict[str, tuple[str, ...]] = {}
    if before:
        invariants, beside = (*invariants, CAME), {"rows_in": (f"data/{before}/rows.parquet",)}
    return Contract(f"data/{stage}/rows.parquet", stage, ROW_SCHEMA, ("row_id",), invariants, beside)


POOL, DEDUP, SCRUB, DECONTAMINATE = (
    rows_of("pool", None), rows_of("dedup", "pool"), rows_of("scrub", "dedup"), rows_of("decontaminate", "scrub")
)  # fmt: skip

_dropped = pl.col("action") == "drop"


def find_lost(ledger: pl.LazyFrame, rows_in: pl.LazyFrame, rows_out: pl.LazyFrame) -> pl.LazyFrame:
    """Rows that came, did not go on, and have no line that says why."""
    gone = rows_in.select("row_id").join(rows_out.select("row_id"), on="row_id", how="anti")
    return gone.join(ledger.filter(_dropped).select("row_id"), on="row_id", how="anti")


def find_risen(ledger: pl.LazyFrame, rows_out: pl.LazyFrame) -> pl.LazyFrame:
    """Rows that were dropped and went on."""
    return ledger.filter(_dropped).join(rows_out.select("row_id"), on="row_id", how="semi")


def ledger_of(stage: str, before: str | None, after: tuple[str, ...]) -> Contract:
    """The ledger's contract; `before` and `after`: where the rows that came and those that went on stand."""
    invariants: tuple[Invariant, ...] = (
        unique("one line a row", "a row has two lines, or a line no row", "row_id"),
        Invariant("own lines", "a line is of another stage", where(pl.col("stage") != stage)),
        Invariant("known actions", "the action is neither drop nor change", where(~_action_is_known())),
        Invariant("a reason", "a line gives no reason", where(~pl.col("reason").str.contains(r"\S"))),
        Invariant("dropped is gone", "a row that was dropped is among those that go on", find_risen, ("rows_out",)),
    )
    beside = {"rows_out": after}
    if before:
        invariants += (
            Invariant("lines of rows that came", "a line is of a row that never came", unlike("rows_in"), ("rows_in",)),
            Invariant(
                "nothing is lost",
                "a row is gone without a line: rows_in = rows_out + dropped does not hold",
                find_lost,
                ("rows_in", "rows_out"),
            ),
        )
        beside |= {"rows_in": (before,)}
    return Contract(f"data/{stage}/ledger.parquet", stage, LEDGER_SCHEMA, ("row_id",), invariants, beside)


def _action_is_known() -> pl.Expr:
    return pl.col("action").is_in(("drop", "change"))


POOL_LEDGER = ledger_of("pool", None, (POOL.path,))
DEDUP_LEDGER = ledger_of("dedup", POOL.path, (DEDUP.path,))
SCRUB_LEDGER = ledger_of("scrub", DEDUP.path, (SCRUB.path,))
DECONTAMINATE_LEDGER = ledger_of("decontaminate", SCRUB.path, (DECONTAMINATE.path,))
MIX_LEDGER = ledger_of("mix", DECONTAMINATE.path, tuple(f"data/mix/{kind}.parquet" for kind in KINDS))

REFUSED = Contract(
    "data/pool/refused.parquet",
    "pool",
    {"source": pl.String, "file": pl.String, "record": pl.Int64, "reason": pl.String},
    ("file", "record"),
    (Invariant("a reason", "a record was refused without a reason", where(~pl.col("reason").str.contains(r"\S"))),),
    unit="record",
)

SUBJECTS = Contract(
    "data/pool/subjects.parquet",
    "pool",
    {"row_id": pl.String, "subject": pl.String},
    ("row_id",),
    (
        unique(
            "one line a speaker", "a row names a subject twice, or a line has no row or subject", "row_id", "subject"
        ),
        HIDDEN,
        Invariant("rows that are there", "a line speaks of a row that is not there", unlike("rows_out"), ("rows_out",)),
    ),
    {"rows_out": (POOL.path,)},
)

_similar = Invariant(
    "similarity", "the similarity is not between 0 and 1", where(~pl.col("similarity").is_between(0, 1))
)
_kept = {"rows_out": (DEDUP.path,)}


def find_false_survivors(clusters: pl.LazyFrame, rows_out: pl.LazyFrame) -> pl.LazyFrame:
    """Members that are called kept and are gone, or the other way round."""
    alive = clusters.join(rows_out.select("row_id"), on="row_id", how="semi").filter(~pl.col("kept"))
    return pl.concat([alive, clusters.filter("kept").join(rows_out.select("row_id"), on="row_id", how="anti")])


CLUSTERS = Contract(
    "data/clusters/clusters.parquet",
    "dedup",
    {"cluster": pl.String, "row_id": pl.String, "similarity": pl.Float64, "kept": pl.Boolean},
    ("row_id",),
    (
        unique("one cluster a row", "a row is in two clusters, or a line has no row", "row_id"),
        _similar,
        Invariant("several rows", "a cluster has one row alone", where(pl.len().over("cluster") < 2)),
        Invariant("one survivor", "of a cluster two rows were kept", where(pl.col("kept").sum().over("cluster") > 1)),
        Invariant(
            "named after a row",
            "the cluster bears the name of a row that is not in it",
            where(~(pl.col("cluster") == pl.col("row_id")).any().over("cluster")),
        ),
        Invariant("true survivors", "kept does not say whether the row went on", find_false_survivors, ("rows_out",)),
    ),
    _kept,
)
ALIKE = Contract(
    "data/clusters/alike.parquet",
    "dedup",
    {"row_id": pl.String, "other_id": pl.String, "similarity": pl.Float64, "why": pl.String},
    ("row_id",),
    (
        unique("one line a row", "a row has two lines, or a line no row", "row_id"),
        _similar,
        Invariant("two rows", "a row is called alike to itself", where(pl.col("row_id") == pl.col("other_id"))),
        Invariant("what differs", "a line does not say what differs", where(~pl.col("why").str.contains(r"\S"))),
        Invariant("both stay", "one of two rows that stay is gone", unlike("rows_out"), ("rows_out",)),
        Invariant("the other stays", "the other of two rows is gone", unlike("rows_out", "other_id"), ("rows_out",)),
    ),
    _kept,
)
FINDINGS = Contract(
    "data/scrub/findings.parquet",
    "scrub",
    {
        "row_id": pl.String,
        "place": pl.String,  # messages.0: the content of the first message
        "start": pl.Int64,
        "end": pl.Int64,
        "entity": pl.String,
        "score": pl.Float64,
    },
    ("row_id",),
    (
        Invariant(
            "a place in the row",
            "the place is none of a conversation's, or its end not behind its start",
            where(
                ~pl.col("place").str.contains(rf"^(?:{'|'.join(CONVERSATIONS)})\.[0-9]+$")
                | (pl.col("start") < 0)
                | (pl.col("end") <= pl.col("start"))
            ),
        ),
        Invariant("a type", "a finding has no type", where(~pl.col("entity").str.contains(r"\S"))),
        Invariant("score", "the score is not between 0 and 1", where(~pl.col("score").is_between(0, 1))),
        Invariant("rows that go on", "a finding is in a row that does not go on", unlike("rows_out"), ("rows_out",)),
    ),
    {"rows_out": (SCRUB.path,)},
)
