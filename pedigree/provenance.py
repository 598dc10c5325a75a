"""Stages as a W3C PROV document (PROV-DM), written as PROV-JSON by the package `prov`.

Entities are tables, models and files in one version (their digest is part of their name), activities are stages, agents
are the packages they ran with. dvc.lock does not know when a stage began or ended, so no activity has a time: what is
known, when it was recorded, is an attribute of ours.
"""

import json
from typing import Any

from prov.model import PROV, ProvDocument

from pedigree.columns import FROM_RAW, ORIGINS, of_table
from pedigree.runs import Dataset, StageRun

VOCABULARY = "urn:pedigree:vocabulary:"


def document_text(runs: list[StageRun], namespace: str, repository: str | None) -> str:
    """PROV-JSON of a run, keys sorted."""
    document = ProvDocument()
    document.add_namespace("pedigree", VOCABULARY)
    document.add_namespace("run", f"urn:pedigree:run:{namespace}:")
    document.add_namespace("data", f"urn:pedigree:data:{namespace}:")
    document.add_namespace("package", "urn:pedigree:package:")
    known: dict[str, Any] = {"namespace": namespace}
    for run in runs:
        describe_run(document, run, repository, known)
    written = json.loads(str(document.serialize(format="json")))
    return json.dumps(written, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def describe_run(document: ProvDocument, run: StageRun, repository: str | None, known: dict[str, Any]) -> None:
    attributes = {"prov:label": run.name, "pedigree:command": run.command, "pedigree:recordedAt": run.time}
    if run.description:
        attributes["pedigree:description"] = run.description
    if run.commit:
        attributes["pedigree:commit"] = run.commit
    if repository:
        attributes["pedigree:repository"] = repository
    if run.counts:
        attributes["pedigree:rows"] = json.dumps(run.counts, sort_keys=True, ensure_ascii=False)
    activity = document.activity(f"run:{run.id}", other_attributes=attributes)
    for package, version in run.packages.items():
        agent = f"package:{package}=={version}"
        if agent not in known:
            label: dict[str, Any] = {"prov:type": PROV["SoftwareAgent"], "prov:label": f"{package} {version}"}
            known[agent] = document.agent(agent, label)
        document.association(activity, known[agent])
    inputs = {dataset.key: entity_of(document, dataset, known) for dataset in run.inputs}
    for entity in inputs.values():
        document.usage(activity, entity)
    for dataset in run.outputs:
        entity = entity_of(document, dataset, known)
        document.generation(entity, activity)
        for key in derived_from(dataset, run):
            document.derivation(entity, inputs[key], activity)


def derived_from(dataset: Dataset, run: StageRun) -> list[tuple[str, str]]:
    """The inputs that an output was made of: of a table those of its columns, of a model all data and models."""
    if dataset.name in ORIGINS:
        tables = {origin.table for origin in ORIGINS[dataset.name]}
        return [source.key for source in run.inputs if source.name in tables]
    if dataset.name in FROM_RAW:
        return [key for key, found in run.raw.items() if of_table(dataset.name, found)]
    return [source.key for source in run.inputs] if dataset.kind == "MODEL" else []


def entity_of(document: ProvDocument, dataset: Dataset, known: dict[str, Any]) -> Any:
    """The entity of a dataset in its version; of one that is not ours the namespace is part of the name."""
    local = dataset.name if dataset.version is None else f"{dataset.name}@{dataset.version}"
    name = f"data:{local}" if dataset.namespace == known["namespace"] else f"data:{dataset.namespace}/{local}"
    if name not in known:
        attributes: dict[str, Any] = {"prov:label": dataset.name, "pedigree:kind": dataset.kind}
        for key in ("version", "size", "rows"):
            if (value := getattr(dataset, key)) is not None:
                attributes[f"pedigree:{key}"] = value
        known[name] = document.entity(name, attributes)
    return known[name]
