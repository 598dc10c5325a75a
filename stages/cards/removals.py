"""What each data stage took out or changed, and why, in words."""

from typing import Any, NamedTuple

from stages.cards.inputs import Facts
from stages.cards.wording import short_count

FILTERED = {
    "empty": "a reply without content",
    "echo": "the reply repeats the question",
    "too_short": "replies too short",
    "too_long": "replies too long",
    "language": "replies in another language",
    "repetition": "the reply repeats itself",
    "truncated": "the reply is cut off",
    "refusal": "the reply is a refusal",
}


class Removal(NamedTuple):
    """What a stage took out or changed for one reason."""

    number: int
    what: str
    short: str
    """As the drawing says it, with the number."""


def removal(number: int, what: str, short: str, sign: str = "−") -> Removal:
    """`what` and `short` with their {s} for the plural put in or left out."""
    s = "" if number == 1 else "s"
    return Removal(number, what.format(s=s), f"{sign}{short_count(number)} {short.format(s=s)}")


def removals(facts: Facts) -> list[dict[str, Any]]:
    """What each data stage took out or changed: stage, unit, rows_in, rows_out and its Removals."""
    metrics = facts.metrics
    pool, dedup, scrub, decontaminate, mix = (
        metrics[stage] for stage in ("pool", "dedup", "scrub", "decontaminate", "mix")
    )
    no_consent = sum(pool.get("no_consent", {}).values())
    left_out = {
        "too_long": "longer than the limit",
        "over_budget": "beyond a source’s share of the budget",
        "over_cap": "beyond the most that a source may give",
    }
    told = {
        "pool": [
            removal(pool["refused"] - no_consent, "malformed record{s} refused", "malformed"),
            removal(no_consent, "record{s} without consent refused", "without consent"),
            removal(pool["excluded"], "row{s} left out on request for deletion", "deleted on request"),
        ],
        "dedup": [
            removal(dedup["exact_duplicates"], "exact duplicate{s}", "exact duplicate{s}"),
            removal(dedup["near_duplicates"], "near duplicate{s}", "near duplicate{s}"),
            removal(dedup.get("swapped_labels", 0), "duplicate{s} with the opposite label", "opposite label{s}"),
        ],
        "scrub": [
            removal(scrub.get("changed", 0), "row{s} changed, personal data replaced", "row{s} changed", sign=""),
            removal(scrub["failed"], "row{s} that could not be searched, dropped", "not searchable"),
            removal(
                scrub["equal_replies"],
                "pair{s} whose replies differed in personal data alone, dropped",
                "equal pair{s}",
            ),
        ],
        "decontaminate": [
            *(
                removal(number, f"row{{s}} filtered: {FILTERED.get(reason, reason)}", reason.replace("_", " "))
                for reason, number in decontaminate["filtered"].items()
            ),
            removal(decontaminate["dropped"], "row{s} like an evaluation item, dropped", "like eval items"),
            removal(decontaminate["marked"], "row{s} like an evaluation item, marked and kept", "marked", sign=""),
        ],
        "mix": [
            removal(number, f"row{{s}} {left_out.get(reason, reason)}", reason.replace("_", " "))
            for reason, number in mix["left_out"].items()
        ],
    }
    return [
        {
            "stage": stage,
            "unit": "record" if stage == "pool" else "row",
            "rows_in": metrics[stage]["records_in" if stage == "pool" else "rows_in"],
            "rows_out": metrics[stage]["rows_out"],
            "lines": [line for line in lines if line.number] or [Removal(0, "nothing", "nothing removed")],
        }
        for stage, lines in told.items()
    ]
