"""Presidio's recognisers and ours for the entities that params.yaml names, and what makes them safe.

- Context words come from a plain split into words instead of a language model, made only where a finding asks for them.
- search.py runs the recognisers, many times faster than Presidio's own engine.
- A pattern that times out, which Presidio logs and then passes over, is a failure here. Its log is never shown: it
  quotes values.
- Nothing reaches for a network: no model is fetched, and the list of top-level domains is the one in the package.
"""

import difflib
import inspect
import logging
import re
from typing import Any

import tldextract
from presidio_analyzer import EntityRecognizer, predefined_recognizers
from presidio_analyzer.context_aware_enhancers import LemmaContextAwareEnhancer

from stages.common.errors import InputError
from stages.pii import Finding, models, patterns
from stages.pii.search import Search

CONTEXT_AFTER = 2  # words after a finding that are context too: 082 490 1693 (office)
NATIONAL_ID = "NATIONAL_ID"
"""Every identifier of `locales` that has no line of its own in `entities`."""
NO_IDENTIFIERS = ("CA_POSTAL_CODE", "DE_PLZ", "UK_POSTCODE")

THREE_DIGITS = re.compile(r"\d{3}")
PASSWORD = re.compile("pa[s\u017f]{2}(?![a-bd-oq-vx-z])|pwd|(?<![a-z0-9])p.n(?![a-z])", re.I)
KEYS = (
    re.compile("[s\u017f]ecret|[k\u212a]ey(?![a-z])|to[k\u212a]en|bearer|ba[s\u017f].c", re.I),
    re.compile(
        "[s\u017f]ecret|ap.|acce[s\u017f]{2}|pr.vate|encrypt|account|auth|refre|[s\u017f]ecur|bearer|cl.ent|to[k\u212a]en|"
        "ba[s\u017f].c",
        re.I,
    ),
)
RECORDS = (THREE_DIGITS, re.compile("mrn|record|pat.ent|chart|ho[s\u017f]p.tal", re.I))
IDS = (
    THREE_DIGITS,
    re.compile("num|no(?![a-z])|.d(?![a-z])|#|code|.dentif|pa[s\u017f]{2}port|med.ca", re.I),
    re.compile(
        "ac+(?:oun)?t|pol.cy|memb|cla.m|[s\u017f]{2}port|v.[s\u017f]a|.n[s\u017f]ur|cu[s\u017f]tom|cl.ent|ca[s\u017f]e|emplo|"
        "[s\u017f]tud|[s\u017f]ub[s\u017f]|group|l.cen|perm.t|reg.[s\u017f]|badge|tax|nat.o|.dent|.d(?![a-z])|referen|pre[s\u017f]c|"
        "rx|author|referra|enrol|u[s\u017f]er|med.ca|f.le",
        re.I,
    ),
)
SSNS = (THREE_DIGITS, re.compile("[s\u017f]{2}n|[s\u017f]oc", re.I))
GATES = {
    "UrlRecognizer": (re.compile(r"\.[a-zA-Z\u017f\u212a]{2}"),),  # two letters, for IGNORECASE these two among them
    "IbanRecognizer": (re.compile(r"(?<!(?-i:[A-Z0-9]))[A-Z]{2}[0-9]{2}(?:-?[A-Z0-9]{4})?(?:\Z|-?[A-Z0-9]{4})", re.I),),
    "Keys": (
        re.compile(
            r"A[KSBC][IC]A|gh[pousr]_|github_pat_|gl[a-z]+-|xox|xapp|[srp]k_|whsec_|sk-|AIza|GOCSPX|ya29|hf_|pypi-|npm_|"
            r"SG\.|(?:AC|SK)[0-9a-f]{32}|[MNO][\w-]{23}|:AA|eyJ",
            re.ASCII,
        ),
    ),
    "PrivateKeys": (re.compile("-----BEGIN"),),
    "Passwords": (PASSWORD,),
    "PasswordsBefore": (PASSWORD,),
    "LabelledKeys": KEYS,
    "KeysBefore": KEYS,
    "AddressSecrets": (re.compile(r"://[^\s/:@]+:[^\s/@]+@"),),
    "MedicalRecords": RECORDS,
    "RecordsBefore": RECORDS,
    "LabelledIds": IDS,
    "IdsBefore": IDS,
    "LabelledSsns": SSNS,
    "SsnsBefore": SSNS,
    "DatesOfBirth": (
        re.compile(r"\d[/.-]\d|(?:19|20)\d{2}|\d{8}"),
        re.compile("b.rth|born|o\\.?b(?![a-z])|\\bb\\b", re.I),
    ),
    "StreetAddresses": (re.compile(r"\d[A-Za-z]?\Z"), re.compile(rf"\b{patterns.STREET}\b")),
}
"""Name of a recogniser → see search.py. Every top-level domain begins with two letters; an IBAN with two letters and
two digits, and then come twice four more of either, each perhaps after a hyphen or a space."""


class PatternTimeoutError(RuntimeError):
    """A regular expression took longer than Presidio's REGEX_TIMEOUT_SECONDS."""


class _Timeouts(logging.Handler):
    """Turns the warning with which Presidio passes over a slow pattern into an exception; shows nothing."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and isinstance(record.exc_info[1], TimeoutError):
            raise PatternTimeoutError("a pattern timed out")


def presidio_kinds() -> dict[str, list[Any]]:
    """Entity → Presidio's recognisers of it that need no model, of every country."""
    kinds: dict[str, list[Any]] = {}
    for name in sorted(predefined_recognizers.__all__):
        kind = getattr(predefined_recognizers, name)
        arguments = inspect.signature(kind.__init__).parameters if inspect.isclass(kind) else {}
        if "supported_entity" in arguments:
            kinds.setdefault(arguments["supported_entity"].default, []).append(kind)
    return kinds


def countries() -> dict[str, list[str]]:
    """Country → the entities of its own identifiers that Presidio knows."""
    found: dict[str, list[str]] = {}
    for entity, kinds in presidio_kinds().items():
        country = getattr(kinds[0], "COUNTRY_CODE", None)
        if country and entity not in NO_IDENTIFIERS:
            found.setdefault(country, []).append(entity)
    return dict(sorted(found.items()))


def national_ids(language: str, locales: list[str], named: list[str]) -> list[EntityRecognizer]:
    """Presidio's recognisers of the identifiers of `locales`, but for those that are `named` themselves."""
    known = countries()
    for locale in locales:
        if locale not in known:
            raise InputError(f"params.yaml, scrub.locales: nothing is known of {locale}; choose of {', '.join(known)}")
    entities = [entity for locale in locales for entity in known[locale] if entity not in named]
    return [
        kind(supported_language=language, supported_entity=NATIONAL_ID)
        for entity in entities
        for kind in presidio_kinds()[entity]
    ]


def recognisers_of(entity: str, language: str) -> list[EntityRecognizer]:
    """The recognisers of one entity that need no model."""
    stock = [kind(supported_language=language) for kind in presidio_kinds().get(entity, [])]
    ours = patterns.OURS.get(entity)
    if ours is None:
        return stock
    return [*(stock if entity in patterns.BESIDE_STOCK else []), *ours(language)]


class Analyser:
    """Finds the given entities in texts.

    names: as in params.yaml. Raises InputError on entities and locales that nobody knows and models that are not there;
    what its `find` raises is a recogniser's failure.
    """

    def __init__(
        self, language: str, entities: list[str], threshold: float, names: str, locales: list[str] | None = None
    ) -> None:
        known = sorted({*models.ENTITIES, *patterns.OURS, *presidio_kinds(), NATIONAL_ID})
        for entity in entities:
            if entity not in known:
                near = " or ".join(difflib.get_close_matches(entity, known, cutoff=0.4)) or "PERSON"
                raise InputError(f"params.yaml, scrub.entities: nothing finds {entity}; did you mean {near}?")
        logger = logging.getLogger("presidio-analyzer")
        logger.handlers, logger.propagate = [_Timeouts()], False
        logger.setLevel(logging.WARNING)
        tldextract.tldextract.TLD_EXTRACTOR = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)
        words, recognisers = models.model_of(names, language, entities)
        recognisers += [found for entity in entities for found in recognisers_of(entity, language)]
        if names == "lists" and "PERSON" in entities:
            recognisers.append(patterns.listed_names(language))
        if NATIONAL_ID in entities:
            recognisers += national_ids(language, locales or [], entities)
        covered = {entity for recogniser in recognisers for entity in recogniser.get_supported_entities()}
        self.not_covered = [entity for entity in models.ENTITIES if entity not in covered]
        enhancer = LemmaContextAwareEnhancer(context_matching_mode="whole_word", context_suffix_count=CONTEXT_AFTER)
        self.search = Search(recognisers, threshold, words, enhancer, GATES, in_plain_signs=True)

    def find(self, text: str) -> list[Finding]:
        """The findings from the threshold on, by position; they may overlap."""
        return self.search.find(text)
