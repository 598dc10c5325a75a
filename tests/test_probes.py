"""Probes: what is planted is what it is said to be, the stages are measured by it, and no row is touched."""

import hashlib
import json
import random
import re
from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from conftest import make_row, make_rows

from stages import decontaminate, dedup
from stages.common.errors import InputError
from stages.common.params import read_yaml
from stages.common.probes import (
    CAUGHT,
    OPEN,
    PROBE_SCHEMA,
    SOURCE,
    STAYS,
    Probes,
    add_probes,
    gives_away,
    judge_personal_data,
    make_probe,
    make_table,
    read_probes,
    rows_of,
    score,
    split_off,
)
from stages.common.rows import ROW_SCHEMA, message, text_of_row, texts_of
from stages.deduplication.params import Dedup
from stages.pii.analyser import presidio_kinds
from stages.pii.params import Scrub
from stages.pii.worker import build_scrubber, scrub_batch
from stages.probes import duplicates, edits
from stages.probes.duplicates import KINDS, LEVELS, plant_duplicates
from stages.probes.identifiers import IDENTIFIERS, luhn_sum, verhoeff_sum
from stages.probes.leaks import plant_leaks, strip_question
from stages.probes.personal_data import STYLES, plant_personal_data
from stages.probes.similarity import BELOW, judge_duplicates, judge_leaks, name_level, share_held
from stages.probes.values import MAKE

PARAMS = Probes(duplicates=4, personal_data=8, leaks=12, seed=1)
NONE = Probes(duplicates=0, personal_data=0, leaks=0, seed=1)
DEDUP = Dedup(mode="careful", threshold=0.8, ngram=3, bands=24, rows=5, swapped_labels="drop_both", seed=1)


def write_text(number: int) -> str:
    """Five sentences of about 60 words, of which most are this text's own."""
    own = random.Random(number)
    a, b, c, d, e, f = ("".join(own.choices("bdfgklmnprst", k=4)) + own.choice(("ation", "mental")) for _ in range(6))
    return (
        f"The {a} of this {b} is open before {own.randrange(10, 99)} on the second day. People in Hamburg like to "
        f"visit it because the {c} there is good and the {d} is always warm. You can take the {e} with you if there is "
        f"more than one {f} left. Please do not forget that the {a} was painted by Marlene in "
        f"{own.randrange(1900, 2000)}. It is a calm place for an afternoon."
    )


def write_rows(kinds: tuple[str, ...] = ("sft", "preference", "unpaired"), count: int = 60) -> pl.DataFrame:
    """Rows of one source a kind, whose ids are digests as pool's are."""
    rows = []
    for number in range(count):
        kind = kinds[number % len(kinds)]
        identity = {
            "row_id": hashlib.sha256(str(number).encode()).hexdigest()[:16], "source": f"{kind}_source", "kind": kind,
        }  # fmt: skip
        if kind == "unpaired":
            reply = {"chosen": [message("assistant", write_text(number))], "label": number % 2 == 0}
            rows.append(make_row(number, f"Tell me about place {number}.", "") | identity | reply)
            rows[-1]["messages"] = rows[-1]["messages"][:1]
        else:
            worse = write_text(number + 1000) if kind == "preference" else None
            rows.append(make_row(number, f"Tell me about place {number}.", write_text(number), worse, **identity))
    return make_rows(rows)


ROWS = write_rows()
DUPLICATES = plant_duplicates(ROWS.lazy(), PARAMS)


def words_of(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def compare_words(one: list[str], other: list[str]) -> float:
    """Jaccard similarity of 3-grams of words, none across two parts of a row, counted here."""
    first, second = (
        {" ".join(words[at : at + 3]) for words in map(words_of, parts) for at in range(len(words) - 2)}
        for parts in (one, other)
    )
    return len(first & second) / len(first | second)


def pair_texts(probes: pl.DataFrame, rows: pl.DataFrame) -> list[tuple[dict[str, Any], list[str], list[str]]]:
    """Each probe with the texts of the row that it copies, part by part, and its own in plain letters."""
    parts = [texts_of(column) for column in ("messages", "chosen", "rejected")]
    plain = {ord("\N{NO-BREAK SPACE}"): " "} | {wide: wide - 0xFEE0 for wide in range(0xFF01, 0xFF5F)}
    texts = {row_id: each for row_id, *each in rows.select("row_id", *parts).iter_rows()}
    copies = [[text.translate(plain) for text in each] for each in probes.select(parts).iter_rows()]
    return [(line, texts[line["target"]], copy) for line, copy in zip(probes.to_dicts(), copies, strict=True)]


# Duplicates


def test_each_kind_is_planted_as_often_as_asked_and_spread_over_the_sources() -> None:
    counts = Counter(DUPLICATES["probe"])
    assert counts == dict.fromkeys(KINDS, PARAMS.duplicates)
    assert set(DUPLICATES["source"]) == {"sft_source", "preference_source", "unpaired_source"}
    assert DUPLICATES["row_id"].n_unique() == DUPLICATES.height
    assert dict(DUPLICATES.schema) == PROBE_SCHEMA
    # 48 probes of 60 rows: no row is copied twice
    assert DUPLICATES["target"].n_unique() == DUPLICATES.height


def test_the_similarity_of_each_is_in_its_band() -> None:
    for line, original, copy in pair_texts(DUPLICATES, ROWS):
        similarity = compare_words(original, copy)
        assert similarity == pytest.approx(line["similarity"])
        if line["probe"] in LEVELS:
            low, high = LEVELS[line["probe"]]
            assert low <= similarity < high
            assert name_level(similarity) == line["probe"]
        elif line["probe"] == BELOW:
            assert similarity < 0.7
            assert line["expected"] == STAYS
        elif line["probe"] == "exact":
            assert [*map(words_of, original)] == [*map(words_of, copy)]
        elif line["probe"] in edits.CHANGES:
            assert 0.8 <= similarity < 1
            assert line["expected"] == STAYS


def test_a_level_that_no_row_reaches_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: Counter[str] = Counter()

    def fail(kind: str) -> Any:
        def build(row: dict[str, Any], own: random.Random) -> None:
            tried[kind] += 1

        return build

    monkeypatch.setattr(duplicates, "KINDS", {kind: (fail(kind), CAUGHT, True) for kind in ("near_90", "name")})
    params = Probes(duplicates=2, personal_data=0, leaks=0, seed=1)
    assert plant_duplicates(ROWS.lazy(), params).is_empty()
    assert tried == {"near_90": 2 * duplicates.PATIENCE, "name": ROWS.height}  # a name is looked for in no time


def test_short_rows_are_not_tried_for_a_small_change(monkeypatch: pytest.MonkeyPatch) -> None:
    """18 words are 16 n-grams: one more is a similarity of 16/17, less than 0.95."""
    row = make_row(0, "Tell me", "available " * 18)
    monkeypatch.setattr(duplicates, "HARMLESS", [lambda *_: pytest.fail("tried")])
    assert duplicates.blur(0.95, 1.0)(row, random.Random(1)) is None


def test_a_text_with_a_zero_byte_is_no_trouble() -> None:
    """Such a message stays as it is; the others of its row are edited."""
    rows = make_rows([make_row(number, f"Tell me\0 of {number}.", write_text(number)) for number in range(40)])
    planted = plant_duplicates(rows.lazy(), PARAMS)
    assert Counter(planted["probe"])["number"] == PARAMS.duplicates
    assert all("\0" in text for text in planted.select(text_of_row()).to_series())


def test_a_decoy_differs_in_what_its_name_says() -> None:
    def differing(probe: str) -> list[tuple[Counter[str], Counter[str]]]:
        chosen = pair_texts(DUPLICATES.filter(probe=probe), ROWS)
        counts = [[Counter(words_of(" ".join(parts))) for parts in pair] for _, *pair in chosen]
        return [(before - after, after - before) for before, after in counts]

    for gone, new in differing("negation"):
        assert (gone, new) in ((Counter(), Counter(["not"])), (Counter(["not"]), Counter()))
    for gone, new in differing("number"):
        assert len(gone) == len(new) == 1
        assert all(word.isdigit() for word in (*gone, *new)) or set(gone) <= set(edits.NUMBER_WORDS)
    for gone, new in differing("name"):
        assert set(gone) <= {"hamburg", "marlene"}
        assert {word.capitalize() for word in new} <= set(edits.NAMES)
    for gone, new in differing("topic"):
        assert len(gone) == 1
        assert set(new) <= set(edits.TOPICS)
    for gone, new in differing("polarity"):
        ((before, after),) = zip(gone, new, strict=True)
        assert edits.OPPOSITE[before] == after


def test_swapped_labels() -> None:
    by_id = {row["row_id"]: row for row in ROWS.to_dicts()}
    swapped = DUPLICATES.filter(probe="swapped_labels").to_dicts()
    assert {line["kind"] for line in swapped} == {"preference", "unpaired"}
    for line in swapped:
        row = by_id[line["target"]]
        assert line["messages"] == row["messages"]
        if line["kind"] == "preference":
            assert (line["chosen"], line["rejected"]) == (row["rejected"], row["chosen"])
        else:
            assert (line["chosen"], line["label"]) == (row["chosen"], not row["label"])


def test_harmless_edits_leave_names_numbers_and_negations_alone() -> None:
    kept = re.compile(r"\d+|\bnot\b|Hamburg|Marlene")
    for number in range(200):
        text, own = write_text(number % 7), random.Random(number)
        for edit in (*edits.HARMLESS, *edits.NORMALISED[1:3]):
            assert kept.findall(edit(text, own) or text) == kept.findall(text), edit


@pytest.mark.parametrize(
    ("text", "changed"),
    [
        ("You can't go.", {"You can go."}),
        ("I won't go.", {"I will go."}),
        ("The gate is shut to you.", {"The gate is not shut to you."}),
        ("Es ist nicht offen.", {"Es ist offen."}),
        ("Nothing to see here", {None}),
    ],
)
def test_change_of_a_negation(text: str, changed: set[str | None]) -> None:
    assert {edits.change_negation(text, random.Random(seed)) for seed in range(20)} == changed


def test_same_seed_same_probes_and_the_order_of_rows_does_not_matter() -> None:
    assert plant_duplicates(ROWS.sort("row_id", descending=True).lazy(), PARAMS).equals(DUPLICATES)
    assert not plant_duplicates(ROWS.lazy(), PARAMS.model_copy(update={"seed": 2})).equals(DUPLICATES)
    assert plant_personal_data(ROWS.lazy(), PARAMS).equals(plant_personal_data(ROWS.lazy(), PARAMS))


def test_a_row_more_changes_few_probes() -> None:
    large = write_rows(count=600)
    before = plant_duplicates(large[:-1].lazy(), PARAMS).drop("row_id", "record").rows()
    after = plant_duplicates(large.lazy(), PARAMS).drop("row_id", "record").rows()
    assert sum(repr(probe) in set(map(repr, before)) for probe in after) >= 0.9 * len(after)


@pytest.mark.parametrize("kinds", [("preference",), ("unpaired",), ("sft",)])
def test_sources_of_one_kind(kinds: tuple[str, ...]) -> None:
    rows = write_rows(kinds, 30)
    assert {line["kind"] for line in plant_duplicates(rows.lazy(), PARAMS).to_dicts()} == set(kinds)
    personal = plant_personal_data(rows.lazy(), PARAMS)
    assert set(personal["kind"]) == set(kinds)
    assert all((line["rejected"] is not None) == (kinds == ("preference",)) for line in personal.to_dicts())


def test_one_row_and_no_row() -> None:
    planted = Counter(plant_duplicates(ROWS[:1].lazy(), PARAMS)["probe"])
    assert planted["exact"] == 1
    assert plant_duplicates(ROWS[:0].lazy(), PARAMS).is_empty()
    assert plant_personal_data(ROWS[:1].lazy(), PARAMS).height == plant_personal_data(ROWS.lazy(), PARAMS).height


CHINESE = (
    "早上去医院的路上下着小雨，医生说这种药每天要吃三次，饭后半小时再吃，不要"
    "和牛奶一起喝，如果头疼就休息两天再来看看，护士会给你一张新的预约单。"
)
GERMAN = (
    "Die Sprechstunde beginnt um 8 Uhr und endet am Mittag. Bitte bringen Sie die Versichertenkarte mit, denn ohne sie "
    "kann die Rechnung nicht erstellt werden. In Hannover liegt die Praxis gegenüber vom Rathaus, und der Aufzug steht "
    "im hinteren Teil des Gebäudes. Wer nicht kommen kann, sagt spätestens einen Tag vorher telefonisch ab."
)


@pytest.mark.parametrize(
    ("text", "kinds"), [(CHINESE, {"exact", "near_90"}), (GERMAN, {"exact", "near_85", "negation"})]
)
def test_other_languages(text: str, kinds: set[str]) -> None:
    rows = make_rows([make_row(number, f"{number}?", text + str(number)) for number in range(10)])
    planted = plant_duplicates(rows.lazy(), PARAMS)
    assert kinds <= set(planted["probe"])
    assert not any("Thank you" in text or "hope" in text for text in planted.select(text_of_row()).to_series())


# Dedup is measured


def test_dedup_is_measured() -> None:
    judged = dedup.try_probes(DUPLICATES, ROWS, sorted(set(ROWS["source"])), DEDUP)
    assert judged["row_id"].to_list() == DUPLICATES["row_id"].to_list()
    scores = score(judged)
    for name in ("exact", "swapped_labels"):
        assert (scores[name]["planted"], scores[name]["recall"]) == (PARAMS.duplicates, 1)
    assert sum(scores[name]["caught"] for name in LEVELS) >= 0.9 * PARAMS.duplicates * len(LEVELS)
    assert scores[BELOW] == {"decoys": PARAMS.duplicates, "wrongly_caught": 0}
    caught = judged.filter("caught")
    wrong = caught.filter(expected=STAYS).height
    assert scores["exact"]["precision"] == pytest.approx(1 - wrong / caught.height)


def test_the_threshold_and_the_ngram_of_dedup_settle_what_is_expected() -> None:
    probes = DUPLICATES.filter(pl.col("probe").str.starts_with("near"))
    kept = pl.concat([ROWS, rows_of(probes)]).select("row_id", survivor="row_id", reason=pl.lit(None, pl.String))
    for threshold in (0.88, 0.93):
        judged = judge_duplicates(probes, ROWS, kept, 3, threshold)
        above = sum(similarity >= threshold for similarity in probes["similarity"])
        assert judged["expected"].to_list().count(CAUGHT) == above
        assert judged.filter(expected=STAYS)["probe"].unique().to_list() == [BELOW]
    fives = judge_duplicates(probes, ROWS, kept, 5, 0.8)
    assert sum(fives["similarity"]) < sum(probes["similarity"])  # an edit inside changes five 5-grams, three 3-grams


def test_what_would_say_nothing_counts_nowhere() -> None:
    probes = DUPLICATES.filter(pl.col("probe").is_in(["number", "near_90", "exact"])).group_by("probe").head(2)
    number, near, exact = (probes.filter(probe=probe).to_dicts() for probe in ("number", "near_90", "exact"))
    verdicts = {each["row_id"]: (each["row_id"], None) for each in (*ROWS.to_dicts(), *probes.to_dicts())}
    verdicts[number[0]["row_id"]] = (number[0]["target"], "near_duplicate")  # wrong
    verdicts[number[1]["row_id"]] = (exact[0]["target"], "near_duplicate")  # perhaps that one's copy
    verdicts[near[0]["row_id"]] = (near[0]["target"], "near_duplicate")  # right
    verdicts[near[1]["target"]] = (exact[0]["target"], "near_duplicate")  # what it copies is gone
    verdicts[exact[0]["row_id"]] = (exact[0]["target"], "exact_duplicate")  # right; exact[1] is missed
    lines = [(row_id, survivor, reason) for row_id, (survivor, reason) in verdicts.items()]
    marks = pl.DataFrame(lines, ["row_id", "survivor", "reason"], orient="row", infer_schema_length=None)
    assert score(judge_duplicates(probes, ROWS, marks, 3, 0.8)) == {
        "exact": {"planted": 2, "caught": 1, "recall": 0.5, "precision": pytest.approx(2 / 3)},
        "near_90": {"planted": 1, "caught": 1, "recall": 1.0, "precision": pytest.approx(2 / 3)},
        "number": {"decoys": 1, "wrongly_caught": 1},
    }


PARAMS_YAML = """
engine: {name: local, workers: 2, address: null}
dedup: {mode: careful, threshold: 0.8, ngram: 3, bands: 24, rows: 5, swapped_labels: drop_both, seed: 1}
decontaminate: {ngram: 8, threshold: 0.6, run: 13, common: 10, action: drop, examples: mark, tasks: {}}
filters: {echoes: true, min_reply_words: null, max_reply_words: null, languages: null, language_probability: 0.8,
  max_repeated_lines: null, max_repeated_words: null, truncated: false, refusals: false}
tasks: [{name: clinic, path: clinic.yaml, chat: true, limit: null}]
sources:
"""
ENTRY = "  - {{name: {0}_source, path: {0}.json, format: {1}, licence: CC0-1.0, consent: public, share: 1.0}}\n"


def write_params(folder: Path) -> None:
    entries = [ENTRY.format(*each) for each in (("sft", "qa"), ("preference", "pairs"), ("unpaired", "kto"))]
    (folder / "params.yaml").write_text(PARAMS_YAML + "".join(entries))


def read_outputs(stage: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path("data", stage).iterdir() if path.name != "probes.parquet"}


def test_outputs_of_dedup_are_equal_with_and_without_probes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_params(tmp_path)
    Path("data/pool").mkdir(parents=True)
    ROWS.write_parquet("data/pool/rows.parquet")
    personal = plant_personal_data(ROWS.lazy(), PARAMS)
    outputs, measured = [], []
    for probes in (make_table([]), pl.concat([DUPLICATES, personal])):
        probes.write_parquet("data/pool/probes.parquet")
        dedup.main()
        outputs.append(read_outputs("dedup"))
        measured.append(json.loads(Path("metrics/dedup.json").read_text()))
    assert outputs[0] == outputs[1]
    assert measured[0].pop("probes") == {}
    assert measured[1].pop("probes")["near_80"]["recall"] == 1
    comparisons = ("candidates", "verified", "full_buckets", "digest")  # of work and tables that probes are among
    for metrics in measured:
        for name in comparisons:
            del metrics[name]
    assert measured[0] == measured[1]
    own, later = read_probes("dedup", "scrub")
    assert own.equals(personal)
    assert later.is_empty()
    assert pl.read_parquet("data/dedup/probes.parquet").filter(stage="dedup")["caught"].null_count() == 0


# Personal data

# Valid numbers that were not made here: the standards' and the authorities' own examples.
EXAMPLES = {
    "CREDIT_CARD": "4111 1111 1111 1111", "IBAN_CODE": "GB82 WEST 1234 5698 7654 32", "US_NPI": "1234567893",
    "ABA_ROUTING_NUMBER": "111000025", "UK_NHS": "943 476 5919", "PL_PESEL": "44051401359", "ES_NIF": "12345678Z",
    "CA_SIN": "046 454 286", "TR_NATIONAL_ID": "10000000146", "AU_TFN": "123 456 782", "DE_TAX_ID": "86095742719",
    "IT_FISCAL_CODE": "RSSMRA85T10A562S", "FI_PERSONAL_IDENTITY_CODE": "131052-308T", "SG_NRIC_FIN": "S1234567D",
}  # fmt: skip


def is_luhn(number: str) -> bool:
    total = 0
    for place, digit in enumerate(map(int, reversed(number))):
        total += sum(map(int, str(digit * 2))) if place % 2 else digit
    return total % 10 == 0


def weigh(number: str, *weights: int) -> int:
    return sum(int(digit) * weight for digit, weight in zip(number, weights, strict=True))


def is_tax_id(number: str) -> bool:
    """ISO 7064, MOD 11, 10."""
    product = 10
    for digit in map(int, number[:-1]):
        product = ((digit + product) % 10 or 10) * 2 % 11
    return (product + int(number[-1])) % 10 == 1 and Counter(Counter(number[:-1]).values()) == {1: 8, 2: 1}


def is_nric(number: str) -> bool:
    total = weigh(number[1:-1], 2, 7, 6, 5, 4, 3, 2) + 4 * (number[0] == "T")
    return number[-1] == "JZIHGFEDCBA"[total % 11]


VALID = {
    "CREDIT_CARD": is_luhn,
    "CA_SIN": is_luhn,
    "US_NPI": lambda number: is_luhn(f"80840{number}"),
    "IBAN_CODE": lambda number: int("".join(str(int(sign, 36)) for sign in number[4:] + number[:4])) % 97 == 1,
    "ABA_ROUTING_NUMBER": lambda number: weigh(number, 3, 7, 1, 3, 7, 1, 3, 7, 1) % 10 == 0,
    "UK_NHS": lambda number: weigh(number, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1) % 11 == 0,
    "PL_PESEL": lambda number: weigh(number, 1, 3, 7, 9, 1, 3, 7, 9, 1, 3, 1) % 10 == 0,
    "AU_TFN": lambda number: weigh(number, 1, 4, 3, 7, 5, 8, 6, 9, 10) % 11 == 0,
    "ES_NIF": lambda number: "TRWAGMYFPDXBNJZSQVHLCKE"[int(number[:-1]) % 23] == number[-1],
    "TR_NATIONAL_ID": lambda number: sum(map(int, number[:10])) % 10 == int(number[10]),
    "FI_PERSONAL_IDENTITY_CODE": lambda number: (
        "0123456789ABCDEFHJKLMNPRSTUVWXY"[int(number[:6] + number[-4:-1]) % 31] == number[-1]
    ),
    "DE_TAX_ID": is_tax_id,
    "SG_NRIC_FIN": is_nric,
}


@pytest.mark.parametrize("entity", VALID)
def test_checksums_are_valid(entity: str) -> None:
    bare = re.compile(r"[ -]")
    assert VALID[entity](bare.sub("", EXAMPLES[entity])), "the check of this test is wrong"
    own = random.Random(3)
    assert all(VALID[entity](bare.sub("", MAKE[entity](own))) for _ in range(100))


@pytest.mark.parametrize("entity", [entity for entity in IDENTIFIERS if entity in presidio_kinds()])
def test_presidio_finds_nothing_wrong_with_the_numbers(entity: str) -> None:
    own = random.Random(4)
    kinds = [kind(supported_language="en") for kind in presidio_kinds()[entity]]
    for value in (MAKE[entity](own) for _ in range(20)):
        forms = (value, re.sub(r"[ -]", "", value))
        told = [kind.validate_result(form) for kind in kinds for form in forms]
        assert any(verdict is not False for verdict in told), value


def test_known_sums() -> None:
    assert luhn_sum("79927398713") == 70  # the example of ISO/IEC 7812-1's explanations
    assert verhoeff_sum("2363") == 0  # 236 has the check digit 3 (Verhoeff 1969)
    assert verhoeff_sum("2364") != 0


def test_each_type_in_every_style_with_lookalikes() -> None:
    probes = plant_personal_data(ROWS.lazy(), PARAMS)
    sought = probes.filter(expected=CAUGHT)
    counts = dict.fromkeys(sought["probe"].unique(), PARAMS.personal_data)
    assert Counter(sought["probe"]) == counts | dict.fromkeys(("SECRET", "ID_NUMBER"), 2 * PARAMS.personal_data)
    assert probes["row_id"].n_unique() == probes.height
    assert {"PERSON", "EMAIL_ADDRESS", "PHONE_NUMBER", "STREET_ADDRESS", "DATE_OF_BIRTH", "US_SSN"} <= set(
        sought["probe"]
    )
    assert set(probes["kind"]) == {"sft", "preference", "unpaired"}
    for line in probes.with_columns(text=text_of_row()).to_dicts():
        assert all(value in line["text"] for value in line["planted"])
        assert "{" not in line["text"].replace('{"', "").replace("[{", "") or line["text"].count("{") == 2
    tools = sought.filter(
        pl.col("messages").list.eval(pl.element().struct.field("tool_calls").is_not_null()).list.any()
    )
    assert tools.height == sought.height // len(STYLES)
    for calls in tools["messages"].list.get(1).struct.field("tool_calls"):
        assert json.loads(calls)[0]["name"] == "update_record"


ENTITIES = {
    "PERSON": "replace",
    "EMAIL_ADDRESS": "mask",
    "IBAN_CODE": "replace",
    "IP_ADDRESS": "replace",
    "US_SSN": "replace",
}


def test_scrub_is_measured() -> None:
    params: dict[str, Any] = read_yaml(Path(__file__).parent.parent / "params.yaml")["scrub"]
    scrubber = build_scrubber(Scrub(**params | {"entities": ENTITIES, "names": "lists", "allow": [], "locales": []}))
    probes = plant_personal_data(ROWS.lazy(), PARAMS).filter(pl.col("probe").is_in(list(ENTITIES)))
    judged = judge_personal_data(probes, scrub_batch(rows_of(probes), scrubber))
    scores = score(judged, by_type=True)
    assert list(scores) == ["PERSON", "EMAIL_ADDRESS", "IBAN_CODE", "IP_ADDRESS", "US_SSN"]
    for entity in ("EMAIL_ADDRESS", "IBAN_CODE", "IP_ADDRESS", "US_SSN"):  # a fixed form
        assert scores[entity]["recall"] == 1
    text = "\n".join(judged.filter("caught", expected=CAUGHT).select(text_of_row()).to_series())
    assert not any(value in text for values in judged.filter("caught", expected=CAUGHT)["planted"] for value in values)


@pytest.mark.parametrize(
    ("value", "text", "left"),
    [
        ("4929 0014 2210 1234", "card <PHONE_NUMBER> 1234", True),
        ("4929 0014 2210 1234", "card <CREDIT_CARD>, order 41234", False),
        ("Ann Kowalczyk", "<PERSON> Kowalczyk", True),
        ("10.0.3.4", "at 10.0.3.4 now", True),
        ("10.0.3.4", "at <IP_ADDRESS> now, room 10", False),
        ("219-09-9998", "It is 219-09-<X>.", True),  # five digits, none of the pieces is four long
        ("219-09-9998", "It is <X>9 99 98<X>.", True),
        ("219-09-9998", "It is <X>, room 2190, door 9.", False),
        ("(303) 555-0142", "(303) 55<X>", True),
    ],
)
def test_what_gives_a_value_away(value: str, text: str, left: bool) -> None:
    assert gives_away(value, text) is left


def test_verdicts_on_personal_data() -> None:
    def plant(number: int, text: str, planted: str, expected: str, probe: str = "US_SSN") -> dict[str, Any]:
        return make_probe(make_row(number, text, "Yes."), probe, "scrub", number, planted=[planted], expected=expected)

    probes = make_table(
        [
            plant(0, "It is 601-23-4567.", "601-23-4567", CAUGHT),
            plant(1, "It is 601-23-9999.", "601-23-9999", CAUGHT),
            plant(2, "It is 601-23-8888.", "601-23-8888", CAUGHT),  # its row will be dropped
            plant(3, "Part 000-21-4471.", "000-21-4471", STAYS),
            plant(4, "Part 000-21-4472.", "000-21-4472", STAYS),
            make_probe(make_row(5, "What is it?", "A"), "question", "decontaminate", 0),
        ]
    )
    texts = ["It is <US_SSN>.", "It is 601-<X>-9999.", None, "Part 000-21-4471.", "Part <US_SSN>.", "What is it?"]
    lines = [
        line | {"messages": [message("user", text)]}
        for line, text in zip(probes.to_dicts(), texts, strict=True)
        if text
    ]
    judged = judge_personal_data(probes, pl.DataFrame(lines, PROBE_SCHEMA))
    assert judged["caught"].to_list() == [True, False, None, False, True, None]
    assert score(judged, by_type=True) == {
        "US_SSN": {
            "planted": 2, "caught": 1, "recall": 0.5, "decoys": 2, "wrongly_caught": 1, "precision": 0.5,
        }
    }  # fmt: skip


def test_a_surrogate_shares_its_form_with_the_value() -> None:
    row = make_row(0, "Mail j.smith@example.org.", "Yes.")
    probes = make_table([make_probe(row, "EMAIL_ADDRESS", "scrub", 0, planted=["j.smith@example.org"])])
    for text, caught in (("Mail anna.bell77@example.org.", True), ("Mail j.smith@example.org.", False)):
        scrubbed = probes.with_columns(messages=pl.Series([[message("user", text)]], dtype=ROW_SCHEMA["messages"]))
        assert judge_personal_data(probes, scrubbed, ["EMAIL_ADDRESS"])["caught"].to_list() == [caught]
        assert judge_personal_data(probes, scrubbed)["caught"].to_list() == [False]  # `example` is left


# Leaks


def make_items(count: int = 20) -> pl.DataFrame:
    """Items of 20 words, so 13 n-grams of 8: a part of 16 words holds 9 of them, one of 15 words 8."""
    lines = []
    for number in range(count):
        own = ["".join(random.Random(f"{number} {place}").choices("bdfgklmnprst", k=6)) for place in range(18)]
        question = f"where {' '.join(own)} clinic?"
        lines.append({"task": "clinic", "subtask": "clinic", "split": "test", "item": number, "question": question,
                      "choices": [], "answer": "The nurse knows."})  # fmt: skip
    return pl.DataFrame(lines, schema_overrides={"choices": pl.List(pl.String)})


RULES = {"clinic": (8, 0.6, None)}
DECONTAMINATE = decontaminate.Decontaminate(
    ngram=8, threshold=0.6, run=13, common=10, action="drop", examples="mark", tasks={}
)


def test_decontaminate_is_measured() -> None:
    items = make_items()
    probes = plant_leaks(items, ROWS.lazy(), PARAMS)
    overlaps, _, _ = decontaminate.compare(rows_of(probes), items, DECONTAMINATE, ["clinic"])
    judged = judge_leaks(probes, set(overlaps["row_id"]), items, RULES)
    scores = score(judged)
    for kind in ("verbatim", "with_answer", "question"):
        assert scores[kind] == {"planted": 12, "caught": 12, "recall": 1.0, "precision": 1.0}
    # Of 20 words 19, 17, 15, 10, 7 and 4: 12, 10, 8, 3, 0 and 0 of 13 n-grams. 8 / 13 = 0.615 is enough.
    assert sorted(judged.filter(probe="part")["similarity"].unique()) == pytest.approx(
        [0, 3 / 13, 8 / 13, 10 / 13, 12 / 13]
    )
    assert scores["part"] == {
        "planted": 6, "caught": 6, "recall": 1.0, "decoys": 6, "wrongly_caught": 0, "precision": 1.0,
    }  # fmt: skip
    assert scores["neighbour"] == {"decoys": 12, "wrongly_caught": 0}
    assert set(scores["reworded"]) == {"planted", "caught", "recall"}
    assert set(probes["kind"]) == {"sft", "preference", "unpaired"}


def test_nothing_is_said_of_a_part_that_another_rule_may_find() -> None:
    items = make_items()
    probes = plant_leaks(items, ROWS.lazy(), PARAMS).filter(probe="part")
    # The parts of 15 words and more are above the threshold. Of the others, those of 10 hold a run of 9 words.
    judged = judge_leaks(probes, set(), items, {"clinic": (8, 0.6, 9)})
    assert score(judged)["part"] == {
        "planted": 6, "caught": 0, "recall": 0.0, "decoys": 4, "wrongly_caught": 0, "precision": 1.0,
    }  # fmt: skip


def test_a_neighbour_and_a_reworded_item() -> None:
    items = make_items()
    probes = plant_leaks(items, ROWS.lazy(), PARAMS)
    questions = {f"clinic/clinic/{number}": text for number, text in enumerate(items["question"])}
    for line in probes.with_columns(text=text_of_row()).to_dicts():
        asked = set(words_of(questions[line["target"]]))
        if line["probe"] == "neighbour":
            assert len(asked & set(words_of(line["text"]))) >= 6  # the same words
            assert share_held(line["text"], questions[line["target"]], 3) == 0
        if line["probe"] == "reworded":
            assert line["expected"] == OPEN
            assert words_of(line["text"]) != words_of(questions[line["target"]])
            assert not {"where", "clinic"} & set(words_of(line["text"]))  # in what place, practice


def test_frames_options_and_short_items() -> None:
    assert strip_question("Question: Where is the gate?\nA. here\nB. there\nAnswer:") == "Where is the gate?"
    assert strip_question("Answer the phone politely") == "Answer the phone politely"
    short = make_items(3).with_columns(question=pl.lit("Who is it?"))
    assert plant_leaks(short, ROWS.lazy(), PARAMS).is_empty()
    assert plant_leaks(make_items()[:0], ROWS.lazy(), PARAMS).is_empty()
    assert plant_leaks(make_items(), ROWS[:0].lazy(), PARAMS).is_empty()


def test_outputs_of_decontaminate_are_equal_with_and_without_probes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_params(tmp_path)
    Path("data/scrub").mkdir(parents=True)
    items = make_items()
    leaking = make_row(99, items["question"][0], "The nurse knows.")
    pl.concat([ROWS, make_rows([leaking])]).write_parquet("data/scrub/rows.parquet")
    items.write_parquet("data/scrub/items.parquet")
    outputs, measured = [], []
    for probes in (make_table([]), plant_leaks(items, ROWS.lazy(), PARAMS)):
        probes.write_parquet("data/scrub/probes.parquet")
        decontaminate.main()
        outputs.append(read_outputs("decontaminate"))
        measured.append(json.loads(Path("metrics/decontaminate.json").read_text()))
    assert outputs[0] == outputs[1]
    assert measured[0].pop("probes") == {}
    assert measured[1].pop("probes")["verbatim"]["recall"] == 1
    assert measured[0] == measured[1]
    assert measured[1]["dirty_items"] == {"clinic": 1}


# All of them


def test_none_are_planted_where_none_are_asked_for() -> None:
    for probes in (
        plant_duplicates(ROWS.lazy(), NONE),
        plant_personal_data(ROWS.lazy(), NONE),
        plant_leaks(make_items(), ROWS.lazy(), NONE),
    ):
        assert probes.is_empty()
        assert dict(probes.schema) == PROBE_SCHEMA
        assert score(probes) == {}


def test_what_stands_beside_a_probe_is_a_row_of_the_schema() -> None:
    everything = pl.concat(
        [DUPLICATES, plant_personal_data(ROWS.lazy(), PARAMS), plant_leaks(make_items(), ROWS.lazy(), PARAMS)]
    )
    joined = add_probes(ROWS, everything)
    assert dict(joined.schema) == ROW_SCHEMA
    rows, probes = split_off(joined)
    assert rows.equals(ROWS)
    assert probes["row_id"].to_list() == everything["row_id"].to_list()
    assert probes["row_id"].n_unique() == probes.height
    assert probes["source"].unique().to_list() == [SOURCE]
    assert probes["subject"].null_count() == probes.height  # nobody's data


def test_a_table_of_another_shape_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"data/pool/probes.parquet: there is no such file"):
        read_probes("pool", "dedup")
    Path("data/pool").mkdir(parents=True)
    DUPLICATES.drop("expected").write_parquet("data/pool/probes.parquet")
    with pytest.raises(InputError, match=r"columns: expected missing; .*`dvc repro --force --single-item pool`"):
        read_probes("pool", "dedup")
