"""Find personal data and replace it.    data/dedup, evaluation sets → data/scrub/{rows,ledger,items,probes}.parquet

Presidio (docs: data-privacy-stack.github.io/presidio) with its pattern recognisers, ours, and lists of names looks at
every text of a row: contents of messages, values inside tool calls, chosen and rejected replies. What it finds becomes
`<TYPE>` or asterisks, or stays, as `entities` says; public facts of `allow` stay. What was found is counted, never
copied. A row in which a recogniser fails is dropped: it must not pass unread. The evaluation items go through the same
replacement, so that decontaminate compares like with like.
"""

from stages.common.stage import run, say  # isort: skip

import json
from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import polars as pl
from pydantic import Field, model_validator
from tqdm import tqdm

from stages.common.errors import InputError
from stages.common.evalsets import ITEM_SCHEMA, load_items
from stages.common.files import write_csv, write_json, write_table
from stages.common.ledger import check_balance, ledger_lines
from stages.common.params import Params, Share, load, load_tasks
from stages.common.probes import Probes, judge_personal_data, read_probes, rows_of, score
from stages.common.rows import CONVERSATIONS, read_rows
from stages.pii.spans import Allowed, merge_findings, replace_findings
from stages.probes.leaks import plant_leaks

if TYPE_CHECKING:
    from stages.pii.analyser import Analyser


class Scrub(Params):
    """Which personal data is looked for, and what becomes of it."""

    language: Annotated[str, Field(pattern="^[a-z]{2}$")]
    """Of the texts, two letters; context words and lists of names are made for `en`."""
    entities: Annotated[dict[str, Literal["replace", "mask", "keep"]], Field(min_length=1)]
    """Presidio's entity, or MEDICAL_RECORD or DATE_OF_BIRTH → replace (<TYPE>), mask (****) or keep (count only)."""
    threshold: Share
    """Presidio's score in [0, 1] from which a finding counts."""
    names: Annotated[str, Field(pattern=r"^(lists|none|spacy:.+)$")]
    """Where names of persons come from: lists, none, or spacy:MODEL, installed or a folder."""
    allow: list[Annotated[str, Field(pattern=r"\S")]]
    """Public facts that stay, in any case of letters; of a person's full name also `Dr. FAMILY NAME`."""

    @model_validator(mode="after")
    def _lists_are_english(self) -> "Scrub":
        if self.names == "lists" and self.language != "en":
            raise ValueError(f"names: lists knows English only, not {self.language}; take spacy:MODEL or none")
        return self


class Scrubbed(NamedTuple):
    """A text after the replacement, and how many findings of each type were replaced and kept."""

    text: str
    replaced: Counter[str]
    kept: Counter[str]


NOTHING: Counter[str] = Counter()


class FailedTextError(Exception):
    """A recogniser failed on a text; the message is the name of what it raised."""


class Scrubber:
    """Replaces personal data in texts; each text is looked at once, however often it occurs."""

    def __init__(self, params: Scrub, analyser: "Analyser") -> None:
        self.entities, self.analyser, self.allowed = params.entities, analyser, Allowed(params.allow)
        self.done: dict[tuple[str, str], Scrubbed | str] = {}  # label, text → result, or what was raised

    def scrub(self, text: str, label: str = "") -> Scrubbed:
        """`label` is read as if it stood before `text`: phone of {"phone": "0490 75 40 81"}. Raises FailedTextError."""
        if (label, text) not in self.done:
            try:
                self.done[label, text] = self._scrub(text, label)
            except MemoryError:
                raise  # of the machine, not of the text
            except Exception as error:  # whatever a recogniser raises: the row must not pass unread
                self.done[label, text] = type(error).__name__
        result = self.done[label, text]
        if isinstance(result, str):
            raise FailedTextError(result)
        return result

    def _scrub(self, text: str, label: str) -> Scrubbed:
        before = f"{label.replace('_', ' ').strip()}: " if label else ""
        found = [
            finding._replace(start=max(0, finding.start - len(before)), end=finding.end - len(before))
            for finding in self.analyser.find(before + text)
            if finding.end > len(before)
        ]
        found = self.allowed.drop(found, text)
        if not found:
            return Scrubbed(text, NOTHING, NOTHING)
        masked = {entity for entity, action in self.entities.items() if action == "mask"}
        replaced = merge_findings([finding for finding in found if self.entities[finding.entity] != "keep"], text)
        kept = {
            finding
            for finding in found
            if self.entities[finding.entity] == "keep"
            and not any(other.start < finding.end and finding.start < other.end for other in replaced)
        }
        return Scrubbed(
            replace_findings(replaced, text, masked),
            Counter(finding.entity for finding in replaced),
            Counter(finding.entity for finding in merge_findings(sorted(kept), text)),
        )

    def count(self, text: str, counts: Scrubbed, label: str = "") -> str:
        """The scrubbed text; adds its findings to `counts`."""
        result = self.scrub(text, label)
        counts.replaced.update(result.replaced)
        counts.kept.update(result.kept)
        return result.text

    def scrub_value(self, value: Any, counts: Scrubbed, label: str = "") -> Any:
        """A JSON value with its texts and numbers scrubbed; keys and the names of functions stay. Raises
        FailedTextError, also where a key is personal data: two of one type would become one key."""
        match value:
            case dict():
                if any(self.scrub(key).replaced for key in value):
                    raise FailedTextError("personal data as a key")
                return {
                    key: entry if key == "name" and "arguments" in value else self.scrub_value(entry, counts, key)
                    for key, entry in value.items()
                }
            case list():
                return [self.scrub_value(entry, counts, label) for entry in value]
            case str() if (inner := parse_json(value)) is not None:  # arguments as JSON inside JSON
                clean = self.scrub_value(inner, counts)
                return value if clean == inner else json.dumps(clean, ensure_ascii=False)
            case str():
                return self.count(value, counts, label)
            case int() | float() if not isinstance(value, bool):
                clean = self.count(str(value), counts, label)
                return value if clean == str(value) else clean
            case _:
                return value

    def scrub_message(self, message: dict[str, Any], counts: Scrubbed) -> dict[str, Any]:
        """A message with content, name and tool calls scrubbed. Raises FailedTextError; ValueError on broken JSON."""
        changed: dict[str, Any] = {}
        for field in ("content", "name", "tool_calls"):
            text = message[field]
            if not text or (field == "name" and message["role"] == "tool"):
                continue
            value = (
                json.loads(text) if field == "tool_calls" else parse_json(text) if message["role"] == "tool" else None
            )
            if value is None:
                changed[field] = self.count(text, counts, "name" if field == "name" else "")
            elif (clean := self.scrub_value(value, counts)) != value:
                changed[field] = json.dumps(clean, ensure_ascii=False)
        return message | changed

    def scrub_tools(self, tools: str | None, counts: Scrubbed) -> str | None:
        """The definitions of tools with their descriptions scrubbed; the names of tools and of their fields stay."""
        if tools is None:
            return None
        value = json.loads(tools)
        clean = self.scrub_definitions(value, counts)
        return tools if clean == value else json.dumps(clean, ensure_ascii=False)

    def scrub_definitions(self, value: Any, counts: Scrubbed) -> Any:
        """Like scrub_value, where keys are names of fields: `name` in a schema is no person's."""
        match value:
            case dict():
                return {
                    key: entry if key in ("name", "type", "required") else self.scrub_definitions(entry, counts)
                    for key, entry in value.items()
                }
            case list():
                return [self.scrub_definitions(entry, counts) for entry in value]
            case str():
                return self.count(value, counts)
            case _:
                return value


def parse_json(text: str) -> Any:
    """The object or list that `text` is as JSON; None for anything else."""
    if text.lstrip()[:1] not in ("{", "["):
        return None
    try:
        return json.loads(text)
    except ValueError:
        return None


def scrub_rows(rows: pl.DataFrame, scrubber: Scrubber) -> tuple[pl.DataFrame, pl.DataFrame, Scrubbed]:
    """Rows that go on, the ledger, and the findings of all rows that go on."""
    columns: dict[str, list[Any]] = {column: [] for column in (*CONVERSATIONS, "tools")}
    lines: list[dict[str, str | None]] = []
    failed: list[str] = []
    total = Scrubbed("", Counter(), Counter())
    texts = rows.select("row_id", "tools", *CONVERSATIONS).iter_rows()
    for row_id, tools, *conversations in tqdm(texts, total=rows.height, desc="scrub", unit="row"):
        counts = Scrubbed("", Counter(), Counter())
        try:
            clean = [
                None if messages is None else [scrubber.scrub_message(message, counts) for message in messages]
                for messages in conversations
            ]
            clean_tools = scrubber.scrub_tools(tools, counts)
        except (FailedTextError, ValueError) as error:  # ValueError: tool calls that are no JSON
            reason = str(error) if isinstance(error, FailedTextError) else type(error).__name__
            lines.append({"row_id": row_id, "action": "drop", "reason": "scrub_failed", "detail": reason})
            failed.append(row_id)
            continue
        for column, messages in zip(CONVERSATIONS, clean, strict=True):
            columns[column].append(messages)
        columns["tools"].append(clean_tools)
        total.replaced.update(counts.replaced)
        total.kept.update(counts.kept)
        if counts.replaced:
            detail = ",".join(f"{entity}={count}" for entity, count in sorted(counts.replaced.items()))
            lines.append({"row_id": row_id, "action": "change", "reason": "pii", "detail": detail})
    kept = rows.filter(~pl.col("row_id").is_in(failed))
    kept = kept.with_columns(pl.Series(column, values, rows.schema[column]) for column, values in columns.items())
    return kept, ledger_lines("scrub", lines), total


def scrub_items(items: pl.DataFrame, scrubber: Scrubber) -> pl.DataFrame:
    """The evaluation items after the same replacement. Raises InputError where a recogniser fails on one."""
    clean = []
    for item in tqdm(items.iter_rows(named=True), total=items.height, desc="scrub items", unit="item"):
        try:
            question, answer, *choices = (
                scrubber.scrub(text).text for text in (item["question"], item["answer"], *item["choices"])
            )
        except FailedTextError as error:
            raise InputError(
                f"task {item['task']}, {item['subtask']}, item {item['item']}: a recogniser failed ({error}); "
                "take the item out of its file, or the entity out of scrub.entities"
            ) from None
        clean.append(item | {"question": question, "choices": choices, "answer": answer})
    return pl.DataFrame(clean, ITEM_SCHEMA)


def measure(
    params: Scrub, rows_in: int, ledger: pl.DataFrame, found: Scrubbed, not_covered: list[str]
) -> dict[str, Any]:
    """The metrics: findings by entity, every entity of params.yaml, in its order."""
    actions = ledger["action"].value_counts()
    count = dict(zip(actions["action"], actions["count"], strict=True))
    return {
        "rows_in": rows_in,
        "rows_out": rows_in - count.get("drop", 0),
        "changed": count.get("change", 0),
        "failed": count.get("drop", 0),
        "entities": {entity: found.replaced[entity] for entity, action in params.entities.items() if action != "keep"},
        "kept": {entity: found.kept[entity] for entity, action in params.entities.items() if action == "keep"},
        "names": params.names,
        "not_covered": not_covered,
    }


def main() -> None:
    params, tasks, rows = load(Scrub, "scrub"), load_tasks(), read_rows("data/dedup")
    planting, (probes, _) = load(Probes, "probes"), read_probes("data/dedup", "scrub")
    from stages.pii.analyser import Analyser

    analyser = Analyser(params.language, list(params.entities), params.threshold, params.names)
    if staying := [entity for entity in analyser.not_covered if entity == "PERSON" or entity in params.entities]:
        say("scrub", f"WARNING: nothing looks for {', '.join(staying)}: they stay; see scrub.names and scrub.entities")
    scrubber = Scrubber(params, analyser)
    kept, ledger, found = scrub_rows(rows, scrubber)
    check_balance("scrub", rows, kept, ledger)
    metrics = measure(params, rows.height, ledger, found, analyser.not_covered)
    counts, items = metrics["entities"], load_items(tasks)
    sought = [entity for entity, action in params.entities.items() if action != "keep"]
    probes = pl.concat([probes.filter(pl.col("probe").is_in(sought)), plant_leaks(items, rows.lazy(), planting)])
    probes = judge_personal_data(probes, scrub_rows(rows_of(probes), scrubber)[0])
    metrics["probes"] = score(probes, by_type=True)
    tables = {"rows": kept, "ledger": ledger, "items": scrub_items(items, scrubber), "probes": probes}
    for name, written in tables.items():
        write_table(f"data/scrub/{name}.parquet", written)
    write_csv("metrics/plots/scrub.csv", pl.DataFrame({"entity": list(counts), "count": list(counts.values())}))
    write_json("metrics/scrub.json", metrics)
    say("scrub", f"{sum(counts.values())} findings replaced in {metrics['changed']} rows; {metrics['failed']} dropped")


if __name__ == "__main__":
    run("scrub", main, outputs=["data/scrub"])
