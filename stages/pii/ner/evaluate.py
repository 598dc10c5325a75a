"""Score the tagger on labelled text by path: `python -m stages.pii.ner.evaluate FILE ...` prints JSON.

FILE is a CoNLL file or a JSON list of {full_text, spans}; `medquad:FILE` counts what is found per 1,000 words in the
documents that no training saw; `templates` is text out of templates that no training saw; with `accounts:` before a
CoNLL file the names of accounts (@name) count too, else neither those labelled nor those found do. A found span is
right where it overlaps a labelled one of its type (`recall`, `precision`); `exact_recall` asks for equal ends,
`touched` for a span of any type, `whole` for one found span of the type that covers the labelled one. With --write the
figures go into scores.json beside this file, which says of each set what it is, whether the model was trained on it
and whether its errors were read; all its sets must then be given.
"""

import argparse
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from stages.pii import Finding
from stages.pii.ner.features import LEXICON
from stages.pii.ner.tagger import MODEL, load_tagger
from stages.pii.ner.train.corpora import Labelled, read_conll, read_labelled_json, read_medquad
from stages.pii.ner.train.train import development

ENTITIES = ("PERSON", "LOCATION", "ORGANIZATION")
SCORES = Path(__file__).parent / "scores.json"
Find = Callable[[str], list[Finding]]


def score_spans(texts: Iterable[Labelled], find: Find) -> dict[str, dict[str, float]]:
    """Type → spans, recall, precision, exact_recall, touched, whole."""
    counts: dict[str, Counter[str]] = {entity: Counter() for entity in ENTITIES}
    for text, spans in texts:
        found = find(text)
        for start, end, kind in spans:
            over = [item for item in found if item.start < end and item.end > start]
            same = [item for item in over if item.entity == kind]
            counts[kind]["spans"] += 1
            counts[kind]["touched"] += bool(over)
            counts[kind]["recall"] += bool(same)
            counts[kind]["whole"] += any(item.start <= start and end <= item.end for item in same)
            counts[kind]["exact_recall"] += any((item.start, item.end) == (start, end) for item in same)
        for item in found:
            counts[item.entity]["found"] += 1
            counts[item.entity]["precision"] += any(
                start < item.end and end > item.start and kind == item.entity for start, end, kind in spans
            )
    return {
        entity: {"spans": count["spans"], "found": count["found"]}
        | {
            name: round(count[name] / max(count["spans"], 1), 4)
            for name in ("recall", "touched", "whole", "exact_recall")
        }
        | {"precision": round(count["precision"] / max(count["found"], 1), 4)}
        for entity, count in counts.items()
    }


def count_per_1000_words(texts: Iterable[str], find: Find) -> dict[str, float]:
    """Type → spans found per 1,000 words of text."""
    words, counts = 0, Counter[str]()
    for text in texts:
        words += len(text.split())
        counts.update(item.entity for item in find(text))
    return {"words": words} | {entity: round(1000 * counts[entity] / max(words, 1), 3) for entity in ENTITIES}


def evaluate(path: str, find: Find) -> dict[str, Any]:
    if path == "templates":
        return score_spans(development(), find)
    if path.startswith("medquad:"):
        return count_per_1000_words((text for _, text in read_medquad(Path(path.removeprefix("medquad:")), True)), find)
    if path.startswith("accounts:"):
        return score_spans(read_conll(Path(path.removeprefix("accounts:")), accounts=True), find)
    if path.endswith(".json"):
        return score_spans(read_labelled_json(Path(path)), find)
    return score_spans(read_conll(Path(path)), lambda text: leave_accounts(find(text), text))


def leave_accounts(findings: list[Finding], text: str) -> list[Finding]:
    return [found for found in findings if text[found.start - 1 : found.start] != "@"]


def digest_of_model() -> str:
    """SHA-256 of the model and its lists: scores.json names the one that was scored."""
    return hashlib.sha256(MODEL.read_bytes() + LEXICON.read_bytes()).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("files", nargs="+")
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    find = load_tagger().find
    scores = {
        "".join(path.rpartition(":")[:2]) + Path(path).name.rpartition(":")[2]: evaluate(path, find)
        for path in given.files
    }
    if given.write:
        record = json.loads(SCORES.read_text(encoding="utf-8"))
        record["model"] = digest_of_model()
        for entry in record["sets"]:
            entry["scores"] = scores[entry["file"]]
        SCORES.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(json.dumps(scores, indent=2))


if __name__ == "__main__":
    main()
