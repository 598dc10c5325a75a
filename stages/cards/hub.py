"""The metadata block of a model hub's card: YAML between two lines of dashes.

Keys as in the specification of the Hugging Face Hub, modelcard.md. Its licence identifiers are lower case; a licence
that it does not list is `other` with a name. `base_model` and `datasets` are names on the hub, which links them: what
came from elsewhere stands in the text alone, since somebody else may have taken its name there. The weights were
trained before they were quantized, so they are a `finetune` of the base, not a `quantized` copy.
"""

import io
from collections.abc import Sequence
from typing import Any

from ruamel.yaml import YAML

from stages.cards.inputs import Facts
from stages.cards.scores import Score
from stages.common.policy import NOT_RELEASED

LICENCES = (
    "afl-3.0 agpl-3.0 apache-2.0 artistic-2.0 bigcode-openrail-m bigscience-bloom-rail-1.0 bigscience-openrail-m "
    "bsd-2-clause bsd-3-clause bsd-3-clause-clear bsl-1.0 c-uda cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-nc-2.0 "
    "cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 "
    "cc-by-nd-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc0-1.0 cdla-permissive-1.0 cdla-permissive-2.0 cdla-sharing-1.0 "
    "creativeml-openrail-m ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 gemma gpl-2.0 gpl-3.0 isc lgpl-2.1 "
    "lgpl-3.0 llama2 llama3 llama3.1 llama3.2 llama3.3 llama4 mit mpl-2.0 ms-pl ncsa odbl odc-by ofl-1.1 openrail "
    "osl-3.0 pddl postgresql unlicense wtfpl zlib"
)
METRIC_TYPES = {"acc": "accuracy"}


def licence_keys(licence: str) -> dict[str, str]:
    """The hub's identifier, `other` with a name where it has none, nothing for a model that is not passed on."""
    if licence == NOT_RELEASED:
        return {}
    identifier = licence.lower().removesuffix("-only").removesuffix("-or-later")
    listed = LICENCES.split()
    for known in (identifier, identifier.removesuffix("-1.0")):  # ODbL-1.0 is `odbl` there, C-UDA-1.0 `c-uda`
        if known in listed:
            return {"license": known}
    return {"license": "other", "license_name": licence}


def hub_name(place: str) -> str | None:
    """ORG/NAME of `hub:ORG/NAME@REVISION`; null where it is not of the hub."""
    return place.removeprefix("hub:").partition("@")[0] if place.startswith("hub:") else None


def metadata(title: str, language: str, facts: Facts, scores: Sequence[Score]) -> dict[str, Any]:
    """The keys of the block; the results are the main scores of the quantized model."""
    trained = facts.pipeline.align if facts.pipeline.final == "align" else facts.pipeline.sft
    tags = ["pedigree", "conversational", "sft", trained, "gptq", "compressed-tensors"]
    # Preference tuning sees its rows without privacy, so that only a model straight from sft_dp keeps the promise.
    private = "epsilon" in facts.metrics["sft"] and facts.metrics["sft"].get("private", True)
    if private and facts.pipeline.final == "sft":
        tags.append("differential-privacy")
    results: list[dict[str, Any]] = [
        {
            "task": {"type": "text-generation", "name": "Text generation"},
            "dataset": {"type": score.task, "name": score.task, "split": "test"},
            "metrics": [
                {
                    "type": METRIC_TYPES.get(score.metric, score.metric),
                    "name": score.metric
                    + (f" (standard error {score.stderr:.4f})" if score.stderr is not None else ""),
                    "value": round(score.value, 4),
                }
            ],
        }
        for score in scores
        if score.model == "quantized"
    ]
    base = hub_name(facts.params["base"]["model"])
    datasets = [name for source in facts.sources if source.share != 0 and (name := hub_name(source.path))]
    return {
        "language": [language],
        **licence_keys(facts.metrics["mix"]["model_licence"]),
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        **({"base_model": base, "base_model_relation": "finetune"} if base else {}),
        "tags": list(dict.fromkeys(tags)),
        **({"datasets": list(dict.fromkeys(datasets))} if datasets else {}),
        "metrics": list(dict.fromkeys(result["metrics"][0]["type"] for result in results)),
        "model-index": [{"name": title, "results": results}],
    }


def front_matter(values: dict[str, Any]) -> str:
    yaml = YAML()
    yaml.width = 4096
    yaml.indent(mapping=2, sequence=4, offset=2)
    file = io.StringIO()
    yaml.dump(values, file)
    return f"---\n{file.getvalue()}---\n"
