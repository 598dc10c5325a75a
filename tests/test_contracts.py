"""Contracts: of every invariant a table that breaks it and nothing else; what is said; what is not written then."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from conftest import make_row, make_rows

from pedigree.contracts import IN_FILES, IN_MEMORY, MARK, PAGE, check_tables, write_list
from stages.common.contracts import Contract, Invariant, where, write_tables
from stages.common.errors import InputError
from stages.common.item_contracts import ITEMS, MARKED_ITEMS, evaluated_items
from stages.common.mixture_contracts import CALIBRATION, ENCODED, IGNORED, PAIRS, SFT_CONSUMED, mixture_of
from stages.common.probes import PROBES, make_probe, make_table
from stages.common.row_contracts import ALIKE, CLUSTERS, DEDUP, DEDUP_LEDGER, FINDINGS, POOL, REFUSED, SUBJECTS
from stages.common.rows import message

Change = Callable[[pl.DataFrame], pl.DataFrame]
Case = tuple[Contract, str, Change, dict[str, Any]]

CALL = '[{"name": "look_up", "arguments": {}}]'
TOOLS = [message("system", "Be kind."), message("user", "Look it up."), message("assistant", None, CALL)]
TOOLS += [message("tool", ""), message("assistant", "Found."), message("user", "More?"), message("assistant", "No.")]
ROWS = make_rows(
    [
        make_row(0, "When do you open?", "At seven."),
        make_row(1, "Where is the door?", "In Mill Lane.", "Nowhere.", subject="0123456789abcdef"),
        make_row(2, "Who are you then?", "Wren.") | {
            "kind": "unpaired", "label": True, "messages": [message("user", "Who are you then?")],
            "chosen": [message("assistant", "Wren.")],
        },
        make_row(3, "", "", messages=TOOLS, tools=CALL),
    ]
)  # fmt: skip
IDS = ROWS["row_id"].to_list()
EXTRA = make_rows([make_row(9, "Is it far from here?", "No.")])
END = 7  # the end-of-turn token of the tokens below


def at(place: int, **columns: Any) -> Change:
    """Another value in one row."""

    def change(table: pl.DataFrame) -> pl.DataFrame:
        lines = table.to_dicts()
        lines[place] |= columns
        return pl.DataFrame(lines, table.schema)

    return change


def said(place: int, *messages: dict[str, Any]) -> Change:
    return at(place, messages=list(messages))


def twice(table: pl.DataFrame) -> pl.DataFrame:
    return pl.concat([table, table.head(1)])


def without(name: str, *ids: str) -> pl.DataFrame:
    return ROWS.filter(~pl.col(name).is_in(ids))


def table_of(contract: Contract, *lines: tuple[Any, ...]) -> pl.DataFrame:
    return pl.DataFrame(list(lines), contract.columns, orient="row")


SFT = mixture_of("sft")
MIXED = pl.concat([ROWS.filter(kind="sft"), EXTRA]).with_columns(
    tokens=pl.lit(10, pl.Int64), longest_tokens=pl.lit(10, pl.Int64), split=pl.Series(["train", "train", "heldout"]),
    repeat=pl.lit(0, pl.Int64), position=pl.Series([0, 1, 0]),
)  # fmt: skip
TWO = {"row_id": MIXED["row_id"][:2], "longest_tokens": [3, 3], "split": ["train", "train"]}
TOKENS = table_of(
    ENCODED, (IDS[0], [1, 2, END], [IGNORED, 2, END], 3, 2), (IDS[3], [4, 5, END], [IGNORED, 5, END], 3, 2)
)
LIMITS = {"window": 8, "vocabulary": 10, "end_of_turn": END}
ITEM = ("clinic", "clinic", 0, False, 0, "drop", ["is it far from here indeed"])
PROBE = make_probe(ROWS.row(0, named=True), "EMAIL_ADDRESS", "scrub", 0)

STEPS = [(IDS[0], 0, 0), (IDS[3], 0, 1), (IDS[3], 1, 2)]
LINES = [
    (IDS[0], "dedup", "drop", "exact_duplicate", IDS[1], None),
    (IDS[1], "dedup", "change", "pii", None, None),
]

VALID: dict[Contract, tuple[pl.DataFrame, dict[str, Any]]] = {
    POOL: (ROWS, {}),
    DEDUP: (ROWS, {"rows_in": ROWS}),
    DEDUP_LEDGER: (
        table_of(DEDUP_LEDGER, *LINES),
        {"rows_in": ROWS, "rows_out": without("row_id", IDS[0])},
    ),
    REFUSED: (table_of(REFUSED, ("source_a", "a.json", 4, "the reply is empty")), {}),
    SUBJECTS: (table_of(SUBJECTS, (IDS[1], "00112233445566ff")), {"rows_out": ROWS}),
    CLUSTERS: (
        table_of(CLUSTERS, (IDS[0], IDS[0], 1.0, True), (IDS[0], IDS[1], 0.9, False)),
        {"rows_out": without("row_id", IDS[1])},
    ),
    ALIKE: (table_of(ALIKE, (IDS[0], IDS[1], 0.9, "number")), {"rows_out": ROWS}),
    FINDINGS: (table_of(FINDINGS, (IDS[0], "messages.0", 0, 3, "PERSON", 0.85)), {"rows_out": ROWS}),
    ITEMS: (table_of(ITEMS, ("clinic", "clinic", "test", 0, "Where?", [], "Here")), {}),
    MARKED_ITEMS: (table_of(MARKED_ITEMS, ITEM), {}),
    PROBES["pool"]: (make_table([PROBE]), {}),
    SFT: (
        MIXED,
        {
            "rows_in": MIXED, "items": table_of(MARKED_ITEMS, ITEM), "max_length_tokens": 10, "window": None,
            "links": pl.DataFrame({"row_id": [IDS[0]], "other_id": [IDS[3]]}),
            "caps": pl.DataFrame({"source": ["source_a"], "repeats": [2]}),
        },
    ),
    SFT_CONSUMED: (table_of(SFT_CONSUMED, *STEPS), {"mixture": MIXED, "steps": 3}),
    evaluated_items("sft"): (table_of(evaluated_items("sft"), ("t", "t", 0, 1.0, [-1.0, -2.0], 0, 0, False)), {}),
    ENCODED: (TOKENS, LIMITS | {"mixture": pl.DataFrame(TWO)}),
    PAIRS: (table_of(PAIRS, (IDS[0], [1], [2, END], [1], [3, END], 3)), LIMITS | {"mixture": pl.DataFrame(TWO)}),
    CALIBRATION: (table_of(CALIBRATION, (IDS[0], [1, 2])), {"vocabulary": 10}),
}  # fmt: skip
EVALUATED = next(contract for contract in VALID if contract.maker == "eval")

user, assistant = message("user", "Hi"), message("assistant", "Yes.")
reply = [message("assistant", "In Mill Lane. ")]
silent = {"messages": [user, assistant]}  # asks nothing
torn = {"links": pl.DataFrame({"row_id": [IDS[0]], "other_id": EXTRA["row_id"]})}


def repeat_heldout(table: pl.DataFrame) -> pl.DataFrame:
    return pl.concat([table, at(0, repeat=1, position=1)(table[2:])])


BREAKING: list[tuple[Contract, str, Change] | Case] = [
    (POOL, "unique ids", at(2, row_id=IDS[0])),
    (POOL, "no probes", at(0, row_id="probe-exact-1")),
    (POOL, "known kinds", at(0, kind="chat")),
    (POOL, "known origin", at(0, file="")),
    (POOL, "a licence", at(0, licence=" ")),
    (POOL, "hidden subjects", at(1, subject="Ann Smith")),
    (POOL, "parts of its kind", at(2, label=None)),
    (POOL, "known roles", said(0, user, message("robot", "Beep."), assistant)),
    (POOL, "order of turns", said(0, user, message("user", "Hello?"), assistant)),
    (POOL, "the assistant last", said(0, user, assistant, user)),
    (POOL, "no empty message", said(0, message("user", " \n"), assistant)),
    (POOL, "tools as JSON", at(3, tools='[{"name": "look')),
    (POOL, "pairs that differ", at(1, rejected=reply)),
    (DEDUP, "came from before", lambda table: pl.concat([table, EXTRA])),
    (DEDUP_LEDGER, "one line a row", at(1, row_id=IDS[0])),
    (DEDUP_LEDGER, "own lines", at(1, stage="scrub")),
    (DEDUP_LEDGER, "known actions", at(1, action="keep")),
    (DEDUP_LEDGER, "a reason", at(0, reason="")),
    (DEDUP_LEDGER, "dropped is gone", at(1, action="drop")),
    (DEDUP_LEDGER, "lines of rows that came", at(1, row_id="f" * 16)),
    (DEDUP_LEDGER, "nothing is lost", lambda table: table[1:]),
    (REFUSED, "a reason", at(0, reason=None)),
    (SUBJECTS, "one line a speaker", lambda table: pl.concat([table, table])),
    (SUBJECTS, "hidden subjects", at(0, subject="Ada")),
    (SUBJECTS, "rows that are there", at(0, row_id="f" * 16)),
    (CLUSTERS, "one cluster a row", lambda table: pl.concat([table, table[1:]])),
    (CLUSTERS, "similarity", at(1, similarity=1.2)),
    (CLUSTERS, "several rows", lambda table: pl.concat([table, table_of(CLUSTERS, (IDS[2], IDS[2], 1.0, True))])),
    (CLUSTERS, "one survivor", at(1, kept=True), {"rows_out": ROWS}),
    (CLUSTERS, "named after a row", lambda table: table.with_columns(cluster=pl.lit(IDS[2]))),
    (CLUSTERS, "true survivors", at(0, kept=False)),
    (ALIKE, "one line a row", lambda table: pl.concat([table, table])),
    (ALIKE, "similarity", at(0, similarity=None)),
    (ALIKE, "two rows", at(0, other_id=IDS[0])),
    (ALIKE, "what differs", at(0, why="")),
    (ALIKE, "both stay", lambda table: table, {"rows_out": without("row_id", IDS[0])}),
    (ALIKE, "the other stays", lambda table: table, {"rows_out": without("row_id", IDS[1])}),
    (FINDINGS, "a place in the row", at(0, start=3)),
    (FINDINGS, "a type", at(0, entity="")),
    (FINDINGS, "score", at(0, score=1.5)),
    (FINDINGS, "rows that go on", at(0, row_id="f" * 16)),
    (ITEMS, "unique items", twice),
    (ITEMS, "known splits", at(0, split="train")),
    (ITEMS, "a text", at(0, question="", answer="")),
    (MARKED_ITEMS, "unique items", twice),
    (MARKED_ITEMS, "dirty by rows", at(0, rows=2)),
    (MARKED_ITEMS, "known actions", at(0, action="keep")),
    (PROBES["pool"], "unique ids", twice),
    (PROBES["pool"], "own ids", at(0, row_id=IDS[0])),
    (PROBES["pool"], "what it measures", at(0, stage="mix")),
    (PROBES["pool"], "what is expected", at(0, expected="maybe")),
    (SFT, "known splits", at(2, split="test")),
    (SFT, "one side a row", lambda table: at(2, row_id=IDS[0], **silent)(at(0, **silent)(table))),
    (SFT, "one side a subject", lambda table: at(2, subject="0" * 16)(at(0, subject="0" * 16)(table))),
    (SFT, "no held-out prompt", said(2, message("user", "when do you OPEN"), assistant)),
    (SFT, "linked rows together", lambda table: table, torn),
    (SFT, "no evaluation prompt", said(0, message("user", "Is it far from here, indeed?"), assistant)),
    (SFT, "positions", at(1, position=3)),
    (SFT, "repeats", at(1, repeat=1)),
    (SFT, "held out once", repeat_heldout),
    (SFT, "repeat caps", lambda table: table, {"caps": pl.DataFrame({"source": ["source_a"], "repeats": [0]})}),
    (SFT, "counted tokens", at(0, tokens=None)),
    (SFT, "length limit", at(0, longest_tokens=11, tokens=11)),
    (SFT, "window", lambda table: table, {"window": 9}),
    (SFT, "rows of decontaminate", lambda table: table, {"rows_in": MIXED[1:]}),
    (SFT, "its own kind", at(2, **make_row(9, "Where is the door?", "Here.", "There."))),
    (SFT_CONSUMED, "counted steps", at(0, epoch=-1)),
    (SFT_CONSUMED, "steps without a gap", at(2, step=3)),
    (SFT_CONSUMED, "training rows", at(0, row_id=EXTRA["row_id"][0])),
    (SFT_CONSUMED, "once an epoch", at(2, epoch=0)),
    (SFT_CONSUMED, "once a step", at(2, step=1), {"steps": None}),
    (EVALUATED, "unique items", twice),
    (EVALUATED, "clean or dirty", at(0, dirty=None)),
    (EVALUATED, "a choice that was scored", at(0, choice=2)),
    (ENCODED, "something to learn", at(0, labels=[IGNORED] * 3, supervised_tokens=0)),
    (ENCODED, "labels are tokens", at(0, labels=[IGNORED, 3, END])),
    (ENCODED, "turns that end", at(0, labels=[IGNORED, 2, IGNORED])),
    (ENCODED, "known tokens", at(0, input_ids=[10, 2, END])),
    (ENCODED, "window", lambda table: table, {"window": 2}),
    (ENCODED, "as long as counted", lambda table: table, {"mixture": pl.DataFrame(TWO | {"longest_tokens": [3, 4]})}),
    (PAIRS, "something to learn", at(0, prompt_ids=[], rejected_prompt_ids=[])),
    (PAIRS, "one prompt", at(0, rejected_prompt_ids=[2])),
    (PAIRS, "pairs that differ", at(0, rejected_ids=[2, END])),
    (PAIRS, "turns that end", at(0, rejected_ids=[3])),
    (PAIRS, "known tokens", at(0, chosen_ids=[-1, END])),
    (PAIRS, "window", lambda table: table, {"window": 2}),
    (PAIRS, "as long as counted", at(0, length=4)),
    (CALIBRATION, "something to read", at(0, input_ids=[])),
    (CALIBRATION, "known tokens", at(0, input_ids=[11])),
]  # fmt: skip


def find(contract: Contract, table: pl.DataFrame, **given: Any) -> list[str]:
    return contract.find_breaches(table.lazy(), **given)


@pytest.mark.parametrize("contract", VALID, ids=lambda contract: contract.path)
def test_a_valid_table_breaks_nothing(contract: Contract) -> None:
    table, given = VALID[contract]
    assert contract.check(table, **given) is table
    nothing = {name: other.clear() if isinstance(other, pl.DataFrame) else other for name, other in given.items()}
    assert find(contract, table.clear(), **nothing | {"steps": 0}) == []  # nor does an empty one


@pytest.mark.parametrize("case", BREAKING, ids=lambda case: f"{case[0].path}: {case[1]}")
def test_a_broken_table_breaks_one_invariant(case: Case) -> None:
    contract, name, change, *other = case
    table, given = VALID[contract]
    (invariant,) = (each for each in contract.invariants if each.name == name)
    (told,) = find(contract, change(table), **given | (other[0] if other else {}))
    assert told.startswith(f"{contract.path}, {name}: {invariant.says} (")
    assert invariant.remedy in told
    assert "`dvc " in told or "chatml" in told  # what to do
    assert not any(text in told for text in ("Ann Smith", "look", "do you open", "far from"))


def test_the_page_lists_all_that_holds_for_a_table_that_is_none_of_rows() -> None:
    section = PAGE.read_text().partition("## `data/pool/subjects.parquet`")[2].partition("## ")[0]
    assert "Every row as above" not in section
    assert all(f"| {name} |" in section for name in ("one line a speaker", "hidden subjects", "rows that are there"))


def test_rows_drawn_by_chance_may_come_twice_an_epoch() -> None:
    table, given = VALID[SFT_CONSUMED]
    drawn = at(2, epoch=0)(table)
    assert SFT_CONSUMED.check(drawn, **given | {"steps": None}) is drawn


def test_every_invariant_is_broken_above() -> None:
    broken = {
        (each.name, each.says) for contract, name, *_ in BREAKING for each in contract.invariants if each.name == name
    }
    declared = {(each.name, each.says) for contract in (*IN_FILES, *IN_MEMORY) for each in contract.invariants}
    assert declared - broken == set()


def test_the_page_lists_the_contracts_of_the_code() -> None:
    assert PAGE.read_text().partition(MARK)[2] == "\n" + write_list(), "write it with `python -m pedigree.contracts`"


def test_columns_are_compared_with_their_types() -> None:
    changed = ROWS.drop("licence").with_columns(pl.col("record").cast(pl.Int32), messages=pl.lit("x"), more=1)
    told = find(POOL, changed)
    assert [line.removeprefix("data/pool/rows.parquet, columns: ").partition("; ")[0] for line in told] == [
        "licence missing",
        "more not expected",
        "record is Int32, expected Int64",
        "messages is String, expected List(Struct(role, content, tool_calls, tool_call_id, name))",
    ]
    assert ["it was edited" in line for line in told] == [False, False, False, True]


def test_all_breaches_are_told_and_three_rows_named() -> None:
    rows = pl.concat([ROWS, ROWS.head(0), make_rows([make_row(i, "x y z", "a", licence="") for i in range(10, 15)])])
    told = find(POOL, at(0, source="")(rows))
    assert told[0] == f"data/pool/rows.parquet, known origin: source, file or record is missing (1 row: {IDS[0]})"
    ids = ", ".join(f"{i:016x}" for i in range(10, 13))
    assert told[1].startswith(
        f"data/pool/rows.parquet, a licence: the row has no licence (5 rows: {ids}, ...); it was ed"
    )
    assert len(told) == 2


@pytest.fixture
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("data/pool").mkdir(parents=True)


@pytest.mark.usefixtures("inside")
def test_a_table_is_read_whole_or_not_at_all() -> None:
    with pytest.raises(InputError, match=r"data/pool/rows.parquet: there is no such file; run `dvc repro pool`"):
        POOL.read()
    ROWS.write_parquet(POOL.path)
    assert POOL.read().equals(ROWS)
    for content in (Path(POOL.path).read_bytes()[:-50], b""):
        Path(POOL.path).write_bytes(content)
        with pytest.raises(InputError, match=r"is no whole Parquet file; it was edited"):
            POOL.read()


@pytest.mark.usefixtures("inside")
def test_nothing_is_written_where_one_table_breaks_its_contract() -> None:
    ledger = VALID[DEDUP_LEDGER][0]
    with pytest.raises(
        InputError, match=r"came from before: .*fault of the stage dedup, which has written nothing"
    ) as raised:
        write_tables({DEDUP: pl.concat([ROWS, EXTRA]), DEDUP_LEDGER: twice(ledger)}, rows_in=ROWS, rows_out=ROWS[1:])
    assert "one line a row" in str(raised.value)  # the other table's breach is told, too
    assert not Path("data/dedup").exists()
    write_tables({DEDUP: ROWS[1:], DEDUP_LEDGER: ledger}, rows_in=ROWS, rows_out=ROWS[1:])
    assert DEDUP.read().equals(ROWS[1:])


@pytest.mark.usefixtures("inside")
def test_tables_of_a_workspace_are_checked_against_each_other_as_far_as_they_are_here() -> None:
    Path("params.yaml").write_text("mix: {repeat_cap: 1, max_length_tokens: 10}\nsources: [{name: source_a}]\n")
    ledger = VALID[DEDUP_LEDGER][0]
    write_tables({DEDUP: ROWS[1:], DEDUP_LEDGER: ledger}, rows_in=ROWS, rows_out=ROWS[1:])
    assert check_tables() == (2, [])  # without the raw rows of pool
    Path("data/mix").mkdir()
    MIXED.write_parquet(SFT.path)
    assert check_tables() == (3, [])
    at(0, longest_tokens=11, tokens=11)(MIXED).write_parquet(SFT.path)
    ROWS[:3].write_parquet(POOL.path)
    _, told = check_tables()
    assert [line.partition(": ")[0] for line in told] == [
        "data/dedup/rows.parquet, came from before",
        "data/mix/*.parquet, length limit",
    ]
    Path(POOL.path).write_bytes(b"PAR1")
    _, told = check_tables()
    assert "data/pool/rows.parquet: cannot be read" in told
    assert "data/dedup/rows.parquet: cannot be read, or what stands beside it (data/pool/rows.parquet)" in told


def test_a_writer_leaves_no_invariant_out() -> None:
    with pytest.raises(TypeError, match="needs rows_in"):
        DEDUP.check(ROWS)


def test_null_is_a_breach() -> None:
    rule = Invariant("positive", "a number is not above 0", where(~(pl.col("number") > 0)))
    contract = Contract("numbers", "pool", {"name": pl.String, "number": pl.Int64}, ("name",), (rule,))
    table = pl.DataFrame({"name": ["a", "b", "c"], "number": [1, None, 0]})
    assert "(2 rows: b, c)" in find(contract, table)[0]


def test_conversations_that_pool_accepts_are_in_order() -> None:
    """The grammar against the checks of pool, over all words of five letters and less."""
    from itertools import product

    from stages.common.conversation import RecordError, check_conversation
    from stages.common.row_contracts import BEGINNING

    made = {
        "s": message("system", "x"), "u": message("user", "x"), "a": message("assistant", "x"),
        "c": message("assistant", None, CALL), "t": message("tool", ""),
    }  # fmt: skip
    words = ["".join(letters) for length in range(1, 6) for letters in product("suact", repeat=length)]
    in_order = pl.Series(words).str.contains(BEGINNING) & pl.Series(words).str.contains("[ac]$")

    def accepts(word: str) -> bool:
        try:
            check_conversation([made[letter] for letter in word])
        except RecordError:
            return False
        return True

    assert [word for word, fine in zip(words, in_order, strict=True) if fine] == list(filter(accepts, words))
