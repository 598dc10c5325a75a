"""Turn the benchmarks' own files into tasks that `eval` runs: JSONL items and the YAML files of this folder.

    python docs/benchmarks/prepare.py --mmlu DIR --hellaswag FILE --truthfulqa FILE [--out data/raw/eval]

    --mmlu        the folder with test/ and dev/: <subject>_test.csv without a header, question,A,B,C,D,answer
    --hellaswag   hellaswag_val.jsonl of the authors (activity_label, ctx_a, ctx_b, endings, label), or a text copy with
                  {ctx: "activity_label: ctx", endings, label}
    --truthfulqa  mc_task.json of the authors

Give any of them. Then name the tasks in params.yaml: the entries to add are printed. Standard library only.
"""

import argparse
import csv
import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
WRITTEN_FOR = "data/raw/eval"  # where the YAML files of this folder look for their items
LETTERS = "ABCD"


def write_items(path: Path, items: Iterable[dict[str, Any]]) -> int:
    """JSONL, one item a line; the number of items."""
    lines = [json.dumps(item, ensure_ascii=False) + "\n" for item in items]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(lines), encoding="utf-8")
    return len(lines)


def write_task(name: str, path: Path, out: Path, members: str = "") -> None:
    """A YAML file of this folder with the paths below `out`."""
    text = (FOLDER / name).read_text(encoding="utf-8").replace(WRITTEN_FOR, out.as_posix())
    path.write_text(text + members, encoding="utf-8")


def read_mmlu(path: Path) -> list[dict[str, Any]]:
    """question, choices, answer (0-based) and subject of each line of one subject's CSV file."""
    subject = path.stem.rsplit("_", 1)[0].replace("_", " ")
    items = []
    with path.open(encoding="utf-8", newline="") as file:
        for number, line in enumerate(csv.reader(file)):
            if len(line) != 6 or line[5].strip() not in tuple(LETTERS):
                raise ValueError(f"{path}, record {number}: expected question,A,B,C,D,answer with an answer of A to D")
            answer = LETTERS.index(line[5].strip())
            items.append({"question": line[0], "subject": subject, "choices": line[1:5], "answer": answer})
    return items


def prepare_mmlu(folder: Path, out: Path) -> list[str]:
    tests = sorted(folder.glob("test/*_test.csv"))
    if not tests:
        raise ValueError(f"{folder}: has no test/<subject>_test.csv; give the folder that holds test/ and dev/")
    total, members = 0, "task:\n"
    for test in tests:
        subject = test.stem.removesuffix("_test")
        members += f"  - task: {subject}\n    dataset_kwargs:\n      data_files:\n"
        for split, file in (("test", test), ("dev", folder / "dev" / f"{subject}_dev.csv")):
            target = out / "mmlu" / split / f"{subject}.jsonl"
            count = write_items(target, read_mmlu(file))
            total += count if split == "test" else 0
            members += f"        {split}: {target.as_posix()}\n"
    write_task("mmlu.yaml", out / "mmlu" / "mmlu.yaml", out, members)
    print(f"mmlu: {total} items of {len(tests)} subjects" + ("" if len(tests) == 57 else "; the whole has 57"))
    return ["mmlu/mmlu"]


def clean_hellaswag(text: str) -> str:
    """lm-eval's cleaning: the marks of WikiHow go."""
    text = text.strip().replace(" [title]", ". ")
    return re.sub(r"\[.*?\]", "", text).replace("  ", " ")


def read_hellaswag(path: Path) -> list[dict[str, Any]]:
    """query, choices and label (0-based) of each record."""
    items = []
    for number, line in enumerate(path.read_text(encoding="utf-8").rstrip("\n").split("\n")):
        record = json.loads(line)
        try:
            if "ctx_a" in record:
                query = f"{record['activity_label']}: {record['ctx_a']} {record['ctx_b'].capitalize()}"
            else:
                query = record["ctx"]
            choices = [clean_hellaswag(ending) for ending in record["endings"]]
            items.append({"query": clean_hellaswag(query), "choices": choices, "label": int(record["label"])})
        except KeyError as error:
            raise ValueError(f"{path}, record {number}: {error} is missing; the test file has no labels") from None
    return items


def prepare_hellaswag(path: Path, out: Path) -> list[str]:
    print(f"hellaswag: {write_items(out / 'hellaswag' / 'validation.jsonl', read_hellaswag(path))} items")
    write_task("hellaswag.yaml", out / "hellaswag" / "hellaswag.yaml", out)
    return ["hellaswag/hellaswag"]


def read_truthfulqa(path: Path) -> list[dict[str, Any]]:
    """question and, for mc1 and mc2, {choices, labels} in the authors' order: the best answer is the first."""
    items = []
    for number, record in enumerate(json.loads(path.read_text(encoding="utf-8"))):
        item = {"question": record["question"]}
        for name in ("mc1_targets", "mc2_targets"):
            item[name] = {"choices": list(record[name]), "labels": list(record[name].values())}
        if item["mc1_targets"]["labels"] != [1] + [0] * (len(record["mc1_targets"]) - 1):
            raise ValueError(f"{path}, record {number}: the first answer of mc1_targets is not the only true one")
        items.append(item)
    return items


def prepare_truthfulqa(path: Path, out: Path) -> list[str]:
    print(f"truthfulqa: {write_items(out / 'truthfulqa' / 'validation.jsonl', read_truthfulqa(path))} items")
    for name in ("truthfulqa_mc1", "truthfulqa_mc2"):
        write_task(f"{name}.yaml", out / "truthfulqa" / f"{name}.yaml", out)
    return ["truthfulqa/truthfulqa_mc1", "truthfulqa/truthfulqa_mc2"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("mmlu", "hellaswag", "truthfulqa"):
        parser.add_argument(f"--{name}", type=Path)
    parser.add_argument("--out", type=Path, default=Path(WRITTEN_FOR), help="relative to the repository's root")
    given = parser.parse_args()
    prepared = {"mmlu": prepare_mmlu, "hellaswag": prepare_hellaswag, "truthfulqa": prepare_truthfulqa}
    try:
        paths = [
            path for name, make in prepared.items() if vars(given)[name] for path in make(vars(given)[name], given.out)
        ]
    except (OSError, ValueError) as error:
        sys.exit(f"prepare: {error}")
    if not paths:
        parser.error("name at least one benchmark")
    print("\nAdd to `tasks:` in params.yaml (chat: false asks with the official prompt):\n")
    for path in paths:
        print(f"  - name: {path.split('/')[1]}\n    path: {(given.out / path).as_posix()}.yaml")
        print("    chat: false\n    limit: null")


if __name__ == "__main__":
    main()
