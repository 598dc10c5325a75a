"""The report on a deletion in words, for who signs it: reports/forget_<request>.md out of what erasure.py found."""

from typing import Any

from pedigree.layout import show_bytes


def render(report: dict[str, Any]) -> str:
    """The report for who signs it."""
    counts = ", ".join(f"{count} {kind}{'s' * (count != 1)}" for kind, count in report["excluded"].items() if count)
    lines = [
        f"# Request {report['request']}",
        "",
        f"On the exclusion list: {counts}. None of these rows stands in any of the {report['tables_searched']} tables "
        "of this version, nor in what its models were trained on and calibrated with.",
        "",
    ]
    if not report["tables_of_before"]:
        lines += [
            "The tables of before are out of reach: what follows of them is from an earlier report, or not known.",
            "",
        ]
    if report["match_no_record"]:
        lines += [f"{len(report['match_no_record'])} of them match no record any more: it was deleted, or changed.", ""]
    if report["at_the_same_place"]:
        same = ", ".join(report["at_the_same_place"][:5])
        lines += [f"At the same places of the raw files other rows stand now, look at them: {same}.", ""]
    if report["equal_texts_that_stay"]:
        same = ", ".join(report["equal_texts_that_stay"][:5])
        lines += [f"Rows with the very same text that stay, as was asked: {same}.", ""]
    lines += [*render_likelihood(report["likelihood"]), "## What remains", ""]
    lines += [f"- deleted: {what}" for what in report["purged"]]
    for name, count in report["records_in_raw_files"].items():
        lines.append(f"- {name}: still holds {count} of the records; pool leaves them out, only you can delete them")
    for name, commits in report["raw_files_in_git"].items():
        lines.append(f"- {name}: git holds it in {commits} commits; rewriting history (git filter-repo) takes it out")
    for what in ("table", "model"):
        copies = [copy for copy in report["cache"] if copy["what"] == what]
        if copies:
            unused, size = sum(not copy["in_use"] for copy in copies), show_bytes(sum(copy["bytes"] for copy in copies))
            told = f"{len(copies)} {what}s with rows of the request ({size}), {unused} of them not used by this version"
            lines.append(f"- DVC's cache: {told}; --purge deletes those")
    lines += [
        f"- {name}: {show_bytes(size)} of earlier runs; --purge deletes it" for name, size in report["beside"].items()
    ]
    lines += [f"- experiment {name}; --purge deletes it" for name in report["experiments"]]
    for name in report["remotes"]:
        lines.append(f"- remote {name}: push this version, then `dvc gc --workspace --cloud --remote {name}`")
    lines += ["- sources at another address, clones, backups, models that were given away: not known here", ""]
    return "\n".join([*lines, "Signed off by: ____________________", ""])


def render_likelihood(likelihood: dict[str, dict[str, float]]) -> list[str]:
    lines = ["## Likelihood", ""]
    if not likelihood:
        return [*lines, "Not measured: no SFT row of the request trained the model before, or that model is gone.", ""]
    lines += ["Negative log-likelihood of a token under models/sft, nats; lower is likelier.", ""]
    lines += ["| rows | model before | model after |", "|---|---|---|"]
    for group in ("forgotten", "heldout"):
        lines.append(f"| {group} | {likelihood['before'][group]:.3f} | {likelihood['after'][group]:.3f} |")
    return [*lines, "", "Evidence, not proof: what is still likely after, the model has from other rows.", ""]
