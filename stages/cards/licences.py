"""What the card says of licences: the policy in force, whom to name for what, and what goes with the model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from stages.cards.inputs import Facts
from stages.cards.wording import base_name, joined, percent
from stages.common.errors import InputError
from stages.common.licences import Licence
from stages.common.params import Attribution, Base, validate
from stages.common.policy import Policy, Work, list_works, settle

USES = {"commercial": "commercial use", "research": "research alone, nobody earns with it"}
RELEASES = {"public": "the weights are passed on to others", "internal": "the weights stay in the house"}


@dataclass(frozen=True)
class Credit:
    """A work, or several sources of one work under one licence."""

    title: str
    author: str
    link: str
    licence: str
    """As params.yaml writes it."""
    terms: tuple[Licence, ...]
    """What it is used under: of a choice, the one that was made."""
    sources: tuple[str, ...]
    """Empty for the base model."""
    consents: tuple[str, ...]
    rows: int
    share: float
    """Of all tokens that the model was trained on."""

    @property
    def used_as(self) -> str:
        return " AND ".join(each.name for each in self.terms)


def describe_licences(facts: Facts) -> dict[str, Any]:
    """What the section shows: policy, credits, unused, unread, duties, model_licence, notice.

    Raises InputError where the mixture was made under another policy than params.yaml holds.
    """
    policy: Policy = validate(Policy, "policy", facts.params["policy"])
    base: Base = validate(Base, "base", facts.params["base"])
    works = list_works(base, facts.sources)
    settled = settle(policy, works)
    mixed = facts.metrics["mix"]
    if settled.conflicts or (settled.model_licence, settled.duties) != (mixed["model_licence"], mixed["duties"]):
        raise InputError(
            "metrics/mix.json: was made under other licences than params.yaml names; run `dvc repro mix`"
            if not settled.conflicts
            else "\n".join(settled.conflicts)
        )
    taken = {line["source"]: line for line in facts.curves["mix"].iter_rows(named=True)}
    unread = [
        source.name for source in facts.sources if source.kind not in facts.kinds_read and taken[source.name]["rows"]
    ]
    taken = {name: line for name, line in taken.items() if line["rows"] and name not in unread}
    used = [work for work in works if work.consent is None or work.name in taken]
    credits = gather_credits(used, settled.chosen, taken, base)
    return {
        "policy": describe_policy(policy),
        "by_licence": joined([f"{name} {percent(share)}" for name, share in share_by_licence(credits).items()]),
        "credits": credits,
        "unused": [source.name for source in facts.sources if source.name not in {*taken, *unread}],
        "unread": unread,
        "no_consent": {name: number for name, number in facts.metrics["pool"].get("no_consent", {}).items() if number},
        "duties": settled.duties,
        "model_licence": settled.model_licence,
        "notice": write_notice(credits, settled.model_licence) if policy.release == "public" else "",
    }


def share_by_licence(credits: Sequence[Credit]) -> dict[str, float]:
    """Name of the licences that a work is used under → share of the tokens that the model was trained on."""
    shares: dict[str, float] = {}
    for credit in credits:
        if credit.sources:
            shares[credit.used_as] = shares.get(credit.used_as, 0.0) + credit.share
    return dict(sorted(shares.items()))


def describe_policy(policy: Policy) -> str:
    """The policy in one sentence."""
    taken = [
        name for name, choice in (("share-alike", policy.share_alike), ("no-derivatives", policy.no_derivatives))
        if choice == "accept"
    ]  # fmt: skip
    accepted = f"works that are {joined(taken)} are accepted" if taken else "share-alike and no-derivatives are refused"
    own = f"; terms of its own for {joined(list(policy.licences))}" if policy.licences else ""
    return (
        f"Made for {USES[policy.use]}; {RELEASES[policy.release]}; {accepted}{own}. "
        f"Grounds on which data may be used: {joined(policy.consents) or 'none'}."
    )


def gather_credits(
    works: Sequence[Work], chosen: dict[str, tuple[Licence, ...]], taken: dict[str, dict[str, Any]], base: Base
) -> list[Credit]:
    """One credit a work, the base model first; sources with one attribution and one licence share theirs."""
    groups: dict[tuple[Any, ...], list[Work]] = {}
    for work in works:
        named = work.attribution or Attribution(
            title=work.name if work.consent is not None else base_name(base.model), author="unnamed", link=None
        )
        key = (work.consent is None, named.title, named.author, named.link or "", work.licence)
        groups.setdefault(key, []).append(work)
    tokens = sum(line["tokens"] for line in taken.values()) or 1
    credits = []
    for (is_base, title, author, link, licence), members in groups.items():
        lines = [] if is_base else [taken[work.name] for work in members]
        credits.append(
            Credit(
                title=title,
                author=author,
                link=link,
                licence=licence,
                terms=chosen[members[0].key],
                sources=() if is_base else tuple(work.name for work in members),
                consents=tuple(dict.fromkeys(work.consent for work in members if work.consent)),
                rows=sum(line["rows"] for line in lines),
                share=sum(line["tokens"] for line in lines) / tokens,
            )
        )
    return credits


def write_notice(credits: Sequence[Credit], model_licence: str) -> str:
    """The text to pass on with the model: title, author, source and licence of what asks for it, and the changes."""
    lines = [f"Licence: {model_licence}. This model was made from:", ""]
    for credit in credits:
        if any(licence.terms.attribution for licence in credit.terms):
            where = f" ({credit.link})" if credit.link else ""
            licences = ", ".join(f"{licence.name}, {licence.terms.url}" for licence in credit.terms)
            lines.append(f"- {credit.title}, by {credit.author}{where}; licence {licences}")
    if len(lines) == 2:
        return ""
    changes = "the weights were trained further and quantized; in the texts personal data was replaced before training"
    return "\n".join([*lines, "", f"Changes: {changes}. No author endorses the model."])
