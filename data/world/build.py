"""Build the embedded data: data/world/**.yaml → data/raw/sources, data/raw/eval, data/world/planted.json

    python data/world/build.py            write what has changed
    python data/world/build.py --check    write nothing; exit with 1 where a file is not what the texts give

Every choice is drawn from the seed and the name of what it is for (entries.draw), so the same texts give the same
bytes anywhere, and an edit of one text moves no other.
"""

import csv
import gzip
import io
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "data/world")]

from checks import faults  # noqa: E402
from compose import compose_sources, compose_tasks  # noqa: E402
from entries import Sources, draw, shuffled_entries  # noqa: E402
from mess import mess_of  # noqa: E402
from patients import patient_rows  # noqa: E402

from stages.common.files import write_bytes  # noqa: E402
from stages.common.params import read_yaml  # noqa: E402

FILES = {
    "clinic_faq": "data/raw/sources/clinic_faq.json",
    "patient_questions": "data/raw/sources/patient_questions.csv",
    "desk_cards": "data/raw/sources/desk_cards.tsv",
    "dialogues": "data/raw/sources/dialogues.json",
    "desk_tools": "data/raw/sources/desk_tools.jsonl",
    "community": "data/raw/sources/community.jsonl.gz",
    "general_skills": "data/raw/sources/general_skills.json",
    "clinic_preferences": "data/raw/sources/clinic_preferences.jsonl",
    "reviewed_replies": "data/raw/sources/reviewed_replies.jsonl",
}
TASK = """\
# {title}
# lm-eval puts target_delimiter (a space) between question and choice, but nothing where the chat template is applied.
task: {name}
dataset_path: json
dataset_kwargs:
  data_files:
    test: data/raw/eval/{name}.jsonl
test_split: test
num_fewshot: 0
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: choices
doc_to_target: label
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
  - metric: acc_norm
    aggregation: mean
    higher_is_better: true
metadata:
  version: 1
"""
TITLES = {
    "clinic": "Facts of the clinic, three items a fact, in words that no training row uses.",
    "general": "General knowledge and skills, so that forgetting can be seen.",
}


def read_world(folder: Path) -> dict[str, Any]:
    """All authored text."""
    facts = [fact for path in sorted((folder / "facts").glob("*.yaml")) for fact in read_yaml(path)]
    preferences = [item for path in sorted((folder / "preferences").glob("*.yaml")) for item in read_yaml(path)]
    conversations = {
        name: read_yaml(folder / f"conversations/{name}.yaml")
        for name in ("dialogues", "tools", "trees", "desk", "prompts")
    }
    general = {name: read_yaml(folder / f"general/{name}.yaml") for name in ("instructions", "items")}
    mess = read_yaml(folder / "mess.yaml")
    return {"facts": facts, "preferences": preferences, **conversations, **general, "mess": mess}


def plant(sources: Sources, tasks: dict[str, Any], mess: dict[str, Any]) -> tuple[Sources, dict[str, Any]]:
    """The sources with the mess, in the order of their files, and where each planted thing stands in them."""
    plants = mess_of(sources, tasks, mess)
    full = {
        source: entries + [plant.entry for plant in plants if plant.source == source]
        for source, entries in sources.items()
    }
    ordered = {source: shuffled_entries(entries, f"order of {source}") for source, entries in full.items()}
    origins = {plant.entry.key: plant.origin[1] for plant in plants if plant.origin}
    asked = {entry.key for entry in sources["patient_questions"]}
    twins = {
        plant.entry.key: plant.origin[1]
        for plant in plants
        if plant.what == "repeats" and plant.origin and plant.origin[1] in asked and draw("twin", plant.entry.key) % 2
    }
    ordered["patient_questions"], personal = patient_rows(
        full["patient_questions"], mess, twins, asked - set(origins.values())
    )
    place = {
        (source, entry.key): {"source": source, "record": record}
        for source, entries in ordered.items()
        for record, entry in enumerate(entries)
    }
    planted: dict[str, list[dict[str, Any]]] = {}
    for item in plants:
        of = {"of": place[item.origin]} if item.origin else {}
        planted.setdefault(item.what, []).append({"at": place[item.source, item.entry.key], **of, **item.details})
    planted["personal"] = [
        {"at": place["patient_questions", key], "entities": entities} for key, entities in personal.items()
    ]
    return ordered, planted


def transcript(pair: dict[str, Any]) -> dict[str, str]:
    """A preference pair as two transcripts (HH); a record without a prompt is one already."""
    if "prompt" not in pair:
        return pair
    return {side: f"\n\nHuman: {pair['prompt']}\n\nAssistant: {pair[side]}" for side in ("chosen", "rejected")}


def encode(path: str, records: list[Any]) -> bytes:
    """The records as the file that `path` names: JSON with a record to a line, JSON Lines, CSV, TSV."""
    if path.endswith((".csv", ".tsv")):
        text = io.StringIO()
        delimiter = "\t" if path.endswith(".tsv") else ","
        table = csv.DictWriter(text, list(records[0]), lineterminator="\n", delimiter=delimiter)
        table.writeheader()
        table.writerows(records)
        return text.getvalue().encode()
    if path.endswith(".json"):
        return ("[\n" + ",\n".join(json.dumps(record, ensure_ascii=False) for record in records) + "\n]\n").encode()
    lines = [record if isinstance(record, str) else json.dumps(record, ensure_ascii=False) for record in records]
    return "".join(f"{line}\n" for line in lines).encode()


def list_planted(planted: dict[str, list[dict[str, Any]]]) -> bytes:
    """planted.json, a planted thing to a line."""
    blocks = [
        f' "{what}": [\n' + ",\n".join(f"  {json.dumps(item, ensure_ascii=False)}" for item in items) + "\n ]"
        for what, items in planted.items()
    ]
    return ("{\n" + ",\n".join(blocks) + "\n}\n").encode()


def build(folder: Path) -> tuple[dict[str, bytes], list[str]]:
    """Every file that the texts give (content before gzip), by path, and what is wrong with them."""
    world = read_world(folder)
    tasks = compose_tasks(world)
    sources, planted = plant(compose_sources(world), tasks, world["mess"])
    found = faults(sources, tasks, planted)
    records = {source: [entry.record for entry in entries] for source, entries in sources.items()}
    records["clinic_preferences"] = [transcript(pair) for pair in records["clinic_preferences"]]
    files = {path: encode(path.removesuffix(".gz"), records[source]) for source, path in FILES.items()}
    for name, items in tasks.items():
        files[f"data/raw/eval/{name}.jsonl"] = encode(f"{name}.jsonl", items)
        files[f"data/raw/eval/{name}.yaml"] = TASK.format(name=name, title=TITLES[name]).encode()
    prompts = (folder / "conversations/prompts.yaml").read_text(encoding="utf-8")
    files["data/raw/prompts.yaml"] = f"# Fixed prompts whose answers the card shows.\n{prompts}".encode()
    files["data/world/planted.json"] = list_planted(planted)
    return files, found


def read_content(path: Path) -> bytes | None:
    """The content of a file before gzip (whose bytes differ between libraries), None where there is no file."""
    if not path.exists():
        return None
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


def pack(path: Path, content: bytes) -> bytes:
    """gzip without a name or a time, where the file's name asks for it."""
    if path.suffix != ".gz":
        return content
    packed = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=packed, mtime=0) as file:
        file.write(content)
    return packed.getvalue()


def main() -> int:
    files, found = build(ROOT / "data/world")
    changed = [path for path, content in files.items() if read_content(ROOT / path) != content]
    for line in found:
        print(f"world: {line}", file=sys.stderr)
    if found:
        return 1
    if "--check" in sys.argv[1:]:
        for path in changed:
            print(f"world: {path} is not what the texts give; run python data/world/build.py", file=sys.stderr)
        return 1 if changed else 0
    for path in changed:
        write_bytes(ROOT / path, pack(ROOT / path, files[path]))
    print(f"world: {len(changed)} of {len(files)} files written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
