"""pedigree forget: a request for deletion, from the rows that it means to the proof that they are gone.

    pedigree forget --subject - --request 2026-014            # what it would reach: rows, duplicates, models
    pedigree forget --subject - --request 2026-014 --write    # onto the exclusion list, which pool honours
    dvc repro
    pedigree forget --request 2026-014 --prove [--purge]      # absence, evidence, what remains; reports/forget_*.md

A subject is excluded for good: records of theirs that come later go too. A row that is excluded takes its duplicates
with it, as else the nearest of them would step into its place; --keep-duplicates leaves them, and names them.
"""

import argparse
import json
import subprocess
from typing import Any

import polars as pl

from pedigree.journey import carriers, find_origins, follow
from pedigree.layout import table
from pedigree.snapshot import Snapshot
from pedigree.trace import check_whole, choose_rows, digest_of, read_value, sum_up
from stages.common.errors import InputError
from stages.common.exclusions import FILE, Exclusion, read_exclusions
from stages.common.files import write_text

SHOWN = 20


def duplicates_of(snapshot: Snapshot, ids: pl.Series) -> pl.DataFrame:
    """row_id, of, similarity: rows outside `ids` that share a cluster with one of them."""
    clusters = snapshot.scan("data/clusters/clusters.parquet")
    if clusters is None:
        return pl.DataFrame(schema={"row_id": pl.String, "of": pl.String, "similarity": pl.Float64})
    mine = clusters.filter(pl.col("row_id").is_in(ids.implode())).select("cluster", of="row_id")
    others = clusters.filter(~pl.col("row_id").is_in(ids.implode())).select("cluster", "row_id", "similarity")
    return others.join(mine, on="cluster").unique("row_id", keep="first", maintain_order=True).drop("cluster").collect()


def make_entries(
    arguments: argparse.Namespace, ids: pl.Series, subject: str | None, key: str, since: str | None
) -> list[Exclusion]:
    """Lines of the exclusion list: the subject or source that the request names, and each row."""
    common = {"request": arguments.request, "key": key, "since": since}
    entries = []
    if subject:
        entries.append(Exclusion(kind="subject", value=subject, **common))
    if arguments.source and arguments.record is None and not arguments.file:
        entries.append(Exclusion(kind="source", value=arguments.source, **common))
    return entries + [Exclusion(kind="row", value=name, **common) for name in ids]


def current_commit() -> str | None:
    """The commit whose dvc.lock is the workspace's, None where the results are not committed."""
    clean = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", "dvc.lock"], check=False).returncode == 0
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return head.stdout.strip() if clean and head.returncode == 0 else None


def describe_reach(snapshot: Snapshot, rows: pl.DataFrame, twins: pl.DataFrame, keep: bool) -> str:
    """What a request reaches, in words and one table."""
    parts = []
    reached = rows["row_id"] if keep else pl.concat([rows["row_id"], twins["row_id"]])
    carried = carriers(snapshot, follow(snapshot, reached))
    if rows.height:
        events = follow(snapshot, rows["row_id"])
        parts.append(sum_up(rows, events, carriers(snapshot, events)))
    models = sorted({model for names in carried["models"] for model in names})
    parts.append(f"models that carry them{'' if keep else ' or their duplicates'}: {', '.join(models) or 'none'}")
    if twins.height:
        named = twins.head(SHOWN).select("row_id", "of", "similarity").rows()
        lines = [[row, f"of {of}", f"similarity {share:.2f}"] for row, of, share in named]
        fate = "stay, and the best ranked steps into the place of a survivor" if keep else "go with them"
        more = f"\n  and {twins.height - SHOWN} more" if twins.height > SHOWN else ""
        parts.append(f"{twins.height} duplicates of other records {fate}:\n" + table(lines, indent="  ") + more)
    return "\n\n".join(parts)


def append(entries: list[Exclusion], key: str) -> int:
    """Put the entries that the request has not yet on the list below it; how many those were."""
    known = {(entry.request, entry.kind, entry.value) for entry in read_exclusions(key)}
    new = [entry for entry in entries if (entry.request, entry.kind, entry.value) not in known]
    old = FILE.read_text(encoding="utf-8") if FILE.is_file() else ""
    old += "" if not old or old.endswith("\n") else "\n"
    write_text(FILE, old + "".join(json.dumps(entry.model_dump()) + "\n" for entry in new))
    return len(new)


def find_rows(arguments: argparse.Namespace, snapshot: Snapshot) -> tuple[pl.DataFrame, str | None]:
    """The rows that are asked for, and the digest of the subject where one is: it may have no row yet."""
    if arguments.subject and not (arguments.row_ids or arguments.text or arguments.source or arguments.file):
        digest = digest_of(snapshot, read_value(arguments.subject, "--subject"))
        return find_origins(snapshot, pl.col("subject") == digest), digest
    return choose_rows(arguments, snapshot), None


def forget(arguments: argparse.Namespace) -> None:
    if arguments.prove or arguments.purge:
        from pedigree.erasure import prove

        prove(arguments.request, arguments.purge, arguments.keep_duplicates)
        return
    snapshot = Snapshot(None)
    if snapshot.find("data/pool/rows.parquet") is None:
        raise InputError("data/pool: is not here; a request is made where the raw data is, or rows would be overlooked")
    rows, subject = find_rows(arguments, snapshot)
    twins = duplicates_of(snapshot, rows["row_id"])
    print(describe_reach(snapshot, rows, twins, arguments.keep_duplicates))
    check_whole(snapshot)
    key = snapshot.read_params()["pool"]["subject_key"]
    ids = rows["row_id"] if arguments.keep_duplicates else pl.concat([rows["row_id"], twins["row_id"]])
    if subject and key == "public":
        print("\npool.subject_key is public: whoever reads the list can try names until a digest fits")
    if arguments.source and arguments.record is None and not arguments.file:
        print(f"\nThe whole source goes: take {arguments.source} out of `sources` too, and share its part out anew")
    if not arguments.write:
        print(f"\nNothing is written. With --write these {len(ids)} rows go onto {FILE}.")
        return
    since = current_commit()
    if since is None:
        raise InputError(
            "dvc.lock: the results that hold these rows are not committed; commit dvc.lock, metrics and reports first, "
            "so that the proof can tell before from after"
        )
    count = append(make_entries(arguments, ids, subject, key, since), key)
    print(f"\n{count} lines are new on {FILE}. Next: dvc repro, pedigree forget --request {arguments.request} --prove")


def entries_of(request: str, params: dict[str, Any]) -> list[Exclusion]:
    """The lines of a request. Raises InputError where there is none."""
    entries = [entry for entry in read_exclusions(params["pool"]["subject_key"]) if entry.request == request]
    if not entries:
        raise InputError(f"{FILE}: has no line of the request {request}")
    return entries
