"""What sources cannot give: an error where the mixture cannot be made, else warnings of what it lacks."""

import polars as pl

from stages.common.errors import InputError
from stages.common.params import Source


def explain_empty(rows: pl.DataFrame) -> str:
    """Why no row of a source is left to train on; rows are the prepared rows of that source."""
    counts = {
        "too long for mix.max_length_tokens": rows.filter(~pl.col("fits")).height,
        "held out": rows.filter("fits", ~pl.col("trainable")).height,
        "beyond its cap": rows.filter("capped").height,
    }
    return ", ".join([f"rows that came {rows.height}", *(f"{name} {count}" for name, count in counts.items() if count)])


def check_supply(rows: pl.DataFrame, sources: list[Source], available: dict[str, int]) -> None:
    """Raises InputError where a source of one kind has a share but no row, or where only such are left to divide.

    rows: prepared ones; available: what each source that has rows to train on can give.
    """
    for kind in dict.fromkeys(source.kind for source in sources):
        of_kind = [source for source in sources if source.kind == kind]
        rest = [source for source in of_kind if source.share is None]
        short = [source for source in of_kind if source.share and not available.get(source.name)]
        if not short and not any(available.get(source.name) for source in rest):
            short = rest
        if not short:
            continue
        told = "; ".join(
            f"{source.name}: {explain_empty(rows.filter(pl.col('source') == source.name))}" for source in short
        )
        if any(available.get(source.name) for source in of_kind):
            advice = "let rows of it through, or take it out of `sources` and give its share to the others"
        else:
            advice = f"no source of this kind has any: let rows through, or take the kind {kind} out of `sources`"
        raise InputError(f"params.yaml, sources: no {kind} row to train on is left ({told}); {advice}")


def find_limiting(of_kind: pl.DataFrame) -> str | None:
    """The source that, at its share, keeps the others of its kind from giving all they have; None: no source does.

    of_kind: the described plan of these sources.
    """
    most = pl.col("available") * pl.col("repeats")
    able = of_kind.filter(pl.col("planned") > 0)
    given_up = able.filter(pl.col("target") < most * (1 - 1e-9))
    at_its_end = able.filter((pl.col("target") - most).abs() <= most * 1e-9)
    return at_its_end["source"][0] if at_its_end.height and given_up.height else None


def list_warnings(
    rows: pl.DataFrame, described: pl.DataFrame, sources: list[Source], shares: dict[str, float], unit: str
) -> list[str]:
    """What the mixture lacks, a sentence each.

    rows: prepared ones with group; described: the plan with what came of it; shares: to be held out of each kind. Of a
    source that is switched off by a share of 0 nothing is said.
    """
    told = []
    wanted = [source.name for source in sources if source.share != 0]
    for line in described.filter(pl.col("source").is_in(wanted)).iter_rows(named=True):
        name, planned, target = line["source"], line["planned"], line["target"]
        own = rows.filter(pl.col("source") == name)
        if not line["available"]:
            told.append(f"{name} gives no row to train on ({explain_empty(own)})")
        elif planned and not line["rows"]:
            told.append(f"{name} gives no row: {target:.0f} {unit} are less than half of its first row")
        elif line["unmet"] > 0:
            told.append(f"{name} ran out: it gives {line['realised']:.1%} of the {unit} instead of {planned:.1%}")
        share = shares[line["kind"]]
        if share and own.height and not (own["split"] == "heldout").any():
            sizes = own.group_by("group").len()["len"].sort().to_list()
            told.append(
                f"{name} holds nothing out: {share:.0%} of its {own.height} rows is {share * own.height:.1f}, and its "
                f"groups of one subject, prompt or cluster have {sizes[0]} to {sizes[-1]} rows"
            )
    return told
