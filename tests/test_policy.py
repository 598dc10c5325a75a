"""What licences and consents allow, from the licences' own texts, and where a user is told."""

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from ruamel.yaml import YAML
from tiny import ROOT, complain, tell

from pedigree.blocks import validate_block
from stages import mix, pool
from stages.common.errors import InputError
from stages.common.licences import UnknownLicenceError, read_alternatives, read_table
from stages.common.params import Attribution, Source, read_yaml
from stages.common.policy import NOT_RELEASED, Policy, Settled, Work, settle

NAMED = Attribution(title="A work", author="Somebody", link=None)
CONTRACT = {
    "commercial_use": True, "derivatives": "internal", "share_alike": [], "attribution": False, "conditions": None,
    "url": "contract 2026-14, section 3",
}  # fmt: skip


def make_policy(**rest: Any) -> Policy:
    values = {
        "use": "commercial", "release": "public", "share_alike": "refuse", "no_derivatives": "refuse",
        "consents": ["public"], "licences": {},
    }  # fmt: skip
    return Policy.model_validate(values | rest)


def work(licence: str, name: str = "forum", **rest: Any) -> Work:
    values = {"key": f"sources.{name}", "name": name, "attribution": NAMED, "uses": None, "consent": "public"}
    return Work(licence=licence, **values | rest)


def base(licence: str = "Apache-2.0") -> Work:
    return Work("base", "Small", licence, NAMED, None, None)


def judge(*licences: str, base_licence: str = "Apache-2.0", **policy: Any) -> Settled:
    works = [work(licence, f"source_{number}") for number, licence in enumerate(licences)]
    return settle(make_policy(**policy), [base(base_licence), *works])


def names(expression: str) -> list[list[str]]:
    return [[licence.name for licence in each] for each in read_alternatives(expression, {})]


# Each row is read out of the licence's text: what it forbids under the policy that asks for the most.
@pytest.mark.parametrize(
    ("licence", "words"),
    [
        ("CC0-1.0", None),
        ("CC-BY-4.0", None),
        ("MIT", None),
        ("Apache-2.0", None),
        ("ODC-By-1.0", None),
        ("CDLA-Sharing-1.0", None),  # 3.5: no restrictions on results
        ("llama3.1", None),
        ("CC-BY-NC-4.0", "forbids commercial use"),  # 2(a)(1)
        ("CC-BY-NC-SA-3.0-IGO", "forbids commercial use"),  # WHO's
        ("CC-BY-SA-4.0", "is share-alike: a released model must bear CC-BY-SA-4.0 or GPL-3.0-only"),  # 3(b)
        ("ODbL-1.0", "is share-alike: a released model must bear ODbL-1.0"),  # 4.4
        ("GPL-3.0-only", "is share-alike"),  # 5(c)
        ("CC-BY-ND-4.0", "forbids to pass adaptations on"),  # 2(a)(1)(B)
        ("CC-BY-ND-3.0", "forbids to make adaptations"),  # 3
    ],
)
def test_commercial_and_public(licence: str, words: str | None) -> None:
    conflicts = judge(licence).conflicts
    if words is None:
        assert conflicts == []
    else:
        assert conflicts[0].startswith(f"params.yaml, sources.source_0.licence: {licence} {words}")
        assert "set its share to 0 or take it out" in conflicts[0]


@pytest.mark.parametrize(
    ("licence", "policy"),
    [
        ("CC-BY-NC-4.0", {"use": "research"}),
        ("CC-BY-SA-4.0", {"share_alike": "accept"}),
        ("CC-BY-SA-4.0", {"release": "internal"}),  # 3(b) binds those who share
        ("CC-BY-ND-4.0", {"release": "internal"}),  # "produce and reproduce, but not Share"
        ("CC-BY-ND-3.0", {"no_derivatives": "accept"}),
        ("CC-BY-NC-SA-4.0", {"use": "research", "share_alike": "accept"}),
    ],
)
def test_what_a_policy_opens(licence: str, policy: dict[str, str]) -> None:
    assert judge(licence, **policy).conflicts == []
    for key in policy:
        rest = {name: value for name, value in policy.items() if name != key}
        assert len(judge(licence, **rest).conflicts) == 1


def test_older_no_derivatives_bar_making_them_in_the_house_too() -> None:
    assert len(judge("CC-BY-NC-ND-3.0", use="research", release="internal").conflicts) == 1
    assert judge("CC-BY-NC-ND-4.0", use="research", release="internal").conflicts == []


@pytest.mark.parametrize(
    ("expression", "alternatives"),
    [
        ("cc-by-4.0", [["CC-BY-4.0"]]),
        ("odbl", [["ODbL-1.0"]]),
        ("gpl-3.0", [["GPL-3.0-only"]]),  # SPDX: deprecated for this one
        ("MIT OR apache-2.0", [["MIT"], ["Apache-2.0"]]),
        ("CC-BY-4.0 AND ODbL-1.0", [["CC-BY-4.0", "ODbL-1.0"]]),
        ("MIT OR ISC AND CC0-1.0", [["MIT"], ["ISC", "CC0-1.0"]]),  # AND before OR
        ("(MIT OR ISC) and cc0-1.0", [["MIT", "CC0-1.0"], ["ISC", "CC0-1.0"]]),
        ("GPL-2.0-only WITH Classpath-exception-2.0", [["GPL-2.0-only"]]),
        ("MIT AND MIT", [["MIT"]]),
        ("MIT AND ISC AND CC0-1.0", [["MIT", "ISC", "CC0-1.0"]]),
    ],
)
def test_expressions(expression: str, alternatives: list[list[str]]) -> None:
    assert names(expression) == alternatives


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("cc-by-nc-4", "did you mean `CC-BY-NC-4.0`?"),
        ("CC BY SA 4.0", "did you mean `CC-BY-SA-4.0`?"),
        ("apache2", "did you mean `Apache-2.0`?"),
        ("Research only, ask us", "'Research only, ask us' is no licence"),
        ("other", "says nothing of what is allowed"),
        ("", "says nothing of what is allowed"),
        ("MIT AND", "a licence is missing"),
        ("MIT OR OR ISC", "a licence is missing before OR"),
        ("(MIT OR ISC", "a bracket is not closed"),
        ("MIT ISC OR 0BSD", "cannot be read from 'ISC' on"),
    ],
)
def test_what_cannot_be_read(expression: str, words: str) -> None:
    with pytest.raises(UnknownLicenceError) as failure:
        read_alternatives(expression, {})
    assert words in str(failure.value)
    assert str(failure.value) in judge(expression).conflicts[0]


def test_of_a_choice_the_one_that_the_policy_allows_is_used() -> None:
    settled = judge("GPL-3.0-only OR MIT", "CC-BY-NC-4.0 OR CC-BY-4.0", "CC-BY-4.0 AND CC-BY-NC-4.0")
    assert [[each.name for each in settled.chosen.get(f"sources.source_{n}", ())] for n in range(3)] == [
        ["MIT"],
        ["CC-BY-4.0"],
        [],
    ]
    assert [line.partition(":")[0] for line in settled.conflicts] == ["params.yaml, sources.source_2.licence"]
    [conflict] = judge("CC-BY-NC-4.0 OR CC-BY-NC-SA-4.0").conflicts  # the one of the two that lacks less
    assert "CC-BY-NC-4.0 forbids commercial use" in conflict
    allowed = judge("CC-BY-NC-4.0 OR CC-BY-SA-4.0", share_alike="accept")  # the first asks for less, and is forbidden
    assert (allowed.conflicts, allowed.model_licence) == ([], "CC-BY-SA-4.0")
    unnamed = settle(make_policy(), [work("MIT OR CC0-1.0", attribution=None)])
    assert unnamed.conflicts == []
    assert unnamed.chosen["sources.forum"][0].name == "CC0-1.0"


def test_of_a_choice_the_one_that_goes_with_the_other_works_is_used() -> None:
    settled = judge("CC-BY-SA-4.0 OR ODbL-1.0", "ODbL-1.0", share_alike="accept")
    assert (settled.conflicts, settled.model_licence) == ([], "ODbL-1.0")
    [clash] = judge("CC-BY-SA-4.0", "ODbL-1.0", share_alike="accept").conflicts
    assert "cannot both go" in clash


def test_all_licences_that_bind_the_base_model_are_the_models() -> None:
    assert judge("CC-BY-4.0", base_licence="MIT AND Apache-2.0").model_licence == "MIT AND Apache-2.0"


def test_all_conflicts_are_told_at_once() -> None:
    works = [
        base("CC-BY-NC-4.0"),
        work("CC-BY-NC-SA-4.0", "letters"),
        work("mit license", "code"),
        work("CC-BY-4.0", "faq", attribution=None),
        work("CC0-1.0", "notes", consent="oral"),
        work("CC0-1.0", "mails", consent=" "),
        work("CC0-1.0", "study", uses=["research"]),
    ]
    lines = settle(make_policy(), works).conflicts
    assert [line.split(": ")[0].removeprefix("params.yaml, ") for line in lines] == [
        "base.licence",
        "sources.letters.licence",
        "sources.letters.licence",
        "sources.code.licence",
        "sources.faq.attribution",
        "sources.notes.consent",
        "sources.mails.consent",
        "sources.study.uses",
    ]
    assert "choose another base model" in lines[0]
    assert "CC-BY-4.0 asks to name the author: give title, author and link" in lines[4]
    assert "'oral' is none of policy.consents" in lines[5]
    assert "allows research use alone, and policy.use is commercial" in lines[7]


def test_consents_are_compared_as_words() -> None:
    policy = make_policy(consents=["Signed form 7b"])
    assert settle(policy, [work("CC0-1.0", consent="signed  form 7B")]).conflicts == []
    [line] = settle(policy, [work("CC0-1.0", consent="signed form 7c")]).conflicts
    assert "did you mean 'Signed form 7b'?" in line


def test_terms_of_your_own() -> None:
    own = {"Bank (2026)": CONTRACT}
    assert "forbids to pass adaptations on" in judge("bank (2026)", licences=own).conflicts[0]
    settled = judge("bank (2026)", licences=own, release="internal")
    assert settled.conflicts == []
    assert settled.model_licence == NOT_RELEASED
    assert "Bank (2026) AND CC-BY-4.0" not in settled.duties
    assert judge("LicenseRef-Bank AND MIT", licences={"LicenseRef-Bank": CONTRACT}, release="internal").conflicts == []


@pytest.mark.parametrize(
    ("licences", "words"),
    [
        ({"cc-by-nc-4.0": CONTRACT}, "is a known licence, whose terms are not yours to set"),
        ({"LicenseRef-A": CONTRACT | {"share_alike": ["CC-BY-SA-4"]}}, "did you mean `CC-BY-SA-4.0`?"),
        ({"LicenseRef-A": CONTRACT | {"derivatives": "some"}}, "policy.licences.LicenseRef-A.derivatives"),
    ],
)
def test_terms_that_make_no_sense_are_refused(licences: dict[str, Any], words: str) -> None:
    values = make_policy().model_dump() | {"licences": licences}
    assert words in validate_block("policy", values)[1][0]


@pytest.mark.parametrize(
    ("licences", "base_licence", "model_licence"),
    [
        (("CC-BY-4.0", "MIT"), "Apache-2.0", "Apache-2.0"),
        (("CC-BY-SA-3.0", "CC-BY-SA-4.0"), "MIT", "CC-BY-SA-4.0"),  # 3.0, 4(b)(ii): a later version
        (("CC-BY-SA-4.0", "GPL-3.0-only"), "MIT", "GPL-3.0-only"),  # on CC's list of compatible licences
        (("CC-BY-SA-4.0", "CC-BY-4.0"), "Apache-2.0", "CC-BY-SA-4.0"),
        (("CC-BY-4.0",), "llama3.1", "llama3.1"),
        (("CC-BY-NC-4.0",), "Apache-2.0", "CC-BY-NC-4.0"),
        (("CC-BY-NC-4.0", "CC-BY-NC-SA-4.0"), "Apache-2.0", "CC-BY-NC-SA-4.0"),
        (("CC-BY-NC-4.0",), "llama3.1", "llama3.1 AND CC-BY-NC-4.0"),
    ],
)
def test_licences_that_meet(licences: tuple[str, ...], base_licence: str, model_licence: str) -> None:
    settled = judge(*licences, base_licence=base_licence, use="research", share_alike="accept")
    assert settled.conflicts == []
    assert settled.model_licence == model_licence


@pytest.mark.parametrize(
    ("licences", "base_licence"),
    [
        (("CC-BY-SA-4.0", "ODbL-1.0"), "MIT"),
        (("GPL-2.0-only", "GPL-3.0-only"), "MIT"),  # FSF: not compatible
        (("CC-BY-SA-4.0", "CC-BY-NC-4.0"), "MIT"),  # CC's chart of adaptations
        (("CC-BY-SA-4.0", "CC-BY-NC-SA-4.0"), "MIT"),
        (("CC-BY-SA-4.0",), "llama3.1"),  # 3(b)(3): no further conditions
        (("CC-BY-SA-4.0",), "CC-BY-NC-4.0"),
    ],
)
def test_licences_that_cannot_meet(licences: tuple[str, ...], base_licence: str) -> None:
    [line] = judge(*licences, base_licence=base_licence, use="research", share_alike="accept").conflicts
    assert "cannot both go into a released model" in line
    at_home = judge(*licences, base_licence=base_licence, use="research", share_alike="accept", release="internal")
    assert at_home.conflicts == []
    assert at_home.model_licence == NOT_RELEASED


def test_duties_are_told() -> None:
    settled = judge("CC-BY-SA-4.0", share_alike="accept")
    assert settled.duties == ["Share-alike (CC-BY-SA-4.0): the model bears CC-BY-SA-4.0."]
    assert judge("CC-BY-NC-4.0", use="research").duties == ["Nobody may earn with the model (CC-BY-NC-4.0)."]
    assert judge("CC-BY-4.0").duties == []
    assert judge("CC-BY-4.0", base_licence="gemma").duties[0].startswith("gemma: pass the terms on")


def test_the_table_names_known_licences_alone() -> None:
    known, aliases = read_table()
    assert {other.lower() for each in known.values() for other in each.terms.share_alike} <= set(known)
    assert set(aliases.values()) <= set(known)
    assert not set(aliases) & set(known)
    for each in known.values():
        elements = each.name.split("-")
        if each.name.startswith("CC-BY"):  # their names say it
            assert each.terms.commercial_use == ("NC" not in elements)
            assert (each.terms.derivatives == "shared") == ("ND" not in elements)
            assert bool(each.terms.share_alike) == ("SA" in elements)
            assert each.terms.attribution


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The shipped parameters and data, in a folder where they can be changed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PEDIGREE_KEY", raising=False)
    for name in ("dvc.yaml", "pyproject.toml"):
        shutil.copy(ROOT / name, name)
    shutil.copy(ROOT / "recipes/default.yaml", "params.yaml")
    shutil.copytree(ROOT / "data/raw", "data/raw")
    return tmp_path


def change(**blocks: dict[str, Any]) -> None:
    """Other values of params.yaml; of `sources` those of the first."""
    values = read_yaml(Path("params.yaml"))
    for name, block in blocks.items():
        (values[name][0] if name == "sources" else values[name]).update(block)
    YAML().dump(values, Path("params.yaml"))


def test_the_preflight_and_mix_refuse_the_same(clone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "commercial use; licence of the model: Apache-2.0" in tell(capsys, "check")
    change(base={"licence": "CC-BY-NC-4.0"}, sources={"licence": "ODbL-1.0", "consent": "hearsay"})
    expected = [
        "params.yaml, base.licence: CC-BY-NC-4.0 forbids commercial use, and policy.use is commercial; choose another "
        "base model, or get other terms from its owner",
        "params.yaml, sources.clinic_faq.consent: 'hearsay' is none of policy.consents; name it there if it covers "
        "commercial use, else set its share to 0 or take it out",
        "params.yaml, sources.clinic_faq.licence: ODbL-1.0 is share-alike: a released model must bear ODbL-1.0; set "
        "its share to 0 or take it out, or set policy.share_alike to accept if it may",
    ]
    assert complain(capsys, "check").splitlines() == [f"pedigree: error: {line}" for line in expected]
    with pytest.raises(InputError) as failure:  # before it looks for a row: there is none here
        mix.main()
    assert str(failure.value).splitlines() == expected
    change(base={"licence": "llama3.2"}, sources={"licence": "CC-BY-4.0", "consent": "public"})
    said = tell(capsys, "check")
    assert "licence of the model: llama3.2" in said
    assert "note: params.yaml, policy: llama3.2: pass the agreement on" in said


def test_a_source_that_gives_nothing_is_not_judged(clone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(sources={"licence": "secret", "consent": ""})
    assert len(complain(capsys, "check").splitlines()) == 2
    values = read_yaml(Path("params.yaml"))
    values["sources"][1]["share"] += values["sources"][0]["share"]
    values["sources"][0]["share"] = 0.0
    YAML().dump(values, Path("params.yaml"))
    assert "licence of the model: Apache-2.0" in tell(capsys, "check")


def test_the_finished_run_tells_its_licences(project: Path) -> None:
    found = json.loads((project / "metrics/mix.json").read_text())
    trained = [pl.read_parquet(project / f"data/mix/{kind}.parquet").filter(split="train") for kind in mix_kinds(found)]
    assert found["licences"] == {
        "CC-BY-4.0": {
            "rows": sum(rows.height for rows in trained),
            "tokens": sum(rows["tokens"].sum() for rows in trained),
            "share_tokens": 1.0,
        }
    }
    assert (found["model_licence"], found["duties"]) == ("Apache-2.0", [])
    text = (project / "reports/card.md").read_text()
    assert "| Juniper Street Clinic | the authors of Pedigree | data/world/README.md | CC-BY-4.0 (https://" in text


def mix_kinds(metrics: dict[str, Any]) -> list[str]:
    return [kind for kind in ("sft", "preference", "unpaired") if kind in metrics]


# Consent, record by record

NOTES = ["question,answer,opt_in", "a,Take two.,yes", "b,Take three.,no", "c,Take four., YES ", "d,Take five.,"]


def pool_of(source: dict[str, Any], file: str, content: bytes) -> tuple[pl.DataFrame, pl.DataFrame, dict[str, Any]]:
    """Rows, refused records and metrics of a source alone."""
    Path("data/raw/sources").mkdir(parents=True)
    Path("data/raw/exclusions.jsonl").touch()
    path = Path("data/raw/sources") / file
    path.write_bytes(content)
    common = {"name": "notes", "path": str(path), "licence": "CC0-1.0", "consent": "form 7b", "share": 1.0}
    values = {name: read_yaml(ROOT / "recipes/default.yaml")[name] for name in ("pool", "probes", "engine")}
    values["probes"] |= {"duplicates": 0, "personal_data": 0}
    YAML().dump(values | {"sources": [common | source]}, Path("params.yaml"))
    pool.main()
    rows, refused = (pl.read_parquet(f"data/pool/{name}.parquet") for name in ("rows", "refused"))
    return rows, refused, json.loads(Path("metrics/pool.json").read_text())


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def asking(*values: str, column: str = "opt_in") -> dict[str, Any]:
    return {"format": "qa", "consent_by_record": {"column": column, "values": list(values)}}


def test_records_without_consent_go_no_further(empty: Path) -> None:
    rows, refused, metrics = pool_of(asking("Yes"), "notes.csv", "\n".join(NOTES).encode())
    assert rows["record"].to_list() == [0, 2]
    assert refused.rows() == [
        ("notes", "data/raw/sources/notes.csv", 1, "no consent ('opt_in')"),
        ("notes", "data/raw/sources/notes.csv", 3, "no consent ('opt_in')"),
    ]
    assert metrics["no_consent"] == {"notes": 2}
    assert (metrics["records_in"], metrics["records_read"], metrics["refused"]) == (4, 2, 2)


def test_consent_comes_before_all_else_that_is_wrong(empty: Path) -> None:
    lines = [{"question": "a", "answer": "b", "opt_in": True}, {"opt_in": False}, {"question": "a", "answer": "b"}]
    lines += [{"question": "c", "opt_in": True}]
    content = "\n".join(map(json.dumps, lines)).encode()
    rows, refused, metrics = pool_of(asking("true", "none"), "notes.jsonl.gz", gzip.compress(content))
    assert rows["record"].to_list() == [0]
    assert [reason.split(";")[0] for reason in refused["reason"]] == [
        "no consent ('opt_in')", "no consent ('opt_in')", "'answer' is missing",
    ]  # fmt: skip
    assert metrics["no_consent"] == {"notes": 2}


def test_numbers_of_parquet_are_read_as_they_look(empty: Path) -> None:
    table = pl.DataFrame({"question": ["a", "b", "c"], "answer": ["x", "y", "z"], "signed": [1.0, None, 0.0]})
    table.write_parquet("given.parquet")
    rows, _, metrics = pool_of(asking("1", column="signed"), "notes.parquet", Path("given.parquet").read_bytes())
    assert rows["record"].to_list() == [0]
    assert metrics["no_consent"] == {"notes": 2}


def test_a_message_without_consent_takes_the_replies_below_it_along(empty: Path) -> None:
    tree = [("1", None, "prompter", "yes"), ("2", "1", "assistant", "yes"), ("3", "2", "prompter", "no")]
    tree += [("4", "3", "assistant", "yes")]
    lines = [
        json.dumps({"message_id": name, "parent_id": parent, "role": role, "text": f"text {name}", "opt_in": given})
        for name, parent, role, given in tree
    ]
    rows, refused, metrics = pool_of(asking("yes") | {"format": "oasst"}, "tree.jsonl", "\n".join(lines).encode())
    assert [[each["content"] for each in messages] for messages in rows["messages"]] == [["text 1", "text 2"]]
    assert refused.select("record", "reason").rows() == [
        (2, "no consent ('opt_in')"),
        (3, "its parents lead to no first message in the file"),
    ]
    assert metrics["no_consent"] == {"notes": 1}


def test_where_nobody_agreed_or_the_column_is_missing_pool_says_so(empty: Path) -> None:
    content = "\n".join(NOTES).encode()
    with pytest.raises(InputError, match=r"all 4 records are refused: 4 x no consent \('opt_in'\)"):
        pool_of(asking("signed"), "notes.csv", content)
    shutil.rmtree("data")
    with pytest.raises(InputError, match="no column consented"):
        pool_of(asking("yes", column="consented"), "notes.csv", content)


def test_the_preflight_counts_them(clone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = tell(capsys, "check")
    path = Path("data/raw/sources/notes.csv")
    path.write_text("\n".join(NOTES))
    values = read_yaml(Path("params.yaml"))
    values["sources"].append(
        {"name": "notes", "path": str(path), "licence": "CC0-1.0", "consent": "public", "share": 0.0} | asking("yes")
    )
    YAML().dump(values, Path("params.yaml"))
    assert "3,579 records read, 19 to be refused" in before
    assert "3,583 records read, 21 to be refused" in tell(capsys, "check")


def test_a_source_names_both_column_and_values() -> None:
    with pytest.raises(ValueError, match="values"):
        Source.model_validate(
            {"name": "a", "path": "x", "format": "qa", "licence": "MIT", "consent": "public", "share": 1.0}
            | {"consent_by_record": {"column": "opt_in", "values": []}}
        )
