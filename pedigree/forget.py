"""pedigree forget: a request for deletion, from the rows that it means to the proof that they are gone.

    pedigree forget --subject - --request 2026-014            # what it would reach: rows, duplicates, models
    pedigree forget --subject - --request 2026-014 --write    # onto the exclusion list, which pool honours
    dvc repro
    pedigree forget --request 2026-014 --prove [--purge]      # absence, evidence, what remains; reports/forget_*.md

A subject is excluded for good: records of theirs that come later go too. A row that is excluded takes its duplicates
with it, as else the nearest of them would step into its place; --keep-duplicates leaves them, and names them.
"""

import argparse
import fcntl
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl

from pedigree.absence import entries_of, is_proved, read_contents, report_of
from pedigree.deletion_report import count
from pedigree.journey import carriers, find_origins, follow, of_subject
from pedigree.layout import table
from pedigree.snapshot import Snapshot
from pedigree.trace import check_whole, choose_rows, digest_of, find_texts, read_value, sum_up
from stages.common.errors import InputError
from stages.common.exclusions import FILE, PLACE, Exclusion, digest_places, read_exclusions
from stages.common.files import write_text
from stages.common.params import load_sources

LOCK = Path(".pedigree/locks/exclusions")
SHOWN = 20


def duplicates_of(snapshot: Snapshot, ids: pl.Series) -> pl.DataFrame:
    """row_id, of, similarity: rows outside `ids` that share a cluster with one of them."""
    clusters = snapshot.scan("data/clusters/clusters.parquet")
    if clusters is None:
        return pl.DataFrame(schema={"row_id": pl.String, "of": pl.String, "similarity": pl.Float64})
    mine = clusters.filter(pl.col("row_id").is_in(ids.implode())).select("cluster", of="row_id")
    others = clusters.filter(~pl.col("row_id").is_in(ids.implode())).select("cluster", "row_id", "similarity")
    found = others.join(mine, on="cluster", maintain_order="left_right").unique(
        "row_id", keep="first", maintain_order=True
    )
    return found.select("row_id", "of", "similarity").collect()


def find_twins(snapshot: Snapshot, ids: pl.Series, contents: pl.DataFrame) -> pl.DataFrame:
    """row_id, of, similarity: rows outside `ids` that share a cluster or their very text with one of them, or with
    such a row. dedup compares rows of one kind and with the same tools alone; the list has texts, whatever holds them.
    """
    found, reached = duplicates_of(snapshot, ids.clear()), ids
    while True:
        near = duplicates_of(snapshot, reached)
        mine = contents.filter(pl.col("row_id").is_in(reached.implode())).unique("content", maintain_order=True)
        same = contents.filter(~pl.col("row_id").is_in(reached.implode())).join(
            mine.select("content", of="row_id"), on="content", maintain_order="left"
        )
        new = pl.concat([same.select("row_id", "of", similarity=pl.lit(1.0)), near]).unique(
            "row_id", keep="first", maintain_order=True
        )
        if not new.height:
            return found
        found, reached = pl.concat([found, new]), pl.concat([reached, new["row_id"]])


def make_entries(
    arguments: argparse.Namespace,
    snapshot: Snapshot,
    ids: pl.Series,
    contents: pl.DataFrame,
    subject: str | None,
    since: str,
) -> list[Exclusion]:
    """Lines of the exclusion list: the subject or source that the request names, and each row.

    A row's text is not excluded where another record with the very same one stays.
    """
    from stages.pool import read_subject_key

    fingerprint = snapshot.read_params()["pool"]["subject_key"]
    key = read_subject_key(fingerprint, os.environ)
    common = {"request": arguments.request, "key": fingerprint, "since": since}
    entries = []
    if subject:
        entries.append(Exclusion(kind="subject", value=subject, **common))
    if names_source(arguments):
        entries.append(Exclusion(kind="source", value=arguments.source, **common))
    is_mine = pl.col("row_id").is_in(ids.implode())
    here = scan_pool(snapshot).filter(is_mine).select("row_id", *PLACE).collect()
    places = dict(zip(here["row_id"], digest_places(here, key), strict=True))
    texts = dict(contents.filter(is_mine).iter_rows())
    staying = set(contents.filter(~is_mine)["content"])
    for name in ids:
        content = None if texts.get(name) in staying else texts.get(name)
        entries.append(Exclusion(kind="row", value=name, content=content, place=places.get(name), **common))
    return entries


def scan_pool(snapshot: Snapshot) -> pl.LazyFrame:
    pool = snapshot.scan("data/pool/rows.parquet")
    if pool is None:
        raise InputError("data/pool: is not here; a request is made where the raw data is, or rows would be overlooked")
    return pool


def names_source(arguments: argparse.Namespace) -> bool:
    """Whether the request is of a whole source, whatever comes to it later."""
    return bool(arguments.source and arguments.record is None and not arguments.file)


def current_commit() -> str:
    """The commit whose dvc.lock is the workspace's. Raises InputError where the results are not committed."""
    is_there, is_same = (
        subprocess.run(["git", *command], check=False, capture_output=True).returncode == 0
        for command in (["cat-file", "-e", "HEAD:dvc.lock"], ["diff", "--quiet", "HEAD", "--", "dvc.lock"])
    )
    if not (is_there and is_same):
        raise InputError(
            "dvc.lock: the results that hold these rows are not committed; commit dvc.lock, metrics and reports first, "
            "so that the proof can tell before from after"
        )
    return subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()


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
        fate = "to stay; the best ranked steps into the place of a survivor" if keep else "to go with them"
        more = f"\n  and {twins.height - SHOWN} more" if twins.height > SHOWN else ""
        parts.append(
            f"{count(twins.height, 'duplicate')} in other records: {fate}:\n" + table(lines, indent="  ") + more
        )
    return "\n\n".join(parts)


def list_matches(rows: pl.DataFrame, held: pl.DataFrame) -> str:
    """Rows that hold a text, by id: nothing of their text, nor of the one that was sought."""
    joined = rows.join(held, on="row_id").sort("held", "row_id", descending=[True, False])
    lines = [
        [row["row_id"], f"holds {row['held']:.0%}", f"{row['source']}, {row['file']}, record {row['record']}"]
        for row in joined.head(SHOWN).iter_rows(named=True)
    ]
    more = f"\n  and {rows.height - SHOWN} more: `pedigree trace --text` lists all" if rows.height > SHOWN else ""
    return (
        f"{count(rows.height, 'row')} with the text, or that share of its word 3-grams:\n"
        + table(lines, indent="  ")
        + more
    )


def advise_sources(snapshot: Snapshot, ids: pl.Series) -> Iterator[str]:
    """What to change in params.yaml where a source has no row left, since mix stops at a share without rows."""
    gone = pl.col("row_id").is_in(ids.implode())
    emptied = set(scan_pool(snapshot).group_by("source").agg(gone.all()).filter("row_id").collect()["source"])
    sources = load_sources()
    for kind in dict.fromkeys(source.kind for source in sources if source.name in emptied):
        names = [source.name for source in sources if source.kind == kind and source.name in emptied]
        rest = [source for source in sources if source.kind == kind and source.name not in emptied]
        yield f"No row of {', '.join(names)} is left; mix stops where a source with a share has none. In params.yaml:"
        yield from (f"  sources: delete the entry {name}" for name in names)
        if not rest:
            yield f"  sources: put another source of the kind {kind} in its place: none is left to train on"
        for name, share in divide_anew([(source.name, source.share) for source in rest]).items():
            yield f"  sources.{name}.share: {share:g}"


def divide_anew(shares: list[tuple[str, float | None]]) -> dict[str, float]:
    """The shares that change so that they sum to 1 again; none where a source without a share takes the rest."""
    whole = sum(share or 0 for _, share in shares)
    if not whole or any(share is None for _, share in shares) or abs(whole - 1) <= 1e-6:
        return {}
    divided = {name: round((share or 0) / whole, 4) for name, share in shares}
    largest = max(divided, key=lambda name: divided[name])
    divided[largest] = round(divided[largest] + 1 - sum(divided.values()), 4)
    return divided


@contextmanager
def list_locked() -> Iterator[None]:
    """Nobody else writes the list meanwhile; ends with the process."""
    LOCK.parent.mkdir(parents=True, exist_ok=True)
    with LOCK.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def append(entries: list[Exclusion], request: str, key: str, adding: bool) -> int:
    """Put the entries that the request has not yet on the list below it; how many those were.

    Raises InputError where the request is on the list with another reach and `adding` is not asked for, or is proved.
    """
    with list_locked():
        listed = read_exclusions(key)
        known = {(entry.kind, entry.value) for entry in listed if entry.request == request}
        new = [entry for entry in entries if (entry.kind, entry.value) not in known]
        if new and is_proved(request):
            raise InputError(
                f"{report_of(request)}: the request {request} is proved, and {len(new)} lines would be new; give what "
                "comes now a name of its own, or delete the report if it was never signed"
            )
        if new and known and not adding:
            raise InputError(
                f"{FILE}: has {len(known)} lines of a request {request}, and {len(new)} others would be new; --add "
                "puts them to it, another name keeps the two apart"
            )
        old = FILE.read_text(encoding="utf-8") if FILE.is_file() else ""
        old += "" if not old or old.endswith("\n") else "\n"
        lines = (json.dumps(entry.model_dump(exclude_defaults=True)) + "\n" for entry in new)
        if new:
            write_text(FILE, old + "".join(lines))
        return len(new)


def find_rows(arguments: argparse.Namespace, snapshot: Snapshot) -> tuple[pl.DataFrame, str | None]:
    """The rows that are asked for, and the digest of the subject where one is: it may have no row yet."""
    if arguments.subject and not (arguments.row_ids or arguments.text or arguments.source or arguments.file):
        digest = digest_of(snapshot, read_value(arguments.subject, "--subject"))
        return find_origins(snapshot, of_subject(snapshot, digest)), digest
    if arguments.text:
        arguments.text = read_value(arguments.text, "--text")
    return choose_rows(arguments, snapshot), None


def check_options(arguments: argparse.Namespace) -> None:
    """Raises InputError where options are given that have no effect."""
    for option, needs in (("yes", "purge"), ("dry_run", "purge"), ("add", "write")):
        if getattr(arguments, option) and not getattr(arguments, needs):
            raise InputError(f"--{option.replace('_', '-')}: is for --{needs}, which is not given")
    if not 0 < arguments.near <= 1:
        raise InputError("--near: a share above 0 and up to 1")


def forget(arguments: argparse.Namespace) -> None:
    from stages.pool import read_subject_key

    check_options(arguments)
    if arguments.dry_run:
        from pedigree.erasure import check_pending, plan_purge

        entries_of(arguments.request)
        check_pending(arguments.request)
        print(plan_purge().render())
        return
    if arguments.prove or arguments.purge:
        from pedigree.proof import prove

        prove(arguments.request, arguments.purge, arguments.yes, arguments.keep_duplicates)
        return
    snapshot = Snapshot(None)
    pool, key = scan_pool(snapshot), snapshot.read_params()["pool"]["subject_key"]
    rows, subject = find_rows(arguments, snapshot)
    contents = read_contents(pool, read_subject_key(key, os.environ))
    twins = find_twins(snapshot, rows["row_id"], contents)
    if arguments.text:
        print(list_matches(rows, find_texts(snapshot, arguments.text, arguments.near)) + "\n")
    print(describe_reach(snapshot, rows, twins, arguments.keep_duplicates))
    check_whole(snapshot)
    ids = rows["row_id"] if arguments.keep_duplicates else pl.concat([rows["row_id"], twins["row_id"]])
    if key == "public":
        print("\npool.subject_key is public: whoever reads the list can try names and short texts until a digest fits")
    if advice := list(advise_sources(snapshot, ids)):
        print("\n" + "\n".join(advice))
    if not arguments.write:
        print(f"\nNothing is written. With --write {count(len(ids), 'row')} would go onto {FILE}.")
        return
    entries = make_entries(arguments, snapshot, ids, contents, subject, current_commit())
    new = append(entries, arguments.request, key, arguments.add)
    print(
        f"\n{FILE} has {count(new, 'new line')}. Next: dvc repro, pedigree forget --request {arguments.request} --prove"
    )
