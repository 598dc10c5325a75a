"""The preflight's look into the files of the sources: all of the small ones, the head of the large ones.

Nothing is fetched: of hub data sets and of addresses only the entry is checked.
"""

import json
import os
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

from pedigree.layout import show_bytes
from pedigree.report import Report
from stages.common.errors import InputError
from stages.common.params import Source

WHOLE_BYTES = 32e6  # of a source whose records are all read
FIRST_RECORDS = 100  # of a larger one


def check_sources(blocks: dict[str, Any], report: Report) -> None:
    """Each source's files: there, not empty, and with records that fit the format."""
    from stages.common.sources import check_entry, check_place, check_source, is_hub
    from stages.common.stores import is_remote, open_store

    total = records = refused = 0
    in_part: list[str] = []
    elsewhere: list[str] = []
    for source in blocks["sources"]:
        key = f"sources.{source.name}.path"
        try:
            if is_hub(source) or is_remote(source.path):
                check_entry(source)
                elsewhere.append(source.name)
                if is_remote(source.path):
                    open_store(source.path, f"params.yaml, {key}")
                continue
            files = check_source(source)
            check_place(source)
        except InputError as error:
            report.mistakes += str(error).splitlines()
            continue
        sizes = [check_file(Path(file), key, report) for file in files]
        total += sum(sizes)
        if all(sizes):
            whole = sum(sizes) <= WHOLE_BYTES
            in_part += [] if whole else [source.name]
            counts = check_records(source, whole, report)
            records, refused = records + counts[0], refused + counts[1]
    told = f", {refused:,} to be refused" if refused else ""
    told += f"; only the first {FIRST_RECORDS} of {', '.join(in_part)}" if in_part else ""
    told += f"; not looked into: {', '.join(elsewhere)}" if elsewhere else ""
    report.facts.append(("sources", f"{len(blocks['sources'])}, {show_bytes(total)}, {records:,} records read{told}"))


def check_records(source: Source, whole: bool, report: Report) -> tuple[int, int]:
    """Records that were read and how many of them do not fit; a mistake where a file is broken or none fits.

    Of a large source only the first records are read; none of OASST's, whose trees are gathered from a whole file.
    """
    from stages.common.conversation import RecordError
    from stages.common.formats import parse
    from stages.common.records import read_entries, require_consent

    if not whole and source.format == "oasst":
        return 0, 0
    reasons: Counter[str] = Counter()
    records = 0
    try:
        for _, entry in islice(read_entries(source), None if whole else FIRST_RECORDS):
            records += 1
            try:
                record = require_consent(entry.value, source)
                if isinstance(record, RecordError):
                    raise record
                parse(record, source.format, source.columns)
            except RecordError as error:
                reasons[error.reason] += 1
    except InputError as error:
        report.mistakes += str(error).splitlines()
        return records, 0
    if records == reasons.total():
        told = " | ".join(f"{count} x {reason}" for reason, count in reasons.most_common(3))
        report.wrong(f"sources.{source.name}", f"none of {records} records fits: {told}")
    return records, reasons.total()


def check_file(file: Path, key: str, report: Report) -> int:
    """Bytes of a data file; a mistake where it cannot be read or is empty."""
    if not os.access(file, os.R_OK):
        report.wrong(key, f"{file} cannot be read; mend its permissions")
        return 0
    size = file.stat().st_size
    if size == 0:
        report.wrong(key, f"{file} is empty; put the data in, or take the entry out")
    return size


def check_items(file: Path, key: str, report: Report) -> bool:
    """Whether a file of evaluation items can be read; a mistake names the line where it is not one object a line."""
    if not check_file(file, key, report):
        return False
    if file.suffix == ".jsonl":
        for number, line in enumerate(file.read_bytes().splitlines(), start=1):
            try:
                item = json.loads(line) if line.strip() else {}
            except ValueError:
                item = None
            if not isinstance(item, dict):
                report.wrong(key, f"{file}, line {number}: is no JSON object in UTF-8; one item a line")
                return False
    return True
