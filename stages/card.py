"""Say what the model is, what it was made of and whether it is better.

metrics/*.json, metrics/eval/*.json, metrics/plots/{sft,align,mix}.csv, ledgers and row ids of data/* and models/*,
dvc.lock, params.yaml, pyproject.toml → reports/card.html, reports/card.md, metrics/{card.json,plots/evaluation.csv}

The page is one file that opens offline: styles and plots stand in it, nothing is fetched, no script runs. card.md says
the same in Markdown, under the metadata that model hubs read. Both state what the stages measured and nothing else: no
times, no date, so that the same run gives the same bytes. Before a word is written, what the files say of the same
thing is compared (`stages/cards/agreement.py`); where two of them differ, there is no card.

Whether a model is better is told on the items that both models answered: the mean of the paired differences with a 95 %
bootstrap interval (`stages/cards/scores.py`). metrics/card.json holds them too, so that `dvc metrics diff` shows them.
"""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from stages.common.stage import run, say  # isort: skip
from stages.cards import lineage, plots, privacy, wording
from stages.cards.agreement import check
from stages.cards.digests import describe_evaluation, describe_outputs
from stages.cards.flow import total
from stages.cards.hub import front_matter, metadata
from stages.cards.inputs import MODELS, Facts, read_facts
from stages.cards.licences import describe_licences
from stages.cards.removals import removals
from stages.cards.scores import Difference, Score, compare, evaluation_table, list_scores, main_scores
from stages.common.errors import InputError
from stages.common.files import write_csv, write_json, write_text
from stages.common.params import Params, Source, load

if TYPE_CHECKING:
    from jinja2 import Environment

PAGES = ("reports/card.html", "reports/card.md")
TEMPLATES = Path(__file__).parent / "cards"
KIND_TITLES = {"sft": "Fine-tuning", "preference": "Preference", "unpaired": "Unpaired replies"}


class Card(Params):
    """The model card."""

    title: Annotated[str, Field(min_length=1, max_length=120)]
    """Heading of the card and name of the model in the hub's metadata."""
    language: Annotated[str, Field(pattern=r"^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*$")]
    """Language of the data and the answers, as in BCP 47: en, de, pt-BR."""


def list_sources(facts: Facts) -> list[dict[str, Any]]:
    """The sources by kind: {kind, title, read, sources: [{source, rows_in, rows, tokens, planned, realised}]}."""
    shares = {line["source"]: line for line in facts.curves["mix"].iter_rows(named=True)}
    rows_in = {line.source: line.rows for line in facts.flow}

    def describe(source: Source) -> dict[str, Any]:
        if source.name not in shares:
            raise InputError(f"metrics/plots/mix.csv: the source {source.name} is missing; run `dvc repro mix`")
        return shares[source.name] | {"rows_in": rows_in[source.name], "source": source}

    kinds = dict.fromkeys(source.kind for source in facts.sources)
    return [
        {
            "kind": kind,
            "title": KIND_TITLES[kind],
            "read": kind in facts.kinds_read,
            "sources": [describe(source) for source in facts.sources if source.kind == kind],
        }
        for kind in kinds
    ]


def list_evaluation(facts: Facts, scores: list[Score]) -> list[dict[str, Any]]:
    """Lines of the table of scores: task, metric, items, and the text of each model's cell; clean and dirty apart."""
    cells: dict[tuple[str, str], dict[str, str]] = {}
    for score in scores:
        text = wording.decimal(score.value) + (
            f" ± {wording.decimal(score.stderr)}" if score.stderr is not None else ""
        )
        cells.setdefault((score.task, score.metric), {})[score.model] = text
    main = {score.task: score.metric for score in main_scores(scores)}
    lines = []
    for (task, metric), values in cells.items():
        line = {"task": task, "metric": metric}
        counts = facts.scores["base"][task]
        lines.append(line | {"part": "all", "items": counts.get("items"), "cells": values})
        if metric == main[task] and counts.get("dirty_items"):
            for part in ("clean", "dirty"):
                key = next(key for key in counts if key.startswith(f"{part}_") and key != f"{part}_items")
                of_part = {model: facts.scores[model][task][key] for model in values}
                cells_of_part = {
                    model: "–" if score is None else wording.decimal(score) for model, score in of_part.items()
                }
                lines.append(line | {"part": part, "items": counts[f"{part}_items"], "cells": cells_of_part})
    return lines


def list_entities(facts: Facts) -> list[dict[str, Any]]:
    """PII by type, the commonest first: {entity, replaced, kept}."""
    scrub = facts.metrics["scrub"]
    replaced, kept = scrub["entities"], scrub.get("kept", {})
    names = sorted({*replaced, *kept}, key=lambda name: (-replaced.get(name, 0), name))
    return [{"entity": name, "replaced": replaced.get(name, 0), "kept": kept.get(name, 0)} for name in names]


def list_answers(facts: Facts) -> list[dict[str, Any]]:
    """The fixed prompts, each with the answer of every model. Raises InputError where the prompts differ."""
    prompts = facts.answers["base"]["prompt"].to_list()
    for model, table in facts.answers.items():
        if table["prompt"].to_list() != prompts:
            raise InputError(
                f"data/eval/{model}/answers.parquet: other prompts than base; run `dvc repro --force eval`"
            )
    return [
        {"prompt": prompt, "answers": {model: facts.answers[model]["answer"][index] for model in MODELS}}
        for index, prompt in enumerate(prompts)
    ]


def compose(card: Card, facts: Facts, scores: list[Score]) -> dict[str, Any]:
    """Everything that the templates show."""
    tasks = [task.name for task in facts.tasks]
    differences: dict[str, list[Difference]] = {
        model: compare(facts.items, model, "base", tasks) for model in MODELS if model != "base"
    }
    everything = [difference for found in differences.values() for difference in found]
    lanes = lineage.read_lanes(facts)
    main = main_scores(scores)
    sft = facts.metrics["sft"]
    from_ln_2 = abs(facts.metrics["align"]["loss_at_start"] - math.log(2)) < 1e-3
    return {
        "card": card,
        "facts": facts,
        "metrics": facts.metrics,
        "models": MODELS,
        "model_sentence": wording.describe_model(facts),
        "outcome_sentence": wording.describe_outcome(main, differences["quantized"]),
        "from_ln_2": from_ln_2,
        "warning": "epsilon" in sft and not sft.get("private", True),
        "headlines": [
            {"task": task, "metric": scored[0].metric} | {score.model: score for score in scored}
            for task in tasks
            if (scored := [score for score in main if score.task == task])
        ],
        "lanes": lanes,
        "kinds": list_sources(facts),
        "licences": describe_licences(facts),
        "flow": facts.flow,
        "flow_total": total(facts.flow),
        "flow_columns": wording.flow_columns(facts.flow),
        "outputs": describe_outputs(facts.lock),
        "asked": describe_evaluation(facts.lock),
        "raw": wording.raw_digests(facts),
        "same_numbers": wording.SAME_NUMBERS,
        "privacy": privacy.statements(facts),
        "removals": removals(facts),
        "entities": list_entities(facts),
        "probes": wording.probes(facts),
        "evaluation": list_evaluation(facts, scores),
        "differences": differences,
        "difference_rows": {cells[0].task: cells for cells in map(list, zip(*differences.values(), strict=True))},
        "quantization": compare(facts.items, "quantized", facts.pipeline.final, tasks),
        "answers": list_answers(facts),
        "sft_method": wording.METHODS[facts.pipeline.sft],
        "align_method": wording.METHODS.get(facts.pipeline.align, facts.pipeline.align),
        "train_settings": wording.settings(facts.train.model_dump()),
        "align_settings": wording.settings(facts.params[facts.pipeline.align]),
        "names_of_people": privacy.names_of_people(facts.metrics["scrub"]),
        "names_model": privacy.names_model(facts),
        "not_covered": privacy.not_covered(facts.metrics["scrub"]),
        "limits": wording.limits(facts),
        "plots": {
            "shares": plots.plot_shares(facts.curves["mix"]),
            "loss": plots.plot_loss(facts.curves["sft"], sft["heldout_loss"]),
            "preference": plots.plot_preference(facts.curves["align"], from_ln_2),
            "scores": plots.plot_scores(main),
            "differences": plots.plot_differences(everything) if everything else "",
        },
        "front_matter": front_matter(metadata(card.title, card.language, facts, main)),
    }


def measure(values: dict[str, Any], final: str) -> dict[str, Any]:
    """metrics/card.json: of each pair of models and task the mean difference, its 95 % interval and the items."""
    pairs = {f"{model}_over_base": found for model, found in values["differences"].items()}
    pairs[f"quantized_over_{final}"] = values["quantization"]
    names = ("items", "value", "low", "high", "won", "lost")
    return {
        pair: {difference.task: {name: getattr(difference, name) for name in names} for difference in found}
        for pair, found in pairs.items()
    }


def add_caption(table: str, label: str) -> str:
    """A table of the page with its name in it, for who hears the page."""
    from markupsafe import Markup, escape

    return Markup(str(table).replace("<table>", f"<table><caption>{escape(label)}</caption>", 1))


def templates() -> "Environment":
    """Jinja with the card's words as filters. HTML is escaped: prompts and answers are a stranger's text."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=lambda name: bool(name) and ".html" in str(name),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for word in ("count", "counted", "decimal", "signed", "percent", "megabytes", "parameters", "interval", "sentence"):
        environment.filters[word] = getattr(wording, word)
    environment.filters |= {"cell": wording.markdown_cell, "quote": wording.markdown_quote, "captioned": add_caption}
    environment.globals |= {"wide": lineage.draw_wide, "tall": lineage.draw_tall, "lineage_text": lineage.describe}
    return environment


def render_pages(values: dict[str, Any]) -> dict[str, str]:
    """Path → text of the card's two forms."""
    environment = templates()
    return {page: environment.get_template(f"{Path(page).name}.jinja").render(values) for page in PAGES}


def render() -> dict[str, str]:
    """The card of what is here, and nothing written: what `pedigree verify` holds the written one against."""
    facts = read_facts()
    check(facts)
    scores = list_scores(facts.scores, [task.name for task in facts.tasks])
    return render_pages(compose(load(Card, "card"), facts, scores))


def main() -> None:
    card = load(Card, "card")
    facts = read_facts()
    check(facts)
    scores = list_scores(facts.scores, [task.name for task in facts.tasks])
    values = compose(card, facts, scores)
    write_json("metrics/card.json", measure(values, facts.pipeline.final))
    write_csv("metrics/plots/evaluation.csv", evaluation_table(scores))
    for page, text in render_pages(values).items():
        write_text(page, text)
    say("card", f"{', '.join(PAGES)}: {values['outcome_sentence']}")


if __name__ == "__main__":
    run("card", main, outputs=list(PAGES))
