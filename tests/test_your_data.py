"""docs/your-data.md, followed: three unfamiliar files and an evaluation of their own, from nothing to a result."""

import bz2
import itertools
import json
import re
from pathlib import Path

import polars as pl
import pytest
import zstandard
from ruamel.yaml import YAML
from tiny import DVC, ROOT, call, copy_project

PEDIGREE = [*DVC[:1], "-m", "pedigree"]
SOURCES = Path("data/raw/sources")
STREETS = ("Mill Lane", "Orchard Row", "Harbour Street", "Quarry Hill", "Chapel Walk", "Dyer's Yard", "Old Ferry Road")
TROUBLES = {
    "lamp": "The street lamp opposite the bakery on {} flickers all night and nobody sleeps.",
    "bin": "Our paper bin on {} was not emptied this week although it stood out before six.",
    "hole": "A hole as deep as a bucket has opened in the pavement of {} near the bus stop.",
    "noise": "Somebody saws wood on {} every Sunday morning; is that allowed at all?",
    "tree": "The old lime tree on {} has dropped a branch on the bicycle stand.",
    "permit": "How do I get a resident's parking permit for {} and what does it cost?",
}
REPLIES = {
    "lamp": "Thank you. The lamp crew covers {} on its next round and mends it within five working days.",
    "bin": "We are sorry. The collectors come to {} again tomorrow; please leave the bin at the kerb.",
    "hole": "Thank you for the warning. Barriers go up on {} today, and the road crew fills the hole.",
    "noise": "Loud work is not allowed on Sundays. The wardens visit {} and speak with the neighbour.",
    "tree": "The gardeners clear {} this afternoon and look at the rest of the tree.",
    "permit": "Bring your registration to the desk; a permit for {} costs 48 a year.",
}
QUESTIONS = {
    "When may neighbours use loud tools?": ["on weekdays", "on holidays only", "at midnight", "never"],
    "What does leaving a car near one's home cost?": ["48 a year", "9 a day", "nothing", "200 a month"],
    "Who looks after fallen branches?": ["the gardeners", "the wardens", "the police", "the bakery"],
    "Where should an uncollected container wait?": ["at the kerb", "in the cellar", "at the desk", "on the roof"],
}


def blocks_of_page() -> list[str]:
    return re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/your-data.md").read_text(), re.DOTALL)


def write_files(folder: Path) -> None:
    """The three files and the items, in shapes of their own."""
    cases = list(itertools.product(TROUBLES, STREETS))
    lines = ["ticket_no\tcitizen\trequest\tresolution"]
    for number, (trouble, street) in enumerate(cases):
        contact = " Write to ada.vance@example.com or call 212-555-0188." if number == 3 else ""
        lines.append(
            f"{number}\tC{number % 9}\t{TROUBLES[trouble].format(street)}{contact}\t{REPLIES[trouble].format(street)}"
        )
    lines.append("99\tC1\tA request that nobody answered\t")
    (folder / "tickets.tsv.bz2").write_bytes(bz2.compress("\n".join(lines).encode()))
    chats = [
        {
            "agent": "desk 4",
            "transcript": [
                {"role": "user", "content": f"Hello, I live on {street}. {TROUBLES[one].format('my street')}"},
                {"role": "assistant", "content": REPLIES[one].format(street)},
                {"role": "user", "content": f"One more thing. {TROUBLES[other].format('our road')}"},
                {"role": "assistant", "content": REPLIES[other].format(street)},
            ],
        }
        for (one, other), street in zip(itertools.permutations(TROUBLES, 2), itertools.cycle(STREETS), strict=False)
    ]
    text = "\n".join(json.dumps(chat) for chat in chats)
    (folder / "chats.jsonl.zst").write_bytes(zstandard.compress(text.encode()))
    pairs = [
        {"asked": TROUBLES[trouble].format(street), "better": REPLIES[trouble].format(street), "worse": "Not my job."}
        for trouble, street in cases[::2]
    ]
    pl.DataFrame(pairs).write_parquet(folder / "reviews.parquet")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page's steps 1 to 3."""
    folder = tmp_path_factory.mktemp("your_data")
    copy_project(folder)
    sources, policy, task, tasks = blocks_of_page()
    write_files(folder / SOURCES)
    call(
        folder,
        *DVC,
        "add",
        "-q",
        *(str(SOURCES / name) for name in ("tickets.tsv.bz2", "chats.jsonl.zst", "reviews.parquet")),
    )
    (folder / "data/raw/eval/helpdesk.yaml").write_text(task)
    items = [
        json.dumps({"question": question, "choices": choices, "label": 0}) for question, choices in QUESTIONS.items()
    ]
    (folder / "data/raw/eval/helpdesk.jsonl").write_text("\n".join(items))
    yaml = YAML()
    values = yaml.load((folder / "params.yaml").read_text())
    for block in (sources, policy, tasks):
        values |= YAML(typ="safe", pure=True).load(block)
    values["mix"]["budget"] = dict.fromkeys(("sft", "preference", "unpaired", "total"))
    yaml.dump(values, folder / "params.yaml")
    return folder


def test_the_check_passes_and_names_a_mistake(project: Path) -> None:
    assert "sources   3" in call(project, *PEDIGREE, "check")
    text = (project / "params.yaml").read_text()
    try:
        (project / "params.yaml").write_text(text.replace("share: 0.4", "share: 0.5"))
        with pytest.raises(
            AssertionError, match=r"the shares of kind sft sum to 1.1, not 1 \(tickets 0.6, chats 0.5\)"
        ):
            call(project, *PEDIGREE, "check")
        (project / "params.yaml").write_text(text.replace("answer: resolution", "answer: solution"))
        with pytest.raises(AssertionError, match="no column solution"):
            call(project, *PEDIGREE, "check")
    finally:
        (project / "params.yaml").write_text(text)


def test_from_the_files_to_a_result(project: Path) -> None:
    call(project, *DVC, "repro")
    pool = json.loads((project / "metrics/pool.json").read_text())
    n_cases = len(TROUBLES) * len(STREETS)
    assert pool["rows"] == {"tickets": n_cases, "chats": 30, "reviews": n_cases // 2}
    assert pool["refused"] == 1  # the request that nobody answered
    subjects = pl.read_parquet(project / "data/mix/sft.parquet")["subject"].drop_nulls()
    assert len(subjects)
    assert not subjects.str.contains("^C[0-9]$").any()
    scrubbed = (project / "data/scrub/rows.parquet").read_bytes()
    entities = json.loads((project / "metrics/scrub.json").read_text())["entities"]
    assert entities["EMAIL_ADDRESS"] == entities["PHONE_NUMBER"] == 1
    assert "ada.vance" not in str(pl.read_parquet(scrubbed).to_dicts())
    for model in ("base", "sft", "align", "quantized"):
        scores = json.loads((project / f"metrics/eval/{model}.json").read_text())
        assert list(scores) == ["helpdesk"]
        assert scores["helpdesk"]["items"] == len(QUESTIONS)
    card = (project / "reports/card.md").read_text()
    assert all(
        name in card for name in ("tickets", "chats", "reviews", "helpdesk", "terms of the help desk, section 4")
    )
    assert "Licence of the model: **not to be released**" in card
    assert "helpdesk.acc" in call(project, *PEDIGREE, "summary")
    assert "Data and pipelines are up to date" in call(project, *DVC, "repro")


def test_the_next_version_of_a_file_reruns_from_pool(project: Path) -> None:
    path = project / SOURCES / "tickets.tsv.bz2"
    before = path.read_bytes()
    lines = bz2.decompress(before).decode().replace("five working days", "three working days")
    path.unlink()
    path.write_bytes(bz2.compress(lines.encode()))
    call(project, *DVC, "add", "-q", str(SOURCES / "tickets.tsv.bz2"))
    printed = call(project, *DVC, "repro", "--dry").splitlines()
    assert [line.split("'")[1] for line in printed if line.startswith("Running stage")] == ["pool"]
