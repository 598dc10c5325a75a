"""Hold the licences and consents of a mixture and its base model against the policy of params.yaml.

`settle` tells everything that the policy forbids, and what the model inherits where it forbids nothing: the licence
that it may bear and the duties that go with it. Where licences meet (after Creative Commons' chart of adaptations), one
must be left that every share-alike work allows; a work under it goes neither with a work that nobody may earn with,
unless it says the same, nor with one that adds conditions. It is no legal advice.
"""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice, product
from typing import Literal, NamedTuple

from pydantic import model_validator

from stages.common.licences import (
    Licence,
    Terms,
    UnknownLicenceError,
    find_licence,
    read_alternatives,
    read_table,
)
from stages.common.params import PARAMS_FILE, Attribution, Base, Params, Source, Use

NOT_RELEASED = "not to be released"
COMBINATIONS = 1000


class Policy(Params):
    """What the model is for, and which licences and consents it may be made under."""

    use: Use
    """commercial: it may earn money; research: it does not, in any way (what licences call non-commercial)."""
    release: Literal["public", "internal"]
    """public: the weights are passed on to others; internal: they stay in the house, so that no share-alike begins."""
    share_alike: Literal["refuse", "accept"]
    """Works whose licence the released model must then bear. accept: it does."""
    no_derivatives: Literal["refuse", "accept"]
    """Works of which no adaptation may be made or passed on. accept: you answer for it that a model is none."""
    consents: list[str]
    """Grounds on which data may be used; the `consent` of each source is one of them."""
    licences: dict[str, Terms]
    """Terms that no table knows, by the name that sources give: a contract, a data set's own terms."""

    @model_validator(mode="after")
    def _licences_are_told_apart(self) -> "Policy":
        known, aliases = read_table()
        for name, terms in self.licences.items():
            if name.strip().lower() in known or name.strip().lower() in aliases:
                raise ValueError(f"licences.{name} is a known licence, whose terms are not yours to set; rename yours")
            for other in terms.share_alike:
                try:
                    find_licence(other, self.licences)
                except UnknownLicenceError as error:
                    raise ValueError(f"licences.{name}.share_alike: {error}") from None
        return self


@dataclass(frozen=True)
class Work:
    """The base model or a source: what goes into the model."""

    key: str
    """Its place in params.yaml: `base`, `sources.NAME`."""
    name: str
    licence: str
    """As params.yaml writes it."""
    attribution: Attribution | None
    uses: list[Use] | None
    consent: str | None
    """None for the base model, of which no consent is asked."""


class Settled(NamedTuple):
    """What comes of a mixture's licences."""

    conflicts: list[str]
    """What the policy forbids, a line each that ends in what to do."""
    chosen: dict[str, tuple[Licence, ...]]
    """Key of a work → the licences that it is used under, one alternative of its expression."""
    model_licence: str
    """What the model may bear: an expression, or NOT_RELEASED."""
    duties: list[str]
    """What goes with the model, a sentence each; naming the authors is not among them."""


def list_works(base: Base, sources: Iterable[Source]) -> list[Work]:
    """The base model and the sources that give something; one with a share of 0 gives nothing."""
    name = base.attribution.title if base.attribution else base.model
    works = [Work("base", name, base.licence, base.attribution, None, None)]
    return works + [
        Work(f"sources.{each.name}", each.name, each.licence, each.attribution, each.uses, each.consent)
        for each in sources
        if each.share != 0
    ]


def settle(policy: Policy, works: Sequence[Work]) -> Settled:
    """All conflicts of the works with the policy and with one another, and what the model inherits."""
    conflicts: list[str] = []
    allowed: dict[str, list[tuple[Licence, ...]]] = {}
    for work in works:
        conflicts += find_consent_conflicts(work, policy)
        try:
            alternatives = read_alternatives(work.licence, policy.licences)
        except UnknownLicenceError as error:
            conflicts.append(tell(f"{work.key}.licence", str(error)))
            continue
        judged = [(find_conflicts(work, each, policy), tuple(each)) for each in alternatives]
        judged.sort(key=lambda pair: (len(pair[0]), count_duties(pair[1])))
        conflicts += judged[0][0]
        if not judged[0][0]:
            allowed[work.key] = [licences for problems, licences in judged if not problems]
    chosen = choose_alternatives(allowed, policy.release == "public")
    pairs = list_pairs(chosen)
    if policy.release == "internal":
        return Settled(conflicts, chosen, NOT_RELEASED, list_duties(pairs, policy, NOT_RELEASED))
    model_licence, clashes = combine(pairs)
    return Settled(conflicts + clashes, chosen, model_licence, list_duties(pairs, policy, model_licence))


def list_pairs(chosen: Mapping[str, tuple[Licence, ...]]) -> list[tuple[str, Licence]]:
    return [(key, licence) for key, licences in chosen.items() for licence in licences]


def choose_alternatives(
    allowed: Mapping[str, Sequence[tuple[Licence, ...]]], released: bool
) -> dict[str, tuple[Licence, ...]]:
    """For each work the easiest alternative of its expression; where licences of a released model clash, those of the
    first COMBINATIONS that clash least."""
    ways = (dict(zip(allowed, way, strict=True)) for way in product(*allowed.values()))
    first = next(ways)
    if not released or not combine(list_pairs(first))[1]:
        return first
    return min(chain([first], islice(ways, COMBINATIONS)), key=lambda way: len(combine(list_pairs(way))[1]))


def tell(key: str, text: str) -> str:
    return f"{PARAMS_FILE}, {key}: {text}"


def find_consent_conflicts(work: Work, policy: Policy) -> list[str]:
    """Lines where nobody agreed to what the policy wants, by consent or by contract."""
    found = []
    if work.consent is not None:
        given = {" ".join(consent.lower().split()): consent for consent in policy.consents}
        wanted = " ".join(work.consent.lower().split())
        if not wanted:
            found.append(
                tell(f"{work.key}.consent", "empty; say on what ground the data may be used, and name it under policy")
            )
        elif wanted not in given:
            near = difflib.get_close_matches(wanted, given, n=1, cutoff=0.7)
            hint = f", did you mean '{given[near[0]]}'?" if near else ""
            found.append(
                tell(
                    f"{work.key}.consent",
                    f"'{work.consent}' is none of policy.consents{hint}; name it there if it covers {policy.use} use, "
                    f"else {drop(work)}",
                )
            )
    if work.uses is not None and policy.use not in work.uses:
        allowed = " and ".join(work.uses) or "no"
        found.append(
            tell(f"{work.key}.uses", f"allows {allowed} use alone, and policy.use is {policy.use}; {drop(work)}")
        )
    return found


def drop(work: Work) -> str:
    return "choose another base model" if work.consent is None else "set its share to 0 or take it out"


def find_conflicts(work: Work, licences: Sequence[Licence], policy: Policy) -> list[str]:
    """Lines where licences that bind together forbid what the policy wants."""
    found = []
    for name, terms in licences:
        if policy.use == "commercial" and not terms.commercial_use:
            found.append(
                f"{name} forbids commercial use, and policy.use is commercial; {drop(work)}, or get other terms from "
                "its owner"
            )
        if policy.no_derivatives == "refuse" and terms.derivatives == "none":
            found.append(f"{name} forbids to make adaptations, as which a model may count; {drop(work)}")
        if policy.no_derivatives == "refuse" and terms.derivatives == "internal" and policy.release == "public":
            found.append(
                f"{name} forbids to pass adaptations on, as which a model may count, and policy.release is public; "
                f"{drop(work)}, or keep the model in the house (policy.release: internal)"
            )
        if policy.share_alike == "refuse" and terms.share_alike and policy.release == "public":
            found.append(
                f"{name} is share-alike: a released model must bear {' or '.join(terms.share_alike)}; {drop(work)}, or "
                "set policy.share_alike to accept if it may"
            )
    lines = [tell(f"{work.key}.licence", text) for text in found]
    naming = [name for name, terms in licences if terms.attribution]
    if naming and work.attribution is None and policy.release == "public":
        lines.append(
            tell(
                f"{work.key}.attribution",
                f"missing; {' and '.join(naming)} asks to name the author: give title, author and link",
            )
        )
    return lines


def count_duties(licences: Sequence[Licence]) -> int:
    """How much goes with a model: by this the easiest alternative of an expression is chosen."""
    return sum(
        4 * bool(terms.share_alike)
        + 4 * (terms.derivatives != "shared")
        + 2 * (not terms.commercial_use)
        + 2 * bool(terms.conditions)
        + terms.attribution
        for _, terms in licences
    )


def combine(pairs: Sequence[tuple[str, Licence]]) -> tuple[str, list[str]]:
    """The licence that a released model may bear, and a line for each two works that leave none.

    pairs: key of a work and a licence of it, the base model's first.
    """
    binding = [(key, licence) for key, licence in pairs if licence.terms.share_alike]
    clashes: list[str] = []
    left: list[str] = []
    holder: tuple[str, Licence] | None = None
    for key, licence in binding:
        wanted = list(licence.terms.share_alike)
        if holder is None:
            left, holder = wanted, (key, licence)
        elif both := [each for each in left if each in wanted]:
            left = both
        else:
            clashes.append(clash(holder, (key, licence), "each wants a licence of its own for the model"))
    if holder is None:
        bound = [each.name for _, each in pairs if each.terms.conditions or not each.terms.commercial_use]
        of_base = [each.name for key, each in pairs if key == pairs[0][0]]
        return " AND ".join(dict.fromkeys(bound or of_base)), clashes
    for key, licence in pairs:
        conditions, free = licence.terms.conditions, licence.terms.commercial_use
        if licence.terms.share_alike:
            continue
        if conditions:
            clashes.append(clash(holder, (key, licence), "the one lets nobody add conditions, the other has some"))
        elif not free and holder[1].terms.commercial_use:
            clashes.append(
                clash(holder, (key, licence), "the one lets everybody earn with the model, the other nobody")
            )
    return left[0], clashes


def clash(one: tuple[str, Licence], other: tuple[str, Licence], why: str) -> str:
    (key, licence), (other_key, other_licence) = one, other
    keys = f"{key}.licence and {other_key}.licence"
    return tell(
        keys,
        f"{licence.name} and {other_licence.name} cannot both go into a released model: {why}; drop one of the two, or "
        "keep the model in the house (policy.release: internal)",
    )


def list_duties(pairs: Sequence[tuple[str, Licence]], policy: Policy, model_licence: str) -> list[str]:
    """What goes with the model beside naming the authors, a sentence each."""
    internal = policy.release == "internal"

    def names(found: Iterable[Licence]) -> str:
        return ", ".join(dict.fromkeys(each.name for each in found))

    licences = [licence for _, licence in pairs]
    duties = []
    if internal:
        duties.append("The model stays in the house (policy.release is internal).")
    if shared := names(each for each in licences if each.terms.share_alike):
        duties.append(
            f"Share-alike ({shared}): "
            + ("begins as soon as the model leaves it." if internal else f"the model bears {model_licence}.")
        )
    if barred := names(each for each in licences if not each.terms.commercial_use):
        duties.append(f"Nobody may earn with the model ({barred}).")
    if kept := names(each for each in licences if each.terms.derivatives != "shared"):
        why = "the model is kept in the house" if internal else "policy.no_derivatives takes a model for none"
        duties.append(f"Adaptations must not be passed on ({kept}): {why}.")
    terms = {each.name: each.terms.conditions for each in licences if each.terms.conditions}
    return duties + [f"{name}: {conditions}." for name, conditions in terms.items()]
