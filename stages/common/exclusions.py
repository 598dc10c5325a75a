"""The exclusion list: rows, subjects and sources that must not be used, as `pedigree forget` writes them.

A line of data/raw/exclusions.jsonl is {request, kind, value, key, since}, and of a row also {content, place}. `value`
is a row_id or the digest of a subject, or the name of a source. `content` is a digest of the row's normalised text: the
same text is excluded whatever source, record or kind of row it stands in, so that a source that is renamed or gains a
`subject:`, which gives its rows new ids, brings none of them back. `place` is one of file, record and branch: another
text that stands there is not excluded, since a record may be edited to take a person out of it, but it is told. Lines
without the two match by the id alone.

All digests are keyed (stages/pool.py), so that the list gives nobody away: a short text could be guessed from another.
`key` is the fingerprint of the key: under another one nothing would match. `since` is the commit whose results still
hold the rows.
"""

import hmac
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from stages.common.errors import InputError
from stages.common.rows import text_of_row
from stages.common.shingles import normalise_texts

FILE = Path("data/raw/exclusions.jsonl")
DIGEST = r"^[0-9a-f]{16}$"
PLACE = ["file", "record", "branch"]
MATCH = r"(?s)^request=(?<request>[^,]+), by=(?<by>\w+)(?:, content=(?<content>\w+))?, file=(?<file>.*)$"
WAYS = ("row", "subject", "beside", "source", "content")
"""In which a line meets a row; `beside`: its subject speaks in the row of somebody else."""
Digest = Annotated[str, Field(pattern=DIGEST)]
EXPECTED = (
    "expected an object of request (letters, digits, - _ .), kind (row, subject or source), value (16 hex digits, or "
    "the name of a source), key, since"
)


class Exclusion(BaseModel):
    """A line of the list."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    request: Annotated[str, Field(pattern=r"^[\w.-]{1,64}$")]
    kind: Literal["row", "subject", "source"]
    value: Annotated[str, Field(min_length=1)]
    key: str
    since: str | None
    content: Digest | None = None
    place: Digest | None = None

    @model_validator(mode="after")
    def _value_is_a_digest(self) -> "Exclusion":
        if self.kind != "source" and not (len(self.value) == 16 and set(self.value) <= set("0123456789abcdef")):
            raise ValueError("no digest")
        return self


def read_exclusions(key: str, path: Path = FILE) -> list[Exclusion]:
    """The list. Raises InputError where a line is none of it, or was made under another key than `key`."""
    if not path.is_file():
        return []
    found = []
    for number, line in enumerate(path.read_bytes().split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            entry = Exclusion(**json.loads(line.decode("utf-8")))
        except (ValueError, TypeError, ValidationError):
            raise InputError(f"{path}, line {number}: {EXPECTED}; `pedigree forget` writes such lines") from None
        if entry.kind != "source" and entry.key != key:
            raise InputError(
                f"{path}, line {number}: was written under the key {entry.key}, params.yaml has {key}; "
                "ids under another key match nothing: set the old key, or make the request anew and delete the line"
            )
        found.append(entry)
    return found


def make_digest(key: bytes, purpose: str, text: str) -> str:
    """First 16 hex digits of the HMAC-SHA256; `purpose` keeps a text from having the digest of a place."""
    return hmac.digest(key, f"{purpose}\n{text}".encode(), "sha256").hex()[:16]


def digest_contents(rows: pl.DataFrame, key: bytes) -> pl.Series:
    """Of each row the digest of its normalised text, without its source, subject or kind."""
    texts = normalise_texts(rows.select(text=text_of_row())["text"])
    return pl.Series("content", [make_digest(key, "content", text) for text in texts], pl.String)


def digest_places(rows: pl.DataFrame, key: bytes) -> pl.Series:
    """Of each row the digest of where it stands."""
    places = (json.dumps(place) for place in rows.select(PLACE).iter_rows())
    return pl.Series("place", [make_digest(key, "place", place) for place in places], pl.String)


def describe_match(row: Mapping[str, str | None]) -> str:
    """The detail of the ledger's line of an excluded row: request, by, content, file.

    The text's digest tells which lines of the list are met by a row whose id is new, the file where it still stands.
    """
    return ", ".join(f"{name}={row[name]}" for name in ("request", "by", "content", "file") if row[name] is not None)


def read_matches(ledger: pl.DataFrame) -> pl.DataFrame:
    """row_id, request, by, content, file of the excluded rows of pool's ledger."""
    parts = pl.col("detail").str.extract_groups(MATCH)
    return ledger.filter(reason="excluded").select("row_id", parts.alias("match")).unnest("match")


class Matcher:
    """The list, and which lines of it have met a row so far."""

    def __init__(self, entries: Iterable[Exclusion], key: bytes) -> None:
        self.entries, self.key = list(entries), key
        self.met: dict[str, set[str]] = {way: set() for way in WAYS}
        self.in_place: Counter[str] = Counter()
        """Request → rows that stay where an excluded one stood."""
        by_kind = {kind: [(e.value, e.request) for e in self.entries if e.kind == kind] for kind in WAYS}
        self.wanted = {
            **{way: _first_of(by_kind["subject" if way == "beside" else way]) for way in WAYS},
            "content": _first_of((e.content, e.request) for e in self.entries if e.content),
            "place": _first_of((e.place, e.request) for e in self.entries if e.place),
        }

    def judge(self, rows: pl.DataFrame, others: pl.DataFrame) -> pl.DataFrame:
        """request, by (one of WAYS), content: of each row what excludes it, all null where it stays.

        content: the digest of its text where the list has it, by whatever else the row is excluded.
        others: row_id, subject: who speaks in a row beside the subject of its own.
        """
        spoken = others.with_columns(request=self._find("beside", others["subject"])).drop_nulls()
        beside = dict(zip(spoken["row_id"], spoken["request"], strict=True))
        found = {
            "row": self._find("row", rows["row_id"]),
            "subject": self._find("subject", rows["subject"]),
            "beside": pl.Series([beside.get(name) for name in rows["row_id"]], dtype=pl.String),
            "source": self._find("source", rows["source"]),
        }
        contents = pl.Series("content", [None], pl.String).new_from_index(0, rows.height)
        if self.wanted["content"].height:
            digests = digest_contents(rows, self.key)
            found["content"] = self._find("content", digests)
            contents = digests.to_frame().select(pl.when(found["content"].is_not_null()).then("content"))["content"]
        table = pl.DataFrame(found)
        by = pl.coalesce(pl.when(pl.col(way).is_not_null()).then(pl.lit(way)) for way in table.columns)
        judged = table.select(request=pl.coalesce(pl.all()), by=by).with_columns(contents)
        if self.wanted["place"].height:
            kept = rows.filter(judged["request"].is_null())
            self.in_place.update(self._find("place", digest_places(kept, self.key)).drop_nulls())
        return judged

    def _find(self, way: str, values: pl.Series) -> pl.Series:
        """Of each value the request that wants it, null where none does."""
        wanted = self.wanted[way]
        if not wanted.height:
            return pl.Series("request", [None], pl.String).new_from_index(0, len(values))
        joined = values.alias("value").to_frame().join(wanted, on="value", how="left", maintain_order="left")
        if way != "place":
            self.met[way].update(joined.drop_nulls()["value"])
        return joined["request"]

    def unmatched(self) -> list[Exclusion]:
        """The lines that have met no row."""
        spoke = self.met["subject"] | self.met["beside"]
        met = {"row": self.met["row"], "subject": spoke, "source": self.met["source"]}
        return [e for e in self.entries if e.value not in met[e.kind] and e.content not in self.met["content"]]

    def count(self) -> dict[str, int]:
        """For metrics/pool.json."""
        missed = len(self.unmatched())
        counts = {"entries": len(self.entries), "matched": len(self.entries) - missed, "unmatched": missed}
        return counts | {"in_their_place": self.in_place.total()}

    def list_warnings(self) -> list[str]:
        """What the list did not do, a sentence each; requests are named, values are not."""
        told = []
        of_all, missed = (Counter(e.request for e in entries) for entries in (self.entries, self.unmatched()))
        if missed:
            named = ", ".join(f"{request} ({count} of {of_all[request]})" for request, count in sorted(missed.items()))
            told.append(
                f"lines of {FILE} that match no record, by request: {named}; their records were deleted or edited, "
                "have not come yet, or a value is mistyped: `pedigree forget --request NAME --prove` says more"
            )
        if self.in_place:
            named = ", ".join(f"{request} ({count})" for request, count in sorted(self.in_place.items()))
            told.append(
                f"rows with another text stand where excluded ones stood, by request: {named}; they were edited, or "
                "moved up as others were deleted, and are used: `pedigree forget --request NAME --prove` names them"
            )
        return told


def _first_of(pairs: Iterable[tuple[Any, str]]) -> pl.DataFrame:
    """value, request: the first line that has a value."""
    table = pl.DataFrame(list(pairs), {"value": pl.String, "request": pl.String}, orient="row")
    return table.unique("value", keep="first", maintain_order=True)
