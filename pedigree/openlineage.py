"""Stages as OpenLineage run events (spec 2-0-2), built with the classes of OpenLineage's own client.

One COMPLETE event a stage: dvc.lock knows that a stage ended, not when it began. Row counts of a dataset are facets of
OpenLineage's own; what happened to the rows is a facet of ours, `pedigree_rows` (rows_facet.schema.json beside this).
"""

from importlib.metadata import version
from typing import Any

import attr
import polars as pl
from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, Run, RunEvent, RunState
from openlineage.client.facet_v2 import (
    DatasetFacet,
    JobFacet,
    RunFacet,
    column_lineage_dataset,
    dataset_type_dataset,
    dataset_version_dataset,
    datasource_dataset,
    documentation_job,
    execution_parameters_run,
    input_statistics_input_dataset,
    job_type_job,
    lifecycle_state_change_dataset,
    output_statistics_output_dataset,
    schema_dataset,
    source_code_location_job,
)
from openlineage.client.serde import Serde

from pedigree.columns import FROM_RAW, ORIGINS, Origin, of_table
from pedigree.runs import Dataset, StageRun

PRODUCER = f"urn:pedigree:{version('pedigree')}"


@attr.define
class RowsRunFacet(RunFacet):
    """What became of rows, as pedigree.counts tells it."""

    rowsIn: int | None = None  # noqa: N815
    rowsOut: int | None = None  # noqa: N815
    dropped: dict[str, int] | None = None
    changed: dict[str, int] | None = None
    recordsRefused: dict[str, int] | None = None  # noqa: N815
    rowsOutBySource: dict[str, int] | None = None  # noqa: N815
    mixture: dict[str, dict[str, int]] | None = None
    consumedRows: int | None = None  # noqa: N815
    consumedUses: int | None = None  # noqa: N815
    steps: int | None = None

    @staticmethod
    def _get_schema() -> str:
        return "urn:pedigree:facets:rows:1#/$defs/RowsRunFacet"


@attr.define
class PackagesRunFacet(RunFacet):
    """Name → version of the packages that the stage ran with, as dvc.lock recorded them."""

    packages: dict[str, str]

    @staticmethod
    def _get_schema() -> str:
        return "urn:pedigree:facets:packages:1#/$defs/PackagesRunFacet"


def build_event(run: StageRun, namespace: str, repository: str | None) -> RunEvent:
    """The event of one stage; the same entry of dvc.lock gives the same event."""
    return RunEvent(
        eventType=RunState.COMPLETE,
        eventTime=run.time,
        producer=PRODUCER,
        run=Run(runId=run.id, facets=run_facets(run)),
        job=Job(namespace=namespace, name=run.name, facets=job_facets(run, repository)),
        inputs=[
            InputDataset(
                dataset.namespace, dataset.name, facets=dataset_facets(dataset), inputFacets=input_statistics(dataset)
            )
            for dataset in run.inputs
        ],
        outputs=[
            OutputDataset(
                dataset.namespace,
                dataset.name,
                facets=dataset_facets(dataset) | output_facets(dataset, run),
                outputFacets=output_statistics(dataset),
            )
            for dataset in run.outputs
        ],
    )


def run_facets(run: StageRun) -> dict[str, RunFacet]:
    parameters = [
        execution_parameters_run.ExecutionParameter(key=key, value=value) for key, value in run.parameters.items()
    ]
    facets: dict[str, RunFacet] = {
        "executionParameters": execution_parameters_run.ExecutionParametersRunFacet(parameters, producer=PRODUCER),
        "pedigree_packages": PackagesRunFacet(run.packages, producer=PRODUCER),
    }
    if run.counts:
        facets["pedigree_rows"] = RowsRunFacet(**run.counts, producer=PRODUCER)
    return facets


def job_facets(run: StageRun, repository: str | None) -> dict[str, JobFacet]:
    facets: dict[str, JobFacet] = {
        "jobType": job_type_job.JobTypeJobFacet(
            processingType="BATCH", integration="DVC", jobType="STAGE", producer=PRODUCER
        )
    }
    if run.description:
        facets["documentation"] = documentation_job.DocumentationJobFacet(run.description, producer=PRODUCER)
    if repository:
        facets["sourceCodeLocation"] = source_code_location_job.SourceCodeLocationJobFacet(
            type="git", url=repository, repoUrl=repository, path=run.module, version=run.commit, producer=PRODUCER
        )
    return facets


def dataset_facets(dataset: Dataset) -> dict[str, DatasetFacet]:
    uri = dataset.namespace if "://" in dataset.namespace else None
    facets: dict[str, DatasetFacet] = {
        "datasetType": dataset_type_dataset.DatasetTypeDatasetFacet(dataset.kind, producer=PRODUCER),
        "dataSource": datasource_dataset.DatasourceDatasetFacet(dataset.namespace, uri, producer=PRODUCER),
    }
    if dataset.version:
        facets["version"] = dataset_version_dataset.DatasetVersionDatasetFacet(dataset.version, producer=PRODUCER)
    if dataset.schema is not None:
        facets["schema"] = schema_dataset.SchemaDatasetFacet(schema_fields(dataset.schema), producer=PRODUCER)
    elif dataset.raw_columns:
        names = [schema_dataset.SchemaDatasetFacetFields(name) for name in dataset.raw_columns]
        facets["schema"] = schema_dataset.SchemaDatasetFacet(names, producer=PRODUCER)
    return facets


def schema_fields(schema: Any) -> list[schema_dataset.SchemaDatasetFacetFields]:
    """Columns with Polars' names of their types; a struct, or a list of them, with the fields inside."""
    fields = []
    for position, (name, dtype) in enumerate(schema.items(), 1):
        inner = dtype.inner if isinstance(dtype, pl.List) else dtype
        inside = schema_fields(inner.to_schema()) if isinstance(inner, pl.Struct) else []
        kind = str(dtype) if not inside else "List(Struct)" if inner is not dtype else "Struct"
        fields.append(schema_dataset.SchemaDatasetFacetFields(name, kind, None, position, inside))
    return fields


def output_facets(dataset: Dataset, run: StageRun) -> dict[str, DatasetFacet]:
    facets: dict[str, DatasetFacet] = {
        "lifecycleStateChange": lifecycle_state_change_dataset.LifecycleStateChangeDatasetFacet(
            lifecycle_state_change_dataset.LifecycleStateChange.OVERWRITE, producer=PRODUCER
        )
    }
    origins = [(dataset.namespace, origin) for origin in ORIGINS.get(dataset.name, ())]
    if dataset.name in FROM_RAW:
        origins = [(namespace, origin._replace(table=name)) for (namespace, name), found in run.raw.items()
                   for origin in of_table(dataset.name, found)]  # fmt: skip
    if lineage := column_lineage(origins):
        facets["columnLineage"] = lineage
    return facets


def column_lineage(origins: list[tuple[str, Origin]]) -> column_lineage_dataset.ColumnLineageDatasetFacet | None:
    """Each column with its inputs, and the inputs that decide on whole rows."""
    if not origins:
        return None
    fields: dict[str, list[column_lineage_dataset.InputField]] = {}
    whole = []
    for namespace, origin in origins:
        change = column_lineage_dataset.Transformation(origin.type, origin.subtype, masking=origin.masking)
        for column, source in origin.pairs():
            found = column_lineage_dataset.InputField(namespace, origin.table, source, [change])
            fields.setdefault(column, []).append(found)
        if not origin.columns:
            whole += [
                column_lineage_dataset.InputField(namespace, origin.table, source, [change]) for source in origin.fields
            ]
    of_columns = {column: column_lineage_dataset.Fields(found) for column, found in fields.items()}
    return column_lineage_dataset.ColumnLineageDatasetFacet(of_columns, whole, producer=PRODUCER)


def input_statistics(dataset: Dataset) -> dict[str, Any]:
    if dataset.size is None:
        return {}
    return {
        "inputStatistics": input_statistics_input_dataset.InputStatisticsInputDatasetFacet(
            dataset.rows, dataset.size, dataset.files, producer=PRODUCER
        )
    }


def output_statistics(dataset: Dataset) -> dict[str, Any]:
    if dataset.size is None:
        return {}
    return {
        "outputStatistics": output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(
            dataset.rows, dataset.size, dataset.files, producer=PRODUCER
        )
    }


def event_text(event: RunEvent) -> str:
    """One line of JSON, keys sorted."""
    return Serde.to_json(event, ensure_ascii=False)
