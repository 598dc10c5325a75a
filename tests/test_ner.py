"""Names by the model in the repository: what it finds, where, what it leaves, and that it can be trained again."""

import json
import lzma
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import regex
from presidio_analyzer import AnalyzerEngine, RecognizerRegistry

from stages.pii import Finding
from stages.pii.ner import evaluate
from stages.pii.ner.features import LEXICON, load_lexicon
from stages.pii.ner.recogniser import LearnedNames
from stages.pii.ner.tagger import MODEL, Tagger, is_title, join_firms, load_tagger, turn_corner
from stages.pii.ner.text import LONGEST, pieces_of, tokens_of
from stages.pii.ner.train.corpora import join_tokens
from stages.pii.ner.train.values import FOLDER
from stages.pii.words import WordEngine

ROOT = Path(__file__).parents[1]

# (text, type, value): written for this test; the templates hold none of these sentences.
NAMES = [
    ("The keys were handed over to Margaret Okonkwo before noon.", "PERSON", "Margaret Okonkwo"),
    ("Our tenant Piotr Zawadzki has paid the deposit twice.", "PERSON", "Piotr Zawadzki"),
    ("Please remind Mrs. Delacroix that her lesson starts early.", "PERSON", "Delacroix"),
    ("I spoke with Søren Østergård about the leaking roof.", "PERSON", "Søren Østergård"),
    ("The trip report was filed by J. R. Villanueva after Easter.", "PERSON", "J. R. Villanueva"),
    ("hi team, kindly give yusuf access before he starts", "PERSON", "yusuf"),
    ("We spent the summer hiking around Ljubljana with friends.", "LOCATION", "Ljubljana"),
    ("Exports from Vietnam to Norway doubled within a decade.", "LOCATION", "Vietnam"),
    ("Exports from Vietnam to Norway doubled within a decade.", "LOCATION", "Norway"),
    ("The courier left it at 4127 Willow Bend Drive, Apt. 6, Boise, ID 83704 yesterday.", "LOCATION",
     "4127 Willow Bend Drive, Apt. 6, Boise, ID 83704"),
    ("Return the kit to\n18 Garnet Lane\nLeeds\nLS6 2AB\nthanks", "LOCATION", "18 Garnet Lane\nLeeds\nLS6 2AB"),
    ("> Parcel goes to\n> Lindenstraße 44\n> 50674 Köln\n> Germany\nok", "LOCATION",
     "Lindenstraße 44\n> 50674 Köln\n> Germany"),
    ("A recruiter from Harrington Logistics Ltd rang me this morning.", "ORGANIZATION", "Harrington Logistics Ltd"),
    ("She defended her thesis at the University of Wisconsin in spring.", "ORGANIZATION", "University of Wisconsin"),
]  # fmt: skip
NO_PERSONS = [
    "People with Parkinson's disease should see a specialist.",
    "Down syndrome and Marfan syndrome are genetic conditions.",
    "In May and June the Mark Scheme is reviewed.",
    "Good morning! Thanks for waiting. Best regards",
    "TREATMENT OF SEVERE ASTHMA IN CHILDREN",
    "Risk Factors And Warning Signs",
    "import numpy as np\nclass Parser(Base):\n    return Result.Value",
    "Assistant: Sure, here is a table of Python and Java types.",
    "Metformin and Lisinopril were continued at the same dose.",
    "He will grant the wish, may the hope and grace of art be with us.",
]


@pytest.fixture(scope="module")
def tagger() -> Tagger:
    return load_tagger()


def found_in(tagger: Tagger, text: str) -> set[tuple[str, str]]:
    return {(found.entity, text[found.start : found.end]) for found in tagger.find(text)}


@pytest.mark.parametrize(("text", "entity", "value"), NAMES)
def test_a_name_is_found_with_its_exact_characters(tagger: Tagger, text: str, entity: str, value: str) -> None:
    assert (entity, value) in found_in(tagger, text)


def test_the_sentences_of_this_test_are_in_no_template() -> None:
    templates = [
        line for part in ("templates", "negatives") for line in (FOLDER / f"{part}.txt").read_text().splitlines()
    ]
    for text in [text for text, _, _ in NAMES] + NO_PERSONS:
        words = regex.findall(r"\w+", text)
        runs = [" ".join(words[index : index + 5]) for index in range(len(words) - 4)]
        assert not any(run in " ".join(regex.findall(r"\w+", template)) for run in runs for template in templates)


@pytest.mark.parametrize("text", NO_PERSONS)
def test_what_only_looks_like_a_person_stays(tagger: Tagger, text: str) -> None:
    assert not [found for found in tagger.find(text) if found.entity == "PERSON"]


def test_hidden_signs_and_letters_that_look_alike_change_nothing_but_the_offsets(tagger: Tagger) -> None:
    plain = "The keys were handed over to Margaret Okonkwo before noon."
    hidden = plain.replace("Margaret", "Mar\u200bga\u00adret").replace("Okonkwo", "Оkоnkwo")  # Cyrillic О and о
    assert ("PERSON", "Margaret Okonkwo") in found_in(tagger, plain)
    assert ("PERSON", "Mar\u200bga\u00adret Оkоnkwo") in found_in(tagger, hidden)


def test_a_name_found_once_is_found_again_and_a_surname_alone_too(tagger: Tagger) -> None:
    text = "The keys were handed over to Margaret Okonkwo before noon. Later the flag of Okonkwo flew."
    persons = [text[found.start : found.end] for found in tagger.find(text) if found.entity == "PERSON"]
    assert persons == ["Margaret Okonkwo", "Okonkwo"]


def located(text: str, value: str, entity: str = "PERSON") -> Finding:
    return Finding(text.index(value), text.index(value) + len(value), entity, 0.9)


def test_a_rank_after_an_article_is_no_person_and_before_a_name_it_is() -> None:
    text = "The Lord Mayor met Lord Byron; the Duke Albert Hamilton smiled."
    values = ("Lord Mayor", "Lord Byron", "Duke Albert Hamilton")
    assert [is_title(located(text, value), text) for value in values] == [True, False, False]


def test_what_stands_at_the_corner_of_a_street_is_a_street() -> None:
    text = "Stop at the corner of Elm Road and Clara Hughes, not at Ida and Elm Road. Ask Ida Noll."
    turned = {value: turn_corner(located(text, value), text).entity for value in ("Clara Hughes", "Ida Noll")}
    assert turned == {"Clara Hughes": "LOCATION", "Ida Noll": "PERSON"}


def test_partners_with_a_verb_in_the_singular_are_a_firm() -> None:
    firm, people = "Yes. Hale, Brandt and Osei has moved.", "Hale, Brandt and Osei have moved."
    parts = [located(firm, value) for value in ("Hale", "Brandt", "Osei")]
    assert join_firms(parts, firm) == [located(firm, "Hale, Brandt and Osei", "ORGANIZATION")]
    same = [located(people, value) for value in ("Hale", "Brandt", "Osei")]
    assert join_firms(same, people) == same


@pytest.mark.parametrize("account", ["margaretpeterson", "Margaret_Peterson", "margaretpeterson84"])
def test_an_account_named_after_a_person_is_one(tagger: Tagger, account: str) -> None:
    assert found_in(tagger, f"so true @{account} !!") == {("PERSON", account)}


def test_other_accounts_annotations_and_mail_addresses_stay(tagger: Tagger) -> None:
    text = "@Override @validator @ManyToOne @staticmethod @media @daily_news @angular/core info@margaretpeterson.de"
    assert tagger.find(text) == []


def test_accounts_that_do_not_count_are_no_false_alarms(tagger: Tagger, tmp_path: Path) -> None:
    conll = tmp_path / "posts.conll"
    conll.write_text("@margaretpeterson\tB-person\nso\tO\ntrue\tO\n\n")
    left, counted = evaluate.evaluate(str(conll), tagger.find), evaluate.evaluate(f"accounts:{conll}", tagger.find)
    assert (left["PERSON"]["spans"], left["PERSON"]["found"]) == (0, 0)
    assert (counted["PERSON"]["recall"], counted["PERSON"]["precision"]) == (1.0, 1.0)


def test_equal_texts_give_equal_findings_whatever_came_between(tagger: Tagger) -> None:
    texts = [text for text, _, _ in NAMES]
    first = [tagger.find(text) for text in texts]
    again = [Tagger(lzma.decompress(MODEL.read_bytes()), load_lexicon()).find(text) for text in reversed(texts)]
    assert first == again[::-1]


def test_findings_never_overlap_and_lie_in_the_text(tagger: Tagger) -> None:
    text = "\n\n".join(text for text, _, _ in NAMES) + "\u200b\u200b"
    findings = tagger.find(text)
    assert all(0 <= found.start < found.end <= len(text) and 0.5 <= found.score <= 1 for found in findings)
    assert all(one.end <= other.start for one, other in pairwise(findings))
    assert tagger.find("") == tagger.find(" \n ") == tagger.find("\u200b") == []


def test_long_texts_are_read_in_bounded_pieces(tagger: Tagger) -> None:
    filler = "the pump was cleaned and the valve was closed " * 3000
    text = f"{filler}. We spent the summer hiking around Ljubljana with friends. {filler}"
    tokens = tokens_of(text)
    pieces = pieces_of(tokens)
    assert max(map(len, pieces)) <= LONGEST
    assert [token for piece in pieces for token in piece] == tokens
    assert found_in(tagger, text) == {("LOCATION", "Ljubljana")}


def test_presidio_gets_only_what_it_asks_for() -> None:
    recogniser = LearnedNames(["PERSON", "LOCATION"])
    engine = AnalyzerEngine(
        registry=RecognizerRegistry([recogniser], supported_languages=["en"]),
        nlp_engine=WordEngine("en"),
        supported_languages=["en"],
    )
    text = "Our tenant Piotr Zawadzki of Harrington Logistics Ltd has left for Ljubljana."
    assert {found.entity_type for found in engine.analyze(text, "en")} == {"PERSON", "LOCATION"}
    persons = engine.analyze(text, "en", entities=["PERSON"])
    assert [(found.start, found.end) for found in persons] == [(11, 25)]


def test_conll_tokens_become_running_text() -> None:
    rows = [("@", "B-PER"), ("anna", "B-PER"), ("It", "O"), ("'", "O"), ("s", "O"), ("Bo", "B-PER"), ("Li", "I-PER"),
            (",", "O"), ("(", "O"), ("Rome", "I-LOC"), (")", "O")]  # fmt: skip
    assert join_tokens(rows) == ("@anna It's Bo Li, (Rome)", [(11, 16, "PERSON"), (19, 23, "LOCATION")])


def test_scores_are_counted_by_overlap() -> None:
    texts = [("Ann Lee in Rome", [(0, 7, "PERSON"), (11, 15, "LOCATION")]), ("no Bo", [(3, 5, "PERSON")])]
    answers = {
        "Ann Lee in Rome": [evaluate.Finding(0, 3, "PERSON", 1.0), evaluate.Finding(11, 15, "ORGANIZATION", 1.0)],
        "no Bo": [],
    }
    scores = evaluate.score_spans(texts, answers.__getitem__)
    assert scores["PERSON"] == {
        "spans": 2, "found": 1, "recall": 0.5, "touched": 0.5, "whole": 0.0, "exact_recall": 0.0, "precision": 1.0,
    }  # fmt: skip
    assert (scores["LOCATION"]["recall"], scores["LOCATION"]["touched"]) == (0.0, 1.0)
    assert scores["ORGANIZATION"]["precision"] == 0.0


def train(output: Path, hash_seed: str) -> bytes:
    command = [sys.executable, "-m", "stages.pii.ner.train.train", "--scale", "0.01", "--output", str(output)]
    subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONHASHSEED": hash_seed}, check=True, capture_output=True)
    return output.read_bytes()


def test_training_twice_gives_the_same_model_and_it_finds_names(tmp_path: Path) -> None:
    model = train(tmp_path / "one", "1")
    assert train(tmp_path / "two", "2") == model
    small = Tagger(lzma.decompress(model), load_lexicon())
    found = small.tag(tokens_of("My name is Maria Fernandez."))  # the model alone, without the rules
    assert [(name.start, name.end, name.entity) for name in found] == [(11, 26, "PERSON")]


def test_scores_are_those_of_this_model_and_say_what_was_trained_on() -> None:
    record = json.loads(evaluate.SCORES.read_text(encoding="utf-8"))
    assert record["model"] == evaluate.digest_of_model()
    assert {entry["file"] for entry in record["sets"] if entry["in_training"]} == {"wikigold.conll"}
    for entry in record["sets"]:
        assert set(entry) == {"file", "name", "what", "licence", "in_training", "errors_read", "scores"}
        if "words" in entry["scores"]:
            assert set(entry["scores"]) == {"words", *evaluate.ENTITIES}
            continue
        assert tuple(entry["scores"]) == evaluate.ENTITIES
        for figures in entry["scores"].values():
            assert figures["spans"] > 0
            assert all(0 <= figures[name] <= 1 for name in ("recall", "precision", "touched", "whole", "exact_recall"))


def test_model_and_lists_are_small() -> None:
    assert MODEL.stat().st_size + LEXICON.stat().st_size <= 4_000_000
