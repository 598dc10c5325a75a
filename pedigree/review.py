"""pedigree review: a person looks at a sample of what scrub decided, and corrections become allow and deny entries.

A decision is a place where scrub replaced something, or one where its second look still sees something. The sample is
the same for the same seed. Places stand in data/scrub/findings.parquet, the text before the replacement only in
data/dedup, which stays on the machine that made it. Values, and of the words around them each with a capital, a digit
or an @, are shown as their form (Xxxxx 00) unless --show-values. An export bears a digest of the tables that its places
point into, and is for its owner's eyes alone; against other tables its verdicts are refused.

Of a replacement: `correct`, or `wrong` (no personal data: its text goes into scrub.allow). Of what the second look
sees: `correct` (nothing was overlooked), or `missed` (its text goes into the deny file). Any decision may also name
what else was missed beside it: `Helen Novak` or `PERSON: Helen Novak`. The deny file lies outside git, as it holds what
must go; its fingerprint in params.yaml makes scrub run again. Its first line is drawn at random, so that nobody finds
an entry by trying which one has the fingerprint.
"""

import argparse
import json
import os
import re
import secrets
import tempfile
from pathlib import Path
from typing import Any

import polars as pl
import regex

from pedigree.values import Key, Leaf, Leaves, read_leaves, set_values
from stages.common.contracts import Contract
from stages.common.errors import InputError
from stages.common.files import digest_files, digest_text, write_text
from stages.common.params import PARAMS_FILE, load
from stages.common.row_contracts import DEDUP, FINDINGS, SCRUB
from stages.pii.given import parse_deny, read_deny
from stages.pii.operators import TOKEN_DIGITS
from stages.pii.params import Scrub
from stages.pii.residual import find_residuals, mask_shape
from stages.pii.spans import Allowed

DENY_FILE = ".pedigree/deny.txt"  # where params.yaml names none; git ignores the folder
DRAWN = r"# [0-9a-f]{32}\n"  # the first line of a deny file
BESIDE = 40  # characters of context
VERDICTS = ("correct", "wrong", "missed")
STAND_IN = rf"<[A-Z_]+(?:_[0-9a-f]{{{TOKEN_DIGITS}}})?>|\*{{2,}}"
WORD = re.compile(rf"(?P<stand_in>{STAND_IN})|(?:(?!{STAND_IN})\S)+")
TELLING = regex.compile(r"[\p{Lu}\p{Lt}\p{Lo}\p{N}@]")  # what makes of a word a part of personal data, perhaps
FIELDS = {
    "tables": str, "row_id": str, "place": str, "start": int, "end": int, "kind": str, "residual": bool, "shown": str,
    "verdict": str, "missed": str,
}  # fmt: skip
"""Of a line of an export."""


def text_at(rows: dict[str, dict[str, Any]], row_id: str, place: str) -> str:
    column, index = place.split(".")
    return str(rows[row_id][column][int(index)]["content"])


def rows_by_id(rows: Contract, ids: list[str]) -> dict[str, dict[str, Any]]:
    some = rows.read().filter(pl.col("row_id").is_in(ids))
    return {row["row_id"]: row for row in some.iter_rows(named=True)}


def order_by_seed(decisions: list[dict[str, Any]], seed: int) -> list[dict[str, Any]]:
    """In an order that only the seed and the decision itself decide."""
    keys = ("row_id", "place", "start", "end", "kind")
    return sorted(decisions, key=lambda item: digest_text(json.dumps([seed, *(item[key] for key in keys)])))


def sample_replaced(count: int, seed: int) -> list[dict[str, Any]]:
    """Replacements with the text around them. Raises InputError where a table is missing."""
    findings = FINDINGS.read().rename({"entity": "kind"})
    chosen = order_by_seed(list(findings.iter_rows(named=True)), seed)[:count]
    rows = rows_by_id(DEDUP, [item["row_id"] for item in chosen])
    decisions = []
    for item in chosen:
        text = text_at(rows, item["row_id"], item["place"])
        others = findings.filter(row_id=item["row_id"], place=item["place"]).rows_by_key("start", named=True)
        left = _hide(text[: item["start"]], 0, others)
        right = _hide(text[item["end"] :], item["end"], others)
        decisions.append(
            item | {"text": text[item["start"] : item["end"]], "left": left, "right": right, "residual": False}
        )
    return decisions


def _hide(text: str, offset: int, findings: dict[Any, list[dict[str, Any]]]) -> str:
    """A part of a text, which begins at `offset`, with the findings in it as their types."""
    for start in sorted(findings, reverse=True):
        end, kind = findings[start][0]["end"], findings[start][0]["kind"]
        if start >= offset and end - offset <= len(text):
            text = f"{text[: start - offset]}<{kind}>{text[end - offset :]}"
    return text


def sample_residual(count: int, seed: int, params: Scrub) -> list[dict[str, Any]]:
    """What the second look sees in scrubbed contents, with the text around it."""
    allowed, decisions = Allowed(params.allow), []
    for row in SCRUB.read().iter_rows(named=True):
        for column in ("messages", "chosen", "rejected"):
            for index, message in enumerate(row[column] or []):
                text = message["content"] or ""
                known = [match.span() for match in re.finditer(STAND_IN, text)]
                decisions += [
                    {"row_id": row["row_id"], "place": f"{column}.{index}", "start": found.start, "end": found.end,
                     "kind": found.kind, "text": text[found.start : found.end], "left": text[: found.start],
                     "right": text[found.end :], "residual": True}
                    for found in find_residuals(text, known)
                    if not allowed.covers(text, found.start, found.end)
                ]  # fmt: skip
    return order_by_seed(decisions, seed)[:count]


def mask_telling(text: str) -> str:
    """The words of a text that may be a part of personal data as their form; stand-ins stay."""
    return WORD.sub(
        lambda word: word[0] if word["stand_in"] or not TELLING.search(word[0]) else mask_shape(word[0]), text
    )


def escape_controls(text: str) -> str:
    """Characters that steer a terminal, or change the order of what stands beside them, as \\x1b or \\u202e."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


def show(decision: dict[str, Any], show_values: bool) -> str:
    """One decision as a line."""
    left, value, right = decision["left"], decision["text"], decision["right"]
    if not show_values:
        left, value, right = mask_telling(left), mask_shape(value), mask_telling(right)
    label = f"left, looks like {decision['kind']}" if decision["residual"] else decision["kind"]
    line = f"[{label}] ...{left[-BESIDE:]}⟦{value}⟧{right[:BESIDE]}..."
    return escape_controls(re.sub(r"[\r\n]+", " ", line))


def write_private(path: Path, text: str) -> None:
    """For the eyes of its owner alone from the first byte on. Raises InputError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:  # made with the mode 0700
            part = Path(folder) / path.name
            with open(os.open(part, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
                file.write(text.encode())
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
    except OSError as error:
        raise InputError(f"{path}: could not be written ({error.strerror}); free some space, or name another") from None


def digest_tables() -> str:
    """Of the tables that the places of decisions point into."""
    files = [Path(table.path) for table in (FINDINGS, DEDUP, SCRUB)]
    return digest_text(" ".join(digest_files([file]) for file in files), 16)


def export(decisions: list[dict[str, Any]], path: Path, show_values: bool) -> None:
    """A line of JSON for each decision; `verdict` and `missed` are for the person to fill in."""
    lines, of_all = [], {"tables": digest_tables(), "verdict": "", "missed": ""}
    for item in decisions:
        values = item | of_all | {"shown": show(item, show_values)}
        lines.append(json.dumps({field: values[field] for field in FIELDS}, ensure_ascii=False) + "\n")
    write_private(path, "".join(lines))


def read_verdicts(path: Path) -> list[dict[str, Any]]:
    """The decisions of an exported file that have a verdict, with their texts. Raises InputError."""
    judged = []
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({type(error).__name__})") from None
    tables = digest_tables()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        item = parse_line(line)
        if item is None:
            expected = f"a line of `pedigree review --export`, `verdict` one of {', '.join(VERDICTS)}"
            raise InputError(f"{path}, line {number}: expected {expected}")
        if item["tables"] != tables:
            raise InputError(
                f"{path}, line {number}: was exported before the last run of scrub, its places point elsewhere now; "
                "export anew"
            )
        if item["verdict"] or item["missed"].strip():
            judged.append(item | {"line": number})
    for residual, table in ((False, DEDUP), (True, SCRUB)):
        here = [item for item in judged if item["residual"] == residual]
        rows = rows_by_id(table, [item["row_id"] for item in here])
        for item in here:
            try:
                item["text"] = text_at(rows, item["row_id"], item["place"])[item["start"] : item["end"]]
            except (KeyError, IndexError, TypeError, ValueError):
                raise InputError(
                    f"{path}, line {item['line']}: there is no such place in {table.path}; fill in nothing but "
                    "`verdict` and `missed`"
                ) from None
    return judged


def parse_line(line: str) -> dict[str, Any] | None:
    """A line of an export; None for anything else."""
    try:
        item = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(item, dict) or not FIELDS.keys() <= item.keys():
        return None
    fits = all(type(item[field]) is kind for field, kind in FIELDS.items())
    return item if fits and item["verdict"] in ("", *VERDICTS) else None


def ask(decisions: list[dict[str, Any]], show_values: bool) -> list[dict[str, Any]]:
    """The verdicts of a person at the terminal, until `q`."""
    judged = []
    for number, item in enumerate(decisions, 1):
        print(f"{number}/{len(decisions)} {show(item, show_values)}")
        options = "c correct, m missed" if item["residual"] else "c correct, w wrong, m something beside it was missed"
        try:
            answer = input(f"  ({options}, q end) ").strip().lower()[:1]
        except EOFError:
            answer = "q"
        if answer == "q":
            break
        if answer in ("c", "w") or (answer == "m" and item["residual"]):
            judged.append(item | {"verdict": {"c": "correct", "w": "wrong", "m": "missed"}[answer], "missed": ""})
        elif answer == "m":
            judged.append(item | {"verdict": "correct", "missed": input("  what (TEXT or ENTITY: TEXT)? ").strip()})
    return judged


def corrections(judged: list[dict[str, Any]]) -> tuple[list[str], list[str]]:
    """New entries of allow and of deny, in order, each once."""
    allow = [item["text"] for item in judged if item["verdict"] == "wrong" and not item["residual"]]
    deny = [item["text"] for item in judged if item["verdict"] == "missed" and item["residual"]]
    deny += [item["missed"] for item in judged]

    def tidy(entries: list[str]) -> list[str]:
        return list(dict.fromkeys(tidied for entry in entries if (tidied := " ".join(entry.split()))))

    return tidy(allow), tidy(deny)


def apply_corrections(allow: list[str], deny: list[str], params: Scrub) -> str:
    """Write allow entries into params.yaml and deny entries into the deny file; what was done, without values."""
    here = read_leaves(PARAMS_FILE)
    wanted: Leaves = {}
    new_allow = [entry for entry in allow if entry not in params.allow]
    if new_allow:
        key: Key = ("scrub", "allow")
        wanted[key] = _longer(here[key], new_allow)
    path = Path(params.deny_file or DENY_FILE)
    old = path.read_text(encoding="utf-8") if path.exists() else ""
    new_deny = [entry for entry in deny if entry not in [*params.deny, *parse_deny(old)]]
    if new_deny:
        text = old if re.match(DRAWN, old) else f"# {secrets.token_hex(16)}\n{old}"
        written = ["\\" + entry if entry[0] in "#\\" else entry for entry in new_deny]
        text += ("" if text.endswith("\n") else "\n") + "".join(f"{entry}\n" for entry in written)
        write_private(path, text)
        for name, value in (("deny_file", str(path)), ("deny_fingerprint", digest_text(text, 12))):
            key = ("scrub", name)
            wanted[key] = Leaf(value, json.dumps(value), 0, 0, here[key].column, -1)
    if wanted:
        write_text(PARAMS_FILE, set_values(PARAMS_FILE.read_text(encoding="utf-8"), wanted))
    said = f"{len(new_allow)} entries to scrub.allow, {len(new_deny)} to {path}"
    return said + ("; next: dvc repro" if wanted else "")


def _longer(old: Leaf, entries: list[str]) -> Leaf:
    """A list with more entries, in the form that it has."""
    value = [*old.value, *entries]
    if old.text.startswith("- "):
        lines = [" " * old.column + f"- {json.dumps(entry, ensure_ascii=False)}" for entry in entries]
        return Leaf(value, "\n".join([old.text, *lines]), 0, 0, old.column, -1)
    return Leaf(value, json.dumps(value, ensure_ascii=False), 0, 0, old.column, -1)


def review(arguments: argparse.Namespace) -> None:
    params = load(Scrub, "scrub")
    read_deny(params)  # the file that is to grow is the right one
    if arguments.import_file:
        judged = read_verdicts(Path(arguments.import_file))
    else:
        decisions = sample_replaced(arguments.count, arguments.seed) + sample_residual(
            arguments.count, arguments.seed, params
        )
        if arguments.export:
            export(decisions, Path(arguments.export), arguments.show_values)
            print(f"{len(decisions)} decisions in {arguments.export}; fill in `verdict`, then --import it")
            return
        judged = ask(decisions, arguments.show_values)
    print(apply_corrections(*corrections(judged), params))
