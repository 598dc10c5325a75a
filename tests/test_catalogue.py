"""pedigree catalogue on a finished run: what it says is recounted from the tables, and a real server receives it."""

import io
import json
import threading
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import redirect_stdout
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import UUID

import attr
import jsonschema
import polars as pl
import prov
import pytest
from openlineage.client import event_v2, facet_v2
from prov.model import ProvDocument
from ruamel.yaml import YAML
from tiny import ROOT, call, complain, tell

from pedigree import openlineage as events_module
from pedigree.catalogue import repository_url
from pedigree.cli import main
from pedigree.columns import ORIGINS
from pedigree.runs import place_of

FACETS = json.loads((ROOT / "pedigree/rows_facet.schema.json").read_text())


@pytest.fixture
def inside(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(project)
    for name in ("OPENLINEAGE_URL", "OPENLINEAGE_NAMESPACE", "OPENLINEAGE_API_KEY", "OPENLINEAGE_DISABLED"):
        monkeypatch.delenv(name, raising=False)
    return project


@pytest.fixture(scope="module")
def written(project: Path) -> list[str]:
    told = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(told):
        patch.chdir(project)
        main(["catalogue", "--namespace", "clinic"])
    return told.getvalue().splitlines()


@pytest.fixture
def events(inside: Path, written: list[str]) -> dict[str, dict[str, Any]]:
    """Name of the stage → its event."""
    lines = [json.loads(line) for line in written]
    return {event["job"]["name"]: event for event in lines}


class Recorder(BaseHTTPRequestHandler):
    """Answers as Marquez does, 201 Created, and keeps what came."""

    received: list[tuple[str, str | None, dict[str, Any]]]
    answer = 201

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        type(self).received.append((self.path, self.headers["Authorization"], json.loads(body)))
        self.send_response(self.answer)
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[tuple[str, type[Recorder]]]:
    class Own(Recorder):
        received: list[tuple[str, str | None, dict[str, Any]]] = []  # noqa: RUF012

    listening = HTTPServer(("127.0.0.1", 0), Own)
    thread = threading.Thread(target=listening.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listening.server_port}", Own
    listening.shutdown()
    listening.server_close()


def keyed(datasets: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {dataset["name"]: dataset for dataset in datasets}


def test_every_stage_of_dvc_lock_is_an_event(inside: Path, events: dict[str, dict[str, Any]]) -> None:
    lock = YAML(typ="safe").load(Path("dvc.lock").read_text())["stages"]
    assert list(events) == list(lock)
    assert len({UUID(event["run"]["runId"]) for event in events.values()}) == len(lock)
    recorded = {int(stamp) for stamp in call(inside, "git", "log", "--format=%ct", "--", "dvc.lock").split()}
    graph = YAML(typ="safe").load(Path("dvc.yaml").read_text())["stages"]
    for name, event in events.items():
        assert event["eventType"] == "COMPLETE"
        assert pl.Series([event["eventTime"]]).str.to_datetime(time_zone="UTC").dt.epoch("s")[0] in recorded, name
        versions = {}
        for out in lock[name]["outs"]:
            if not out["path"].startswith("data/"):
                versions[out["path"]] = out["md5"]
        told = keyed(event["outputs"])
        assert {path: told[path]["facets"]["version"]["datasetVersion"] for path in versions} == versions
        assert event["run"]["facets"]["pedigree_packages"]["packages"]["polars"] == "2.1.0"
    assert events["dedup"]["job"]["facets"]["documentation"]["description"] == graph["dedup"]["desc"]
    assert events["eval@sft"]["job"]["facets"]["documentation"]["description"] == "The evaluation tasks on models/sft"
    listed = events["dedup"]["run"]["facets"]["executionParameters"]["parameters"]
    values = {entry["key"]: entry["value"] for entry in listed}
    params = YAML(typ="safe").load(Path("params.yaml").read_text())
    assert float(values["dedup.threshold"]) == params["dedup"]["threshold"]


def test_what_is_read_was_written_or_is_raw(events: dict[str, dict[str, Any]]) -> None:
    written = {(out["namespace"], out["name"]) for event in events.values() for out in event["outputs"]}
    assert len(written) == sum(len(event["outputs"]) for event in events.values())  # each by one stage
    for event in events.values():
        for dataset in event["inputs"]:
            raw = dataset["namespace"] == "clinic" and dataset["name"].startswith("data/raw/")
            assert raw or (dataset["namespace"], dataset["name"]) in written, dataset["name"]
    sources = YAML(typ="safe").load(Path("params.yaml").read_text())["sources"]
    assert {entry["path"] for entry in sources} <= set(keyed(events["pool"]["inputs"]))
    assert {"models/base", "models/sft", "data/mix/preference.parquet"} == set(keyed(events["align"]["inputs"]))
    assert "data/dedup/ledger.parquet" not in keyed(events["scrub"]["inputs"])


def test_tables_are_counted_and_described_as_they_are(events: dict[str, dict[str, Any]]) -> None:
    tables = 0
    for event in events.values():
        for dataset in event["outputs"]:
            if not dataset["name"].endswith(".parquet"):
                continue
            tables += 1
            table, statistics = pl.read_parquet(dataset["name"]), dataset["outputFacets"]["outputStatistics"]
            assert statistics["rowCount"] == table.height
            assert statistics["size"] == Path(dataset["name"]).stat().st_size
            assert [field["name"] for field in dataset["facets"]["schema"]["fields"]] == table.columns
    assert tables == len(list(Path().glob("data/*/*.parquet")) + list(Path().glob("data/eval/*/*.parquet"))
                         + list(Path().glob("models/*/*.parquet")))  # fmt: skip
    read = keyed(events["scrub"]["inputs"])["data/dedup/rows.parquet"]["inputFacets"]["inputStatistics"]
    assert read["rowCount"] == pl.read_parquet("data/dedup/rows.parquet").height
    messages = keyed(events["scrub"]["outputs"])["data/scrub/rows.parquet"]["facets"]["schema"]["fields"][8]
    assert (messages["name"], messages["type"]) == ("messages", "List(Struct)")
    assert [field["name"] for field in messages["fields"]][:2] == ["role", "content"]


def test_the_facet_of_rows_equals_the_ledgers(events: dict[str, dict[str, Any]]) -> None:
    facets = {name: event["run"]["facets"].get("pedigree_rows") for name, event in events.items()}
    before = None
    for stage in ("pool", "dedup", "scrub", "decontaminate"):
        rows = pl.read_parquet(f"data/{stage}/rows.parquet")
        ledger = pl.read_parquet(f"data/{stage}/ledger.parquet").rows(named=True)
        facet = facets[stage]
        for action, key in (("drop", "dropped"), ("change", "changed")):
            assert facet.get(key, {}) == Counter(line["reason"] for line in ledger if line["action"] == action)
        assert facet["rowsOut"] == rows.height
        assert facet["rowsOutBySource"] == Counter(rows["source"])
        assert facet["rowsIn"] == (before if before is not None else rows.height)
        before = rows.height
    refused = pl.read_parquet("data/pool/refused.parquet")
    assert facets["pool"]["recordsRefused"] == Counter(refused["reason"])
    mix = json.loads(Path("metrics/mix.json").read_text())
    assert (facets["mix"]["rowsIn"], facets["mix"]["rowsOut"]) == (mix["rows_in"], mix["rows_out"])
    assert sum(facets["mix"]["dropped"].values()) == sum(mix["left_out"].values())
    for kind in ("sft", "preference"):
        told = facets["mix"]["mixture"][kind]
        assert (told["train"], told["heldOut"]) == (mix[kind]["train_rows"], mix[kind]["heldout_rows"])
    for stage, model in (("sft", "sft"), ("align", "align"), ("quantize", "quantized")):
        consumed = pl.read_parquet(f"models/{model}/consumed.parquet")
        assert facets[stage]["consumedRows"] == len(set(consumed["row_id"]))
        assert (facets[stage]["consumedUses"], facets[stage]["steps"]) == (consumed.height, len(set(consumed["step"])))
    silent = {name for name, facet in facets.items() if facet is None}
    assert silent == {"base", "card", *(f"eval@{model}" for model in ("base", "sft", "align", "quantized"))}
    validator = jsonschema.Draft202012Validator(FACETS)
    for facet in filter(None, facets.values()):
        validator.validate(facet)
    declared = set(FACETS["$defs"]["RowsRunFacet"]["properties"]) - {"_producer", "_schemaURL"}
    assert declared == {field.name for field in attr.fields(events_module.RowsRunFacet)} - {"_producer", "_schemaURL"}
    with pytest.raises(jsonschema.ValidationError):
        validator.validate(facets["mix"] | {"dropped": {"over_budget": -1}})


def test_columns_come_from_where_the_events_say(events: dict[str, dict[str, Any]]) -> None:
    """Every column of a table with lineage is named; of an identity the values are equal, row by row."""
    compared, without = 0, set()
    for event in events.values():
        read = keyed(event["inputs"])
        for dataset in event["outputs"]:
            lineage = dataset["facets"].get("columnLineage")
            if lineage is None:
                without.add(dataset["name"])
                continue
            table = pl.read_parquet(dataset["name"])
            constant = {"stage", "action", "other_id"} if "/ledger" in dataset["name"] else set()
            constant |= {"action"} if dataset["name"].endswith("items.parquet") else set()  # as params.yaml has it
            own = {"correct", "loglikelihoods", "choice", "target"} if "eval/" in dataset["name"] else set()
            listed = {"licence", "source", "file", "record", "kind", "branch"} if "/pool/" in dataset["name"] else set()
            free = {"tools", "label"} if "/pool/" in dataset["name"] else set()
            assert set(table.columns) - constant - own - listed - free <= set(lineage["fields"]) <= set(table.columns)
            for column, entry in lineage["fields"].items():
                for origin in entry["inputFields"]:
                    assert origin["name"] in read, (dataset["name"], origin["name"])
                    fields = read[origin["name"]]["facets"]["schema"]["fields"]
                    assert origin["field"] in [field["name"] for field in fields], (dataset["name"], origin)
                    (change,) = origin["transformations"]
                    if change["subtype"] == "IDENTITY" and column == origin["field"]:
                        source = pl.read_parquet(origin["name"])
                        both = set(table.columns) & set(source.columns)
                        key = ["row_id"] if "row_id" in both else ["task", "subtask", "item"]
                        known = source.unique(key).select(*key, **{f"{column}_before": column})
                        pairs = table.join(known, on=key)
                        assert pairs[column].equals(pairs[f"{column}_before"]), (dataset["name"], column)
                        assert pairs.height == table.height or "/probes" in dataset["name"]
                        compared += pairs.height
            for origin in lineage["dataset"]:
                assert origin["name"] in read
                assert origin["transformations"][0]["type"] == "INDIRECT"
    assert compared > 10_000
    assert {name for name in without if name.endswith(".parquet")} == {
        "data/pool/ledger.parquet", "data/pool/probes.parquet", "data/pool/refused.parquet", "data/scrub/items.parquet",
        *(f"data/eval/{model}/answers.parquet" for model in ("base", "sft", "align", "quantized")),
    }  # fmt: skip


def test_what_scrub_replaced_and_whose_a_row_is_are_masked(events: dict[str, dict[str, Any]]) -> None:
    def masked(event: dict[str, Any], table: str) -> set[tuple[str, str]]:
        fields = keyed(event["outputs"])[table]["facets"]["columnLineage"]["fields"]
        return {(column, origin["field"]) for column, entry in fields.items() for origin in entry["inputFields"]
                if origin["transformations"][0]["masking"]}  # fmt: skip

    told = masked(events["scrub"], "data/scrub/rows.parquet")
    assert told == {(name, name) for name in ("messages", "tools", "chosen", "rejected")}
    before, after = (pl.read_parquet(f"data/{stage}/rows.parquet") for stage in ("dedup", "scrub"))
    changed = set(pl.read_parquet("data/scrub/ledger.parquet")["row_id"])
    pairs = after.join(before, on="row_id", suffix="_before")
    for column, _ in told:
        other = pairs.filter(pl.col(column).ne_missing(pl.col(f"{column}_before")))
        assert set(other["row_id"]) <= changed
    assert ("subject", "patient_id") in masked(events["pool"], "data/pool/rows.parquet")
    fields = keyed(events["pool"]["outputs"])["data/pool/rows.parquet"]["facets"]["columnLineage"]["fields"]
    said = {(origin["name"].rpartition("/")[2], origin["field"]) for origin in fields["messages"]["inputFields"]}
    assert {
        ("patient_questions.csv", "message"),
        ("patient_questions.csv", "reply"),
        ("desk_cards.tsv", "front"),
    } <= said


def test_events_are_what_the_clients_classes_build(events: dict[str, dict[str, Any]]) -> None:
    """Read back into the client's classes, which refuse an unknown or missing field, a bad UUID or time."""
    modules = [value for value in vars(facet_v2).values() if isinstance(value, ModuleType)]
    classes = {
        value._get_schema(): value
        for module in [*modules, events_module]
        for value in vars(module).values()
        if isinstance(value, type) and attr.has(value) and hasattr(value, "_get_schema")
    }
    seen = set()

    def rebuild(facets: dict[str, Any]) -> None:
        for facet in facets.values():
            seen.add(facet["_schemaURL"])
            given = {key.lstrip("_"): value for key, value in facet.items() if key != "_schemaURL"}
            assert classes[facet["_schemaURL"]](**given)._get_schema() == facet["_schemaURL"]

    for event in events.values():
        rebuild(event["run"]["facets"] | event["job"]["facets"])
        for dataset in event["inputs"] + event["outputs"]:
            rebuild(dataset["facets"] | dataset.get("inputFacets", {}) | dataset.get("outputFacets", {}))
        rest = {key: value for key, value in event.items() if key not in ("schemaURL", "run", "job")}
        run, job = event_v2.Run(**event["run"]), event_v2.Job(**event["job"])
        assert event_v2.RunEvent(run=run, job=job, **rest).schemaURL == event["schemaURL"]
    assert len(seen) >= 13


def test_the_same_run_is_the_same_bytes(inside: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    here, there = tmp_path / "here.jsonl", tmp_path / "there.jsonl"
    tell(capsys, "catalogue", "--output", str(here))
    tell(capsys, "catalogue", "--rev", "HEAD", "--output", str(there))
    assert here.read_bytes() == there.read_bytes()
    text = here.read_text()
    assert str(inside) not in text
    params = YAML(typ="safe").load(Path("params.yaml").read_text())
    withheld = params["scrub"].pop("allow")
    public = json.dumps(params)
    assert not [value for value in withheld if value in text and value not in public]
    assert "scrub.allow" not in text
    forms = tmp_path / "one.json", tmp_path / "two.json"
    tell(capsys, "catalogue", "--format", "prov", "--output", str(forms[0]))
    tell(capsys, "catalogue", "--format", "prov", "--output", str(forms[1]), "--rev", "HEAD")
    assert forms[0].read_bytes() == forms[1].read_bytes()


def test_code_and_namespace_are_those_of_the_remote(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call(inside, "git", "remote", "add", "origin", "https://me:hush@git.example.org/team/clinic.git")
    try:
        text = tell(capsys, "catalogue")
    finally:
        call(inside, "git", "remote", "remove", "origin")
    assert "hush" not in text
    events = {event["job"]["name"]: event for event in map(json.loads, text.splitlines())}
    assert {event["job"]["namespace"] for event in events.values()} == {"git.example.org/team/clinic"}
    code = events["align"]["job"]["facets"]["sourceCodeLocation"]
    assert (code["url"], code["path"]) == ("https://git.example.org/team/clinic", "stages/dpo.py")
    assert code["version"] in call(inside, "git", "log", "--format=%H", "--", "dvc.lock").split()


def test_events_reach_a_server(
    inside: Path,
    events: dict[str, dict[str, Any]],
    server: tuple[str, type[Recorder]],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    address, recorder = server
    monkeypatch.setenv("OPENLINEAGE_API_KEY", "a-key")
    assert f"{len(events)} events sent" in tell(capsys, "catalogue", "--namespace", "clinic", "--emit", address)
    assert {path for path, _, _ in recorder.received} == {"/api/v1/lineage"}
    assert {key for _, key, _ in recorder.received} == {"Bearer a-key"}
    for (_, _, got), event in zip(recorder.received, events.values(), strict=True):
        got["run"]["facets"].pop("tags")  # the client's own version
        assert got == event
    monkeypatch.delenv("OPENLINEAGE_API_KEY")
    monkeypatch.setenv("OPENLINEAGE_URL", address)
    tell(capsys, "catalogue", "--namespace", "clinic", "--emit")
    again = [body["run"]["runId"] for _, _, body in recorder.received[len(events) :]]
    assert again == [event["run"]["runId"] for event in events.values()]
    recorder.answer = 403
    assert "0 of 14 events were sent, then the server answered 403" in complain(capsys, "catalogue", "--emit", address)


def test_where_nothing_can_be_sent_it_is_said(
    inside: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with HTTPServer(("127.0.0.1", 0), Recorder) as closed:
        port = closed.server_port
    told = complain(capsys, "catalogue", "--emit", f"http://127.0.0.1:{port}")
    assert "0 of 14 events were sent, then the server could not be reached (ConnectionError)" in told
    assert "set OPENLINEAGE_URL" in complain(capsys, "catalogue", "--emit")
    assert "no user or password" in (refused := complain(capsys, "catalogue", "--emit", "http://me:hush@host"))
    assert "hush" not in refused
    assert "address of a server" in complain(capsys, "catalogue", "--emit", "marquez")
    assert "leave out" in complain(capsys, "catalogue", "--emit", "http://host", "--format", "prov")
    assert "as catalogues allow" in complain(capsys, "catalogue", "--namespace", "a b")
    monkeypatch.setenv("OPENLINEAGE_DISABLED", "true")
    assert "OPENLINEAGE_DISABLED is set" in complain(capsys, "catalogue", "--emit", "http://host")


def test_what_is_not_what_dvc_lock_recorded_is_refused(
    inside: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    table, lock = Path("data/dedup/rows.parquet"), Path("dvc.lock")
    folder, kept, recorded = table.parent, inside / ".pedigree/kept", lock.read_bytes()
    raw = Path("data/raw/sources/desk_cards.tsv")
    cards = raw.read_bytes()
    stage = json.loads(tell(capsys, "catalogue").splitlines()[2])
    try:
        raw.write_bytes(cards + b"more\tof it\n")
        assert "has other files than pool read" in complain(capsys, "catalogue")
        raw.write_bytes(cards)
        folder.rename(kept)
        capsys.readouterr()
        assert "data/dedup: was written, but is not here" in complain(capsys, "catalogue", "--output", "away.jsonl")
        away = {event["job"]["name"]: event for event in map(json.loads, Path("away.jsonl").read_text().splitlines())}
        told = keyed(away["dedup"]["outputs"])["data/dedup/rows.parquet"]
        assert told["facets"]["version"] == keyed(stage["outputs"])["data/dedup/rows.parquet"]["facets"]["version"]
        assert "outputStatistics" not in told["outputFacets"]
        assert "pedigree_rows" not in away["dedup"]["run"]["facets"]
        folder.mkdir()
        pl.read_parquet(kept / "rows.parquet").head(3).write_parquet(table)
        assert "data/dedup/rows.parquet: is not what dvc.lock recorded" in complain(capsys, "catalogue")
        table.unlink()
        folder.rmdir()
        kept.rename(folder)
        text = recorded.decode().replace("cmd: sh stages/run dedup", "cmd: sh stages/run  dedup")
        lock.write_text(text)
        later = {event["job"]["name"]: event for event in map(json.loads, tell(capsys, "catalogue").splitlines())}
        assert later["dedup"]["run"]["runId"] != stage["run"]["runId"]
        assert later["dedup"]["eventTime"] != stage["eventTime"] == later["pool"]["eventTime"]
        lock.unlink()
        assert "nothing has run" in complain(capsys, "catalogue")
    finally:
        lock.write_bytes(recorded)
        raw.write_bytes(cards)
        Path("away.jsonl").unlink(missing_ok=True)
        if kept.is_dir():
            for left in folder.glob("*"):
                left.unlink()
            folder.rmdir() if folder.is_dir() else None
            kept.rename(folder)


def test_prov_loads_and_says_who_made_what(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = tell(capsys, "catalogue", "--format", "prov", "--namespace", "clinic")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        document = ProvDocument.deserialize(content=text)
    schema = json.loads((Path(prov.__file__).parent / "tests/schemas/prov-json.schema.json").read_text())
    jsonschema.validate(json.loads(text), schema)  # the W3C member submission's
    kinds = Counter(type(record).__name__ for record in document.records)
    lock = YAML(typ="safe").load(Path("dvc.lock").read_text())["stages"]
    assert kinds["ProvActivity"] == len(lock)
    data = json.loads(text)
    labels = {name: entity["prov:label"] for name, entity in data["entity"].items()}
    runs = {name: activity["prov:label"] for name, activity in data["activity"].items()}
    made = {labels[each["prov:entity"]]: runs[each["prov:activity"]] for each in data["wasGeneratedBy"].values()}
    assert made["data/scrub/rows.parquet"] == "scrub"
    assert made["models/align"] == "align"
    derived = {(labels[each["prov:generatedEntity"]], labels[each["prov:usedEntity"]])
               for each in data["wasDerivedFrom"].values()}  # fmt: skip
    assert {("data/scrub/rows.parquet", "data/dedup/rows.parquet"), ("models/align", "models/sft"),
            ("models/sft", "data/mix/sft.parquet"),
            ("data/pool/rows.parquet", "data/raw/sources/clinic_faq.json")} <= derived  # fmt: skip
    rows = next(entity for entity in data["entity"].values() if entity["prov:label"] == "data/dedup/rows.parquet")
    assert rows["pedigree:rows"] == {"$": str(pl.read_parquet("data/dedup/rows.parquet").height), "type": "xsd:int"}
    assert "package:polars==2.1.0" in data["agent"]
    used = {labels[each["prov:entity"]] for each in data["used"].values()}
    assert used - set(made)
    assert all(name.startswith("data/raw/") for name in used - set(made))


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("s3://bucket/a/b.jsonl", ("s3://bucket", "a/b.jsonl")),
        ("https://host/a.csv", ("https://host", "a.csv")),
        ("file:///srv/a.csv", ("file", "/srv/a.csv")),
        ("hub:team/data", ("hf://datasets", "team/data")),
        ("data/raw/sources/a.json", ("clinic", "data/raw/sources/a.json")),
    ],
)
def test_places_are_named_as_openlineage_names_them(path: str, place: tuple[str, str]) -> None:
    assert place_of(path, "clinic") == place


@pytest.mark.parametrize(
    ("remote", "told"),
    [
        ("git@git.example.org:team/clinic.git", "ssh://git.example.org/team/clinic"),
        ("https://me:token@git.example.org:8443/team/clinic.git", "https://git.example.org:8443/team/clinic"),
        ("/srv/git/clinic.git", None),
    ],
)
def test_no_password_or_path_of_a_remote_is_told(
    remote: str, told: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    call(tmp_path, "git", "init", "-q")
    assert repository_url() is None
    call(tmp_path, "git", "remote", "add", "origin", remote)
    assert repository_url() == told


def test_lineage_of_columns_speaks_of_tables_that_a_stage_writes() -> None:
    written = set(ORIGINS) | {"data/pool/rows.parquet", "data/pool/probes.parquet", "data/scrub/items.parquet"}
    assert {origin.table for origins in ORIGINS.values() for origin in origins} <= written
