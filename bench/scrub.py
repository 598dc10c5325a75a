"""Personal data in texts: our search beside Presidio's own engine, on one core, in one run.

    python bench/scrub.py [--mails 300] [--documents 1500] [--rows 10000,100000,1000000] [--data ../shared/data]

Stock is AnalyzerEngine with NoOpNlpEngine and its default recognisers; `ours` is stages/pii/search.py with the same
recognisers, beginning with an empty memory. Their spans and scores must be equal, else this fails. `whole` is what the
scrub stage does with a text (all entities of params.yaml without names; allow list, replacement and second look too),
also with an empty memory and without the cache. scrubadub joins in where it is installed (tried with scrubadub==2.0.1,
locale en_US, its own detectors; its spans are not compared). Beyond 100,000 generated texts only ours run.

Then recall and precision by overlap on presidio-synth of stock, ours and scrubadub by pattern type, and telephone
numbers found per 1,000 words of medquad, which holds next to none. CPU seconds of one process; writes nothing. Real
mails and documents are read from --data; where a set is not there, that is said, and generated text takes its place.
"""

import argparse
import gc
import gzip
import importlib.util
import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stages.common.stage import say  # isort: skip
import tldextract
from presidio_analyzer import AnalyzerEngine, RecognizerRegistry
from presidio_analyzer.nlp_engine import NoOpNlpEngine

from stages.common.params import load
from stages.pii import Finding, phones
from stages.pii.analyser import GATES, Analyser
from stages.pii.params import Scrub
from stages.pii.scrubber import Scrubber
from stages.pii.search import Search

MAIL, QUESTIONS, SYNTH = (
    "spamassassin-mail/spamassassin.jsonl.gz",
    "medquad/medquad.jsonl",
    "presidio-synth/synth_dataset_v2.json",
)
TYPES = {
    "CREDIT_CARD": "CREDIT_CARD", "PHONE_NUMBER": "PHONE_NUMBER", "IBAN_CODE": "IBAN_CODE", "US_SSN": "US_SSN",
    "IP_ADDRESS": "IP_ADDRESS", "EMAIL_ADDRESS": "EMAIL_ADDRESS", "DOMAIN_NAME": "URL",
}  # fmt: skip
"""Type of presidio-synth → entity."""
FILTH = {
    "credit_card": "CREDIT_CARD", "phone": "PHONE_NUMBER", "social_security_number": "US_SSN",
    "email": "EMAIL_ADDRESS", "url": "URL",
}  # fmt: skip
"""Type of scrubadub → entity."""
GENERATED = "the patient should take two tablets after food and call when symptoms last longer than a week"
LARGEST_FOR_ALL = 100_000
STOCK_THRESHOLD = 0.35  # PhoneRecognizer scores 0.4


def read_lines(path: Path) -> list[dict[str, Any]]:
    content = path.read_bytes()
    return [json.loads(line) for line in (gzip.decompress(content) if path.suffix == ".gz" else content).splitlines()]


def generate(rows: int, seed: int = 1) -> list[str]:
    """Texts of about 120 words with numbers, and with personal data in every third."""
    draw = random.Random(seed)
    words = GENERATED.split()
    texts = []
    for number in range(rows):
        text = [draw.choice(words) for _ in range(120)]
        text[draw.randrange(120)] = f"in {draw.randrange(1950, 2030)},"
        text[draw.randrange(120)] = f"{draw.randrange(500)} mg."
        if number % 3 == 0:
            text[draw.randrange(120)] = draw.choice(
                [
                    f"u{draw.randrange(10**6)}@example.org",
                    f"({draw.randrange(200, 989)}) {draw.randrange(200, 999)}-{draw.randrange(10**4):04d}",
                    f"https://www.example.com/{draw.randrange(10**6)}",
                    f"{draw.randrange(100, 899)}-{draw.randrange(10, 99)}-{draw.randrange(10**4):04d}",
                    f"{draw.randrange(1, 224)}.{draw.randrange(256)}.{draw.randrange(256)}.{draw.randrange(1, 255)}",
                ]
            )
        texts.append(" ".join(text))
    return texts


def clock(work: Callable[[str], Any], texts: list[str]) -> tuple[float, list[Any]]:
    """MB of UTF-8 a second of this process's time, and the results."""
    size = sum(len(text.encode()) for text in texts) / 1e6
    gc.collect()  # or a collection of the texts that lie in memory falls into one of the clocks
    gc.freeze()
    start = time.process_time()
    results = [work(text) for text in texts]
    return size / (time.process_time() - start), results


class Stock:
    """Presidio as its documentation has it, without a language model."""

    def __init__(self) -> None:
        tldextract.tldextract.TLD_EXTRACTOR = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)
        engine = NoOpNlpEngine(models=[{"lang_code": "en", "model_name": "none"}])
        self.registry = RecognizerRegistry()
        self.registry.load_predefined_recognizers(nlp_engine=engine)
        self.engine = AnalyzerEngine(registry=self.registry, nlp_engine=engine)

    def find(self, text: str) -> list[Finding]:
        return sorted(
            Finding(item.start, item.end, item.entity_type, item.score) for item in self.engine.analyze(text, "en")
        )


def find_with_scrubadub() -> Callable[[str], list[Finding]] | None:
    """Its detectors as documented; None where it is not installed."""
    if not importlib.util.find_spec("scrubadub"):
        return None
    import scrubadub

    scrubber = scrubadub.Scrubber(locale="en_US")
    return lambda text: [
        Finding(filth.beg, filth.end, FILTH.get(filth.detector_name, filth.detector_name), 1.0)
        for filth in scrubber.iter_filth(text)
    ]


def forget() -> None:
    """What was learnt about telephone numbers, which stock shares."""
    phones.judge.cache_clear()
    phones.verify.cache_clear()


def compare_speed(name: str, texts: list[str], stock: Stock, params: Scrub) -> None:
    forget()
    ours, found = clock(Search(list(stock.registry.recognizers), gates=GATES).find, texts)
    forget()
    analyser = Analyser(params.language, list(params.entities), params.threshold, "none", params.locales)
    scrubber = Scrubber(params, analyser)
    whole, _ = clock(lambda text: len(scrubber.scrub(text).replaced), texts)
    size = sum(len(text.encode()) for text in texts) / 1e6
    say(name, f"{len(texts)} texts, {size:.2f} MB, {sum(map(len, found))} findings")
    if len(texts) > LARGEST_FOR_ALL:
        say(name, f"ours {ours:.2f} MB/s, whole {whole:.2f}")
        return
    forget()
    theirs, spans = clock(stock.find, texts)
    equal = [set(item) for item in spans] == [set(item) for item in found]
    say(name, f"equal: {equal}")
    say(
        name,
        f"stock {theirs:.2f} MB/s, ours {ours:.2f} ({ours / theirs:.1f}x), whole {whole:.2f} ({whole / theirs:.1f}x)",
    )
    if find := find_with_scrubadub():
        other, _ = clock(find, texts)
        say(name, f"scrubadub {other:.2f} MB/s; ours {ours / other:.1f}x, whole {whole / other:.1f}x")
    else:
        say(name, "scrubadub is not installed: not measured")
    if not equal:
        raise SystemExit(f"{name}: the spans differ")


def score(find: Callable[[str], list[Finding]], rows: list[dict[str, Any]]) -> dict[str, tuple[float, float, int]]:
    """Entity → recall, precision by overlap, and the number of spans in the data."""
    by_row = [(find(row["full_text"]), row["spans"]) for row in rows]
    scores = {}
    for kind, entity in TYPES.items():
        hit = missed = right = wrong = 0
        for found, spans in by_row:
            mine = [item for item in found if item.entity == entity]
            given = [(span["start_position"], span["end_position"]) for span in spans if span["entity_type"] == kind]
            for start, end in given:
                touched = any(item.start < end and start < item.end for item in mine)
                hit, missed = hit + touched, missed + (not touched)
            for item in mine:
                good = any(item.start < end and start < item.end for start, end in given)
                right, wrong = right + good, wrong + (not good)
        scores[entity] = (hit / max(1, hit + missed), right / max(1, right + wrong), hit + missed)
    return scores


def compare_quality(data: Path, stock: Stock, params: Scrub, documents: list[str]) -> None:
    analyser = Analyser(params.language, list(params.entities), params.threshold, "none", params.locales)

    def confident(text: str) -> list[Finding]:
        return [item for item in stock.find(text) if item.score >= STOCK_THRESHOLD]

    finders: dict[str, Callable[[str], list[Finding]]] = {"stock": confident, "ours": analyser.find}
    if find := find_with_scrubadub():
        finders["scrubadub"] = find
    if (data / SYNTH).is_file():
        rows = json.loads((data / SYNTH).read_text())
        scores = {name: score(find, rows) for name, find in finders.items()}
        for entity in TYPES.values():
            of_each = [f"{name} {scores[name][entity][0]:.2f} / {scores[name][entity][1]:.2f}" for name in finders]
            say("synth", f"{entity:14} {scores['ours'][entity][2]:4} recall / precision: {', '.join(of_each)}")
    words = sum(len(text.split()) for text in documents)
    for name, find in finders.items():
        count = sum(item.entity == "PHONE_NUMBER" for text in documents for item in find(text))
        say("phones", f"{name}: {count} in {words} words, {1000 * count / max(1, words):.4f} per 1,000")


def main(mails: int, documents: int, sizes: list[int], data: Path) -> None:
    stock, params, draw = Stock(), load(Scrub, "scrub"), random.Random(1)
    sets = {}
    if (data / MAIL).is_file():
        sets["mails"] = draw.sample([line["text"] for line in read_lines(data / MAIL)], mails)
    if (data / QUESTIONS).is_file():
        lines = read_lines(data / QUESTIONS)
        sets["medquad"] = draw.sample([f"{line['question']}\n{line['answer']}" for line in lines], documents)
    for missing in [name for name in (MAIL, QUESTIONS, SYNTH) if not (data / name).is_file()]:
        say("bench", f"{data / missing} is not there: generated text alone")
    for name, texts in sets.items():
        compare_speed(name, texts, stock, params)
    for rows in sizes:
        compare_speed(f"generated {rows}", generate(rows), stock, params)
    compare_quality(data, stock, params, sets.get("medquad") or generate(1000))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--mails", type=int, default=300, help="mails, at random (default: 300)")
    parser.add_argument("--documents", type=int, default=1500, help="documents of medquad, at random (default: 1500)")
    parser.add_argument("--rows", default="10000,100000,1000000", help="sizes of the generated text")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the data sets")
    chosen = parser.parse_args()
    main(chosen.mails, chosen.documents, [int(size) for size in chosen.rows.split(",")], chosen.data)
