"""What the card says on personal data: what was done, what was not looked for, what is promised and what is not."""

from collections.abc import Mapping
from typing import Any

from stages.cards.inputs import Facts
from stages.cards.wording import count, counted, decimal, joined

ENTITIES = {
    "PERSON": "names of persons",
    "LOCATION": "places and addresses",
    "ORGANIZATION": "organisations",
    "NRP": "nationality, religion and politics",
}
NAMES_MODES = {
    "none": "Names of people were not looked for: they stand in the training data as they came.",
    "model": "Names of people, places and organisations were found with a small model of our own, which misses some.",
    "lists": "Names of people were found with word lists and context rules, which miss many names in free text.",
}


def names_of_people(scrub: Mapping[str, Any]) -> str:
    """How names of people were found, or that they were not."""
    entities = {*scrub["entities"], *scrub.get("kept", {})} - set(scrub.get("not_covered", []))
    mode = str(scrub.get("names", "none")) if "PERSON" in entities else "none"
    return NAMES_MODES.get(mode, f"Names of people were found with {mode}, which misses some.")


def names_model(facts: Facts) -> list[dict[str, Any]]:
    """Recall and precision of the model of names on texts that it was not trained on: set, what, known, cells."""
    return [
        {
            "name": texts["name"],
            "what": texts["what"],
            "known": texts["errors_read"],
            "cells": [
                f"{found['recall']:.2f} / {found['precision']:.2f}" if (found := texts["scores"].get(entity)) else "–"
                for entity in ("PERSON", "LOCATION", "ORGANIZATION")
            ],
        }
        for texts in facts.names_model
        if not texts["in_training"] and "words" not in texts["scores"]  # that one counts, nobody judged
    ]


def not_covered(scrub: Mapping[str, Any]) -> list[str]:
    """Types of personal data that were not looked for, in words; names of people are told apart."""
    missing = [entity for entity in scrub.get("not_covered", []) if entity != "PERSON"]
    return [f"{ENTITIES[entity]} ({entity})" if entity in ENTITIES else entity for entity in missing]


def removed(facts: Facts) -> str:
    """What scrub and the deletion requests did to the rows."""
    scrub, pool = facts.metrics["scrub"], facts.metrics["pool"]
    found = {entity: number for entity, number in scrub["entities"].items() if number}
    told = (
        f"{counted(sum(found.values()), 'piece')} of personal data of {counted(len(found), 'type')} replaced in "
        f"{count(scrub['changed'])} of {counted(scrub['rows_in'], 'row')}, before anything was trained"
    )
    if scrub["failed"]:
        told += f"; {counted(scrub['failed'], 'row')} that could not be searched dropped"
    if pool["excluded"]:
        told += f"; {counted(pool['excluded'], 'row')} left out because somebody asked for deletion"
    return f"{told}. Counts by type stand above."


def left_in(facts: Facts) -> str:
    """What stayed in the rows, known or not."""
    scrub = facts.metrics["scrub"]
    told = [names_of_people(scrub)]
    if kept := {entity: number for entity, number in scrub.get("kept", {}).items() if number}:
        listed = joined([f"{ENTITIES.get(entity, entity)} ({count(number)})" for entity, number in kept.items()])
        told.append(f"Found and left in place, as the parameters ask: {listed}.")
    if missing := not_covered(scrub):
        told.append(f"Not looked for: {joined(missing)}.")
    told.append(
        "Personal data that no pattern describes stays, and what was replaced may have been no personal data. A person "
        "may be known from what a text tells without any name."
    )
    return " ".join(told)


def promise(facts: Facts) -> list[str]:
    """The formal guarantee with its unit and its limits, or that there is none."""
    sft, metrics = facts.metrics["sft"], facts.metrics
    if "epsilon" not in sft:
        return [
            "There is no formal guarantee. Training was not differentially private: the model may repeat rows that it "
            "was trained on, and who holds its weights may find out whether a text was among them. Scrubbing and "
            "deduplication make that rarer; by how much was not measured."
        ]
    if not sft.get("private", True):
        return [
            "There is no formal guarantee. Training added noise, but from a published seed, so that it can be taken "
            f"off again: the ε of {decimal(sft['epsilon'], 2)} is void and these weights are not private."
        ]
    block = facts.params["sft_dp"]
    told = [
        f"Fine-tuning is (ε, δ)-differentially private with ε = {decimal(sft['epsilon'], 2)} and δ = {sft['delta']:g}: "
        "whether any one row was in the mixture changes the probability of any outcome by no more than e^ε times, but "
        "for a chance of δ. "
        f"DP-SGD over {counted(sft['steps'], 'step')}, sampling rate {sft['sample_rate']:.3g}, each row’s gradient "
        f"clipped to {sft['clip_norm']:g}, noise multiplier {decimal(sft['noise_multiplier'], 2)}; the steps are added "
        f"up by the {block['accountant'].upper()} accountant.",
        "The privacy promise is for one row of the fine-tuning mixture, not for a person with several rows: k rows of "
        "one person cost about k times ε.",
    ]
    if facts.pipeline.final == "align":
        told.append(
            "Alignment is not covered: preference tuning adds its own rows without privacy, "
            f"{count(metrics['align']['rows_in'])} of them."
        )
    told.append(
        (
            "Quantization was calibrated on text that the model wrote, which costs no privacy. "
            if facts.generated
            else ""
        )
        + "Not counted: the choice of parameters and what deduplication, scrubbing and mixing learned from the rows."
    )
    return told


def statements(facts: Facts) -> list[tuple[str, str]]:
    """The privacy statement: (heading, text) of each part."""
    parts = [("Removed", removed(facts)), ("Left in", left_in(facts))]
    parts += [("Promised" if index == 0 else "", text) for index, text in enumerate(promise(facts))]
    key = facts.metrics["pool"]["subject_key"]
    ids = (
        "Row ids and subjects are digests under a key that everyone knows: who has a table can test a guess of what "
        "a row said or whose it was."
        if key == "public"
        else f"Row ids and subjects are digests under a secret key (fingerprint {key}): without it nobody can test a "
        "guess."
    )
    return [*parts, ("Names of rows", ids)]
