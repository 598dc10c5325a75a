"""The report on a deletion in words, for who signs it: reports/forget_<request>.md out of what proof.py found."""

from collections.abc import Iterator
from typing import Any

from pedigree.layout import show_bytes

SHOWN = 5
FEW = 10  # rows
BLANK = "&nbsp;" * 16  # room to write
WAYS = {
    "row": "by their id",
    "subject": "as the subject's own",
    "beside": "since the subject speaks in them",
    "source": "with their source",
    "content": "by their text, under an id that is not on the list",
}
MODELS = {
    "sft": "models/sft: fine-tuned on",
    "align": "models/align: tuned on, beyond what models/sft was",
    "quantized": "models/quantized: calibrated with, beyond what the model was trained on that it is made of",
}
NAMES = {"text": "the text", "chosen": "the better reply", "rejected": "the worse reply"}
GROUPS = {"forgotten": "deleted rows", "heldout": "rows that no model was trained on"}


def render(report: dict[str, Any]) -> str:
    """The report for who signs it."""
    number, tables = report["excluded"]["row"], report["tables_searched"]
    rows = f"{count(number, 'row')} of this request {'stands' if number == 1 else 'stand'}"
    lines = [
        f"# Deletion request {report['request']}",
        "",
        f"**Result:** the {rows} in none of the {tables} tables of this version: not in its data, not in what its "
        "models were trained on, not in what they were calibrated with. The raw files and older versions may still "
        "hold them: see [what remains](#what-remains).",
        "",
        "A row is one example that a model may learn from. Rows are named by keyed digests; no text of a row and no "
        "name of a person stands here.",
        "",
        *render_request(report),
        *render_versions(report),
        *render_models(report),
        *render_likelihood(report["likelihood"]),
        *render_open(report),
        *render_remains(report),
        "## Sign-off",
        "",
        "I have checked the result. What remains was deleted, or is kept on the ground that is written beside it.",
        "",
        *pipe_table(["Name", "Role", "Date", "Signature"], [[BLANK] * 4]),
    ]
    return "\n".join(lines)


def render_request(report: dict[str, Any]) -> list[str]:
    named = ", ".join(count(number, kind) for kind, number in report["excluded"].items() if number)
    lines = ["## What the request reaches", "", f"On the exclusion list (data/raw/exclusions.jsonl): {named}."]
    if report["excluded"]["subject"]:
        lines.append("Records of the subject that come later are left out, too.")
    if report["rows_of_sources"]:
        lines += ["", *pipe_table(["source", "rows, duplicates included"], report["rows_of_sources"].items())]
    if ways := report["left_out_by_pool"]:
        told = ", ".join(f"{number} {WAYS[way]}" for way, number in ways.items())
        lines += ["", f"Left out when the raw files were read for this version: {told}."]
    return [*lines, ""]


def render_versions(report: dict[str, Any]) -> list[str]:
    lines = [
        [when, report[when]["commit"] or missing, report[when]["dvc_lock"] or "not known"]
        for when, missing in (("before", "not known"), ("after", "not committed yet"))
    ]
    told = ["## Versions", "", *pipe_table(["", "git commit", "sha256 of dvc.lock"], lines), ""]
    if not report["tables_of_before"]:
        told += ["The tables of before are out of reach; what is said of them an earlier report knew, or nobody.", ""]
    return told


def render_models(report: dict[str, Any]) -> list[str]:
    if not report["trained_before"]:
        return []
    lines = [
        [MODELS[model], number, report["trained_after"].get(model, "no such model")]
        for model, number in report["trained_before"].items()
    ]
    head = ["rows of the request that were used", "before", "after"]
    told = (
        "A model that used any of them was made anew without them, from models/base on; nothing was unlearned. What "
        "models/base was trained on, its maker knows."
    )
    return ["## Models", "", *pipe_table(head, lines), "", told, ""]


def render_likelihood(likelihood: dict[str, dict[str, Any]]) -> list[str]:
    """Scores as a table, and in words what was not compared."""
    lines = ["## How likely the models find the text", ""]
    scores, notes = [], []
    for model, found in likelihood.items():
        if "why" in found:
            notes.append(f"models/{model}: not compared ({found['why']}).")
            continue
        few = ", too few for more than an impression" if found["scored"] < FEW else ""
        notes.append(
            f"models/{model}: of {count(found['rows'], 'deleted row')} that trained it {found['scored']} scored{few}, "
            f"beside {found['compared_with']} held out."
        )
        for group, parts in found["before"].items():
            for part, before in parts.items():
                after = found["after"][group][part]
                scores.append([f"models/{model}", GROUPS[group], NAMES[part], f"{before:.3f}", f"{after:.3f}"])
    if scores:
        head = ["model", "rows", "scored", "before", "after"]
        lines += ["Mean negative log-likelihood of a token, in nats; a lower number is a likelier text.", ""]
        lines += [*pipe_table(head, scores), ""]
        lines += ["Evidence, not proof: what is still likely after, the model has from other rows.", ""]
    notes.append(
        "Never compared: models/quantized (the model before it in fewer bits), and rows that trained no model."
    )
    return [*lines, *(f"- {note}" for note in notes), ""]


def render_open(report: dict[str, Any]) -> list[str]:
    """What somebody should look at before signing."""
    edited = [f"{row['row_id']} (similarity {row['similarity']:.2f})" for row in report["in_their_place"] if row["of"]]
    moved = [row["row_id"] for row in report["in_their_place"] if not row["of"]]
    found = {
        "Rows of the list that match no record any more, since it was deleted, edited, or its source is no longer "
        "read": report["match_no_record"],
        "Rows with another text that came in the place of one, and are used; see whether the person is out of them "
        "by `pedigree trace`": edited,
        "Rows that stand where one stood, and are used; they were edited, or moved up as others were deleted": moved,
        "Rows with the very same text that stay, as was asked": report["equal_texts_that_stay"],
    }
    lines = [
        f"- {what}: {len(rows):,} ({', '.join(rows[:SHOWN])}{', ...' * (len(rows) > SHOWN)})."
        for what, rows in found.items()
        if rows
    ]
    return ["## To look at", "", *lines, ""] if lines else []


def render_remains(report: dict[str, Any]) -> list[str]:
    lines = ["## What remains", ""]
    if report["purged"]:
        lines += ["Deleted from this disk:", "", *(f"- {what}" for what in report["purged"]), ""]
    head = ["what", "holds", "how it goes", "done on, or kept because"]
    lines += [f"`--purge` is `pedigree forget --request {report['request']} --prove --purge`.", ""]
    return [*lines, *pipe_table(head, ([*line, BLANK] for line in list_remains(report))), ""]


def list_remains(report: dict[str, Any]) -> Iterator[list[str]]:
    for name, number in report["records_in_raw_files"].items():
        held = "is here, read by no source" if number is None else f"{count(number, 'row')} of the request"
        yield [f"raw file {name}", held, "delete the records in the file; pool leaves them out until then"]
    for name, commits in report["raw_files_in_git"].items():
        told = f"`git filter-repo --path {name} --invert-paths` takes it out of every commit; add the cleaned one anew"
        yield [f"git history of {name}", f"the file in {count(commits, 'commit')}", told]
    for what in ("table", "model"):
        copies = [copy for copy in report["cache"] if copy["what"] == what]
        if copies:
            size, unused = show_bytes(sum(copy["bytes"] for copy in copies)), sum(not copy["in_use"] for copy in copies)
            told = f"{count(len(copies), what)} of older versions, {size}"
            told += f"; {len(copies) - unused} of them still used" if unused < len(copies) else ""
            yield ["DVC's cache on this disk", told, "`--purge`"]
    for name, size in report["beside"].items():
        yield [name, f"{show_bytes(size)} of earlier runs, not looked into", "`--purge`"]
    for name in report["experiments"]:
        yield [f"experiment {name}", "an older version", "`--purge`"]
    for name in report["remotes"]:
        yield [f"remote {name}", "not looked into", f"`dvc push`, then `dvc gc --workspace --cloud --remote {name}`"]
    yield [
        "clones, backups, models that were given away, sources at other addresses",
        "not known here",
        "by their owners",
    ]


def count(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"


def pipe_table(head: list[str], lines: Any) -> list[str]:
    cells = [head, ["---"] * len(head), *([str(cell) for cell in line] for line in lines)]
    return [f"| {' | '.join(line)} |" for line in cells]
