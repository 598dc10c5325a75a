"""Quantize the final model.    models/<final> + data/mix/sft.parquet → models/quantized, metrics/quantize.json

GPTQ (Frantar et al. 2023) with llm-compressor: weights in 4 bits with one scale for `group_size` of them, activations
in 16 bits, written as compressed-tensors, which vLLM loads. The head and the embeddings stay as they are.
"""

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from unittest.mock import patch

import polars as pl
from pydantic import Field

from stages.common.stage import run, say  # isort: skip
from stages.common.chat import encode, render
from stages.common.errors import InputError
from stages.common.files import read_json, write_json, write_table
from stages.common.mixture_contracts import CALIBRATION, QUANTIZED_CONSUMED, mixture_of, read_limits
from stages.common.models import chain_of, load_model, load_tokenizer, model_digest
from stages.common.params import Params, Pipeline, PositiveInt, Seed, load

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

OUTPUT = Path("models/quantized")


class Quantize(Params):
    """Low-bit weights."""

    scheme: Literal["w4a16"]
    """4-bit weights, 16-bit activations."""
    group_size: PositiveInt
    """Weights that share a scale; must divide every layer's input width (and be 32, 64 or 128 for vLLM's kernels)."""
    calibration: Literal["mixture", "generated"]
    """On what GPTQ measures the inputs of the layers: training rows, or text that the model itself writes."""
    calibration_rows: PositiveInt
    """Texts to measure on."""
    calibration_length_tokens: PositiveInt
    """Tokens of each text that are used, from its start."""
    dampening: Annotated[float, Field(gt=0, le=1)]
    """Share of the mean diagonal that is added to the Hessian's diagonal."""
    seed: Seed
    """Of the choice of the calibration rows, or of the writing."""


def check_group_size(model: "PreTrainedModel", group_size: int) -> None:
    """Raises InputError where a layer's input width is no multiple of the group size."""
    import torch

    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and name != "lm_head" and module.in_features % group_size:
            raise InputError(
                f"params.yaml, quantize.group_size: {group_size} does not divide the {module.in_features} inputs of "
                f"{name}; 128, 64 and 32 are usual"
            )


@contextmanager
def one_progress_bar() -> Iterator[None]:
    """llm-compressor shows two bars a layer, "(4/31): Calibrating" and "(4/31): Propagating"; here they move one.

    A bar of compressed-tensors and a warning of torch.fx tell a reader nothing, and are left out.
    """
    from compressed_tensors.quantization.lifecycle import apply
    from llmcompressor.pipelines import cache
    from llmcompressor.pipelines.sequential import pipeline
    from tqdm import tqdm

    with tqdm(total=0, desc="quantize", unit="layer") as bar:

        def count(iterable: Any, *_: Any, desc: str = "", **__: Any) -> Any:
            layer = re.match(r"\((\d+)/(\d+)\)", desc)
            if layer:
                bar.total = int(layer[2])
                bar.update(int(layer[1]) - 1 - bar.n)
            return iterable

        logging.getLogger("torch.fx").setLevel(logging.ERROR)
        with (
            patch.object(pipeline, "tqdm", count),
            patch.object(cache, "tqdm", count),
            patch.object(apply, "tqdm", count),
        ):
            yield
        bar.update((bar.total or 0) - bar.n)


def quantize_model(model: "PreTrainedModel", calibration: list[dict[str, Any]], params: Quantize) -> "PreTrainedModel":
    """The model with its linear layers in 4 bits. `calibration`: {input_ids, attention_mask} of one row each."""
    os.environ.setdefault("LLM_COMPRESSOR_LOG_LEVEL", "ERROR")  # else 400 lines of times and errors
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme, QuantizationStrategy
    from datasets import Dataset
    from llmcompressor import oneshot
    from llmcompressor.modifiers.gptq import GPTQModifier

    scheme = QuantizationScheme(
        targets=["Linear"],
        weights=QuantizationArgs(
            num_bits=4, symmetric=True, strategy=QuantizationStrategy.GROUP, group_size=params.group_size
        ),
    )
    recipe = GPTQModifier(config_groups={"group_0": scheme}, ignore=["lm_head"], dampening_frac=params.dampening)
    with one_progress_bar():
        return oneshot(
            model=model,
            dataset=Dataset.from_list(calibration),
            recipe=recipe,
            num_calibration_samples=len(calibration),
            max_seq_length=params.calibration_length_tokens,
            shuffle_calibration_samples=False,
            batch_size=1,
        )


def mixture_rows(
    tokenizer: "PreTrainedTokenizerBase", params: Quantize, base: Path
) -> tuple[list[str], list[list[int]]]:
    """row_id and all token ids of training rows, drawn with the seed; `base` is the folder of the base model."""
    limits = read_limits(base, tokenizer)
    rows = mixture_of("sft").read(window=limits["window"]).filter(split="train").sort("position")
    rows = rows.sample(min(params.calibration_rows, rows.height), seed=params.seed, shuffle=True)
    encoded = (encode(tokenizer, row["messages"], row["tools"], row["row_id"]) for row in rows.iter_rows(named=True))
    table = {"row_id": rows["row_id"], "input_ids": [item.input_ids for item in encoded]}
    drawn = CALIBRATION.check(pl.DataFrame(table, CALIBRATION.columns), vocabulary=limits["vocabulary"])
    QUANTIZED_CONSUMED.check(consumed_table(drawn["row_id"].to_list()), mixture=rows, steps=drawn.height)
    return drawn["row_id"].to_list(), drawn["input_ids"].to_list()


def generated_rows(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", params: Quantize) -> list[list[int]]:
    """Token ids of turns that the model writes to an empty question: what it says of the training data is what the
    noise let through, so that quantizing costs no privacy (post-processing, Dwork and Roth 2014, proposition 2.1)."""
    import torch

    question = render(tokenizer, [{"role": "user", "content": ""}], None, True)  # a template may refuse no message
    start = tokenizer(question, add_special_tokens=False, return_tensors="pt").to(model.device)
    texts: list[list[int]] = []
    while len(texts) < params.calibration_rows:
        count = min(16, params.calibration_rows - len(texts))
        with torch.inference_mode():
            written = model.generate(  # type: ignore[operator]
                **start,
                do_sample=True,
                num_return_sequences=count,
                max_new_tokens=min(params.calibration_length_tokens, 128),
                pad_token_id=tokenizer.pad_token_id,
            )
        texts += [[token for token in line if token != tokenizer.pad_token_id] for line in written.tolist()]
    return texts


def consumed_table(row_ids: list[str]) -> pl.DataFrame:
    """row_id, epoch, step of the calibration rows, as training writes them: one pass, one row a step."""
    steps = pl.int_range(len(row_ids), eager=True)
    return pl.DataFrame({"row_id": pl.Series(row_ids, dtype=pl.String), "epoch": steps * 0, "step": steps})


def stored_precision(folder: Path) -> Literal["bfloat16", "float32"]:
    """How the base model's weights are stored: the quantized model is made of that on any hardware."""
    return "float32" if read_json(folder / "config.json").get("dtype") == "float32" else "bfloat16"


def weight_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def main() -> None:
    import torch

    params, pipeline = load(Quantize, "quantize"), load(Pipeline, "pipeline")
    if pipeline.sft == "sft_dp" and params.calibration == "mixture":
        raise InputError(
            "params.yaml, quantize.calibration: mixture would carry training rows past the noise of sft_dp into the "
            "quantized weights; set it to generated"
        )
    parent = Path("models") / pipeline.final
    torch.manual_seed(params.seed)
    tokenizer = load_tokenizer(parent)
    stored = stored_precision(chain_of(parent)[0])
    model = load_model(parent, "auto" if stored == "bfloat16" else stored)  # what the hardware computes in
    check_group_size(model, params.group_size)
    generated = params.calibration == "generated"
    base, longest = chain_of(parent)[0], params.calibration_length_tokens
    row_ids, whole = (
        ([], generated_rows(model, tokenizer, params)) if generated else mixture_rows(tokenizer, params, base)
    )
    texts = [text[:longest] for text in whole]
    calibration = [{"input_ids": text, "attention_mask": [1] * len(text)} for text in texts]
    model = quantize_model(model, calibration, params).to(getattr(torch, stored))
    model.save_pretrained(OUTPUT, save_compressed=True)
    tokenizer.save_pretrained(OUTPUT)
    write_table(OUTPUT / "consumed.parquet", consumed_table(row_ids))
    before, after = weight_bytes(base), weight_bytes(OUTPUT)
    truncated = sum(len(text) > longest for text in whole)
    write_json(
        "metrics/quantize.json",
        {
            "rows_in": len(calibration),
            "truncated": truncated,
            "bytes": after,
            "bytes_share": after / before,
            "digest": model_digest(OUTPUT),
        },
    )
    say("quantize", f"models/{pipeline.final} in 4 bits: {after / 1e6:.0f} MB, {after / before:.0%} of the base model")


if __name__ == "__main__":
    run("quantize", main, outputs=["models/quantized"])
