"""SFT and DPO on a CPU: the stages' trainers beside stock TRL, on the same rows in the same order.

    python bench/training.py [--steps 8] [--rounds 2]

Same model, data, adapter, batch, seed, optimiser and precision of the master weights (float32 adapters, bfloat16
arithmetic where the CPU has it). Stock is SFTTrainer and DPOTrainer with bf16=True as their documentation has it: rows
in the order of the mixture, 8 rows a pass, the fused head that TRL brings along, the reference computed in the same
pass. `ours` is what the stages build from params.yaml, rows of like length together. `ours, stock order` trains on
stock's batches, so that its losses can be compared step by step.

Needs models/ and data/mix (`make repro`). Rounds alternate, so that a busy machine slows all alike. Prints tokens per
second, the ratio, and the largest difference of the losses; writes nothing.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

from stages.common.stage import say  # isort: skip
import numpy as np
import polars as pl

from stages import dpo, sft
from stages.common import training
from stages.common.models import choose_dtype, load_tokenizer
from stages.common.params import Train, load
from stages.common.supervised import read_mixture

STOCK_ROWS = 8  # rows a pass of stock, and of ours where it trains on the batches of stock

Run = tuple[float, list[float]]
"""Seconds of training, the loss of each step."""


@contextmanager
def stock_trainers(autocast: bool) -> Iterator[None]:
    """Nothing of ours in the stages' trainers: PEFT's layers, TRL's head, autocast, whole batches."""
    with (
        patch.object(training, "speed_up", lambda model: None),
        patch.object(training, "uses_autocast", lambda params: autocast),
        patch.object(training, "CPU_PASS_TOKENS", sys.maxsize),
    ):
        yield


def time_training(build: Callable[[Path], Any]) -> Run:
    with tempfile.TemporaryDirectory() as folder:
        trainer = build(Path(folder))
        training.use_named_progress(trainer, "bench")
        start = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - start
    return seconds, [float(line["loss"]) for line in trainer.state.log_history if "loss" in line]


def compare(
    name: str,
    build: Callable[[pl.DataFrame, Any, Path], Any],
    rows: pl.DataFrame,
    tokens: int,
    params: Any,
    rounds: int,
) -> None:
    """Time three ways of training on `rows`, which stand in the order of the mixture; `build` makes a trainer."""
    import torch

    order = training.plan_order(rows["length"].to_list(), 1, params.batch_size, params.seed)
    small = params.model_copy(update={"micro_batch_size": min(STOCK_ROWS, params.micro_batch_size)})
    stock = stock_trainers(choose_dtype(params.precision) == torch.bfloat16)
    stock_batches = partial(build, rows, small)
    ways = {
        "stock": stock(partial(time_training, stock_batches)),
        "ours, stock order": partial(time_training, stock_batches),
        "ours": partial(time_training, partial(build, rows[order], params)),
    }
    runs: dict[str, list[Run]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, run in ways.items():
            runs[way].append(run())
    speeds = {way: statistics.median(tokens / seconds for seconds, _ in runs[way]) for way in ways}
    for way, speed in speeds.items():
        say(name, f"{way:18} {speed:6.0f} tokens/s  {speed / speeds['stock']:.2f}x")
    theirs, ours = (np.array(runs[way][0][1]) for way in ("stock", "ours, stock order"))
    say(name, f"largest difference of a step's loss: {np.abs(theirs - ours).max():.4f}; mean loss {theirs.mean():.3f}")


def bench_sft(steps: int, rounds: int) -> None:
    params, own = load(Train, "train"), load(sft.Sft, "sft")
    tokenizer = load_tokenizer(sft.PARENT)
    rows = read_mixture(sft.PARENT, tokenizer)[0].head(steps * params.batch_size)

    def build(chosen: pl.DataFrame, settings: Train, folder: Path) -> Any:
        return sft.build_trainer(chosen, tokenizer, settings, own, folder)

    compare("sft", build, rows, int(rows["length"].sum()), params, rounds)


def bench_dpo(steps: int, rounds: int) -> None:
    params = load(dpo.Dpo, "dpo")
    tokenizer = load_tokenizer(dpo.PARENT)
    rows = pl.read_parquet(dpo.DATA).sort("position").filter(split="train").head(steps * params.batch_size)
    pairs = dpo.encode_pairs(rows, tokenizer)
    tokens = pairs.select(pl.sum_horizontal(pl.col("^.*_ids$").list.len()) + pl.col("prompt_ids").list.len())

    def build(chosen: pl.DataFrame, settings: dpo.Dpo, folder: Path) -> Any:
        return dpo.build_trainer(chosen, tokenizer, settings, folder)

    compare("dpo", build, pairs, int(tokens.to_series().sum()), params, rounds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=8, help="optimiser steps a run (default: 8)")
    parser.add_argument("--rounds", type=int, default=2, help="runs of each way, alternating (default: 2)")
    chosen = parser.parse_args()
    bench_sft(chosen.steps, chosen.rounds)
    bench_dpo(chosen.steps, chosen.rounds)
