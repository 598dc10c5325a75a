"""Train the model: templates and openly licensed text → ../model.crfsuite.xz.

    python -m stages.pii.ner.train.train --medquad medquad.jsonl \\
        --conll wnut17train.conll wnut17train.conll a.conll b.conll e.conll g.conll h.conll wikigold.conll

A linear-chain CRF (Lafferty et al. 2001; python-crfsuite) by L-BFGS with an L1 and an L2 penalty: nothing random is
left in it, so that equal text gives equal bytes. ../NOTICE names the texts given for the model that is shipped; what is
given twice weighs double (rare names in loose writing are what the model misses most).
"""

import argparse
import lzma
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pycrfsuite
import regex

from stages.pii.ner.features import Lexicon, features_of, read_lists
from stages.pii.ner.tagger import LABELS, MODEL
from stages.pii.ner.text import Token, pieces_of, tokens_of
from stages.pii.ner.train.corpora import Labelled, read_conll, read_medquad
from stages.pii.ner.train.generate import Generator
from stages.pii.ner.train.values import FOLDER, read_sections
from stages.pii.spelling import fold

SEED = 11
SENTENCES = {"templates": 26_000, "negatives": 9_000, "headings": 3_500, "medquad": 12_000}
DROPPED_SHARE = 0.2  # of the names, unknown to the lists while training on generated text
SETTINGS = {"c1": 0.3, "c2": 0.001, "max_iterations": 55, "feature.possible_transitions": False}
MEDQUAD_SHARE = 5  # one nameless sentence in so many is taken
DEVELOPMENT = 8  # one template in so many is kept for choosing thresholds
DEVELOPMENT_TEXTS = {"templates": 1500, "negatives": 500}

NAMED = regex.compile(
    r"\b(?:Dr|Mr|Mrs|Ms|Prof|St)\b|(?:Institute|University|Center|Centre|Association|Foundation|National|Society|"
    r"Department|Hospital|College|Agency|Network|Program|Service|Office|Library|Plus|U\.S|States)\b|[A-Z]{3}"
)
"""What a sentence of MedQuAD has that may hold a name of anything."""


def label_tokens(tokens: list[Token], spans: Iterable[tuple[int, int, str]]) -> list[str]:
    """B-, I- or O for each token."""
    labels = ["O"] * len(tokens)
    for start, end, kind in spans:
        inside = [index for index, token in enumerate(tokens) if token.start < end and token.end > start]
        for index in inside:
            labels[index] = f"{'B' if index == inside[0] else 'I'}-{LABELS[kind]}"
    return labels


def nameless_sentences(path: Path, lexicon: Lexicon, most: int) -> Iterator[Labelled]:
    """Pieces of MedQuAD's training documents that hold no name by every sign we have."""
    taken = 0
    seen: set[str] = set()
    for _, answer in read_medquad(path):
        for piece in regex.split(r"(?<=[.?!])\s+(?=\p{Lu})|\n{2,}", answer):
            if zlib.crc32(piece.encode()) % MEDQUAD_SHARE or NAMED.search(piece) or piece in seen:
                continue
            seen.add(piece)
            words = [token.text for token in tokens_of(piece)]
            if not 4 < len(words) < 120 or any(
                word[0].isupper() and fold(word) in lexicon.places for word in words[1:]
            ):
                continue
            yield piece, []
            taken += 1
            if taken == most:
                return


def split_templates(part: str) -> tuple[list[str], list[str]]:
    """Templates for training, and those kept for development."""
    lines = [line for lines in read_sections(FOLDER / f"{part}.txt").values() for line in lines]
    kept = [line for line in lines if zlib.crc32(line.encode()) % DEVELOPMENT == 0 and len(line) > 24]
    return [line for line in lines if line not in kept], kept


def lists_for_generation() -> dict[str, list[str]]:
    lists = read_lists()
    names = {fold(name) for name in (*lists["first"], *lists["family"][:20_000])}
    return lists | {"name_words": [word for word in lists["word"] if word in names]}


def generated(seed: int, sentences: dict[str, int]) -> Iterator[Labelled]:
    generator = Generator(seed, lists_for_generation())
    for part in ("templates", "negatives"):
        templates, _ = split_templates(part)
        for _ in range(sentences[part]):
            yield generator.sentence(templates)
    for _ in range(sentences["headings"]):
        yield generator.heading()


def development() -> Iterator[Labelled]:
    """Texts out of the templates that training never sees."""
    generator = Generator(SEED + 1, lists_for_generation())
    for part, count in DEVELOPMENT_TEXTS.items():
        _, kept = split_templates(part)
        for _ in range(count):
            text, spans = generator.sentence(kept)
            yield text, [(start, end, "LOCATION" if kind == "ADDRESS" else kind) for start, end, kind in spans]


def append(trainer: pycrfsuite.Trainer, texts: Iterable[Labelled], lexicon: Lexicon) -> int:
    """Adds texts to the trainer; how many tokens they had."""
    count = 0
    for text, spans in texts:
        for piece in pieces_of(tokens_of(text)):
            trainer.append(pycrfsuite.ItemSequence(features_of(piece, lexicon)), label_tokens(piece, spans))
            count += len(piece)
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--conll", type=Path, nargs="*", default=[])
    parser.add_argument("--medquad", type=Path)
    parser.add_argument("--output", type=Path, default=MODEL)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the generated text")
    parser.add_argument("--verbose", action="store_true")
    given = parser.parse_args()
    sentences = {part: int(count * given.scale) for part, count in SENTENCES.items()}
    lists = read_lists()
    names = sorted({fold(name) for part in ("first", "family", "place") for name in lists[part]})
    dropped = frozenset(name for name in names if zlib.crc32(name.encode()) % 1000 < DROPPED_SHARE * 1000)
    trainer = pycrfsuite.Trainer(algorithm="lbfgs", params=SETTINGS, verbose=given.verbose)
    append(trainer, generated(SEED, sentences), Lexicon(lists, dropped))
    lexicon = Lexicon(lists)
    for path in given.conll:
        append(trainer, read_conll(path), lexicon)
    if given.medquad:
        append(trainer, nameless_sentences(given.medquad, lexicon, sentences["medquad"]), lexicon)
    with TemporaryDirectory() as folder:
        plain = Path(folder) / "model.crfsuite"
        trainer.train(str(plain))
        given.output.write_bytes(lzma.compress(plain.read_bytes(), preset=9 | lzma.PRESET_EXTREME))


if __name__ == "__main__":
    main()
