"""SFT under differential privacy.    models/base + data/mix/sft.parquet → models/sft, metrics/sft.json

DP-SGD (Abadi et al. 2016, algorithm 1) with Opacus on LoRA adapters: Poisson-sampled batches, each row's gradient
clipped to `clip_norm`, Gaussian noise of `noise_multiplier` x `clip_norm` on the sum, calibrated so that all steps
together cost `epsilon` at `delta`. The unit of privacy is one row of the mixture; a row that stands in it k times
costs up to k times as much, so `mix.repeat_cap` must be 1.

The promise is about the weights. `consumed.parquet` and the loss curve tell more than the weights do (the accounting
relies on the sampling being secret): keep them where you keep the data. A private run has no checkpoints; an
interrupted one starts anew, because noise drawn twice for the same step would cost twice.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import polars as pl
from pydantic import Field

from stages.common.stage import run, say  # isort: skip
from stages.common import training
from stages.common.errors import InputError
from stages.common.files import write_json
from stages.common.mixture_contracts import SFT_CONSUMED
from stages.common.models import choose_device, choose_dtype, load_model, load_tokenizer, save_trained
from stages.common.params import Params, Seed, Train, load
from stages.common.supervised import heldout_loss, pad_batch, read_mixture, token_losses

if TYPE_CHECKING:
    import torch
    from opacus.accountants import IAccountant
    from opacus.optimizers import DPOptimizer

PARENT, OUTPUT = Path("models/base"), Path("models/sft")


class SftDp(Params):
    """What differential privacy adds to `train`."""

    epsilon: Annotated[float, Field(gt=0)]
    """Privacy budget that the noise is calibrated for."""
    delta: Annotated[float, Field(gt=0, lt=1)]
    """Probability that the promise fails; below 1 / rows."""
    clip_norm: Annotated[float, Field(gt=0)]
    """Each row's gradient is clipped to this length."""
    accountant: Literal["prv", "rdp"]
    """How steps add up: prv (Gopi et al. 2021, tighter) or rdp (Mironov 2017)."""
    noise_seed: Seed | None
    """null: noise and sampling from the machine's entropy; a number makes runs repeatable and voids the privacy."""


def check_choices(params: Train, private: SftDp, rows: pl.DataFrame) -> None:
    """Raises InputError where the promise would not hold."""
    if params.method != "lora":
        raise InputError("params.yaml, train.method: DP-SGD here trains adapters; set it to lora")
    if params.lora_dropout > 0:
        raise InputError("params.yaml, train.lora_dropout: must be 0 under DP; noise regularises already")
    if private.delta >= 1 / rows.height:
        raise InputError(
            f"params.yaml, sft_dp.delta: {private.delta:g} is not below 1 / {rows.height} rows = {1 / rows.height:.2g};"
            " at that size the promise may fail for a whole row"
        )
    if rows["row_id"].is_duplicated().any():
        raise InputError("params.yaml, mix.repeat_cap: must be 1 under DP: a row seen k times costs k times the budget")


def calibrate_noise(private: SftDp, sample_rate: float, steps: int) -> float:
    """The noise multiplier (standard deviation over clip_norm) at which `steps` cost `epsilon`."""
    from opacus.accountants.utils import get_noise_multiplier

    return float(
        get_noise_multiplier(
            target_epsilon=private.epsilon,
            target_delta=private.delta,
            sample_rate=sample_rate,
            steps=steps,
            accountant=private.accountant,
        )
    )


def poisson_batches(n_rows: int, sample_rate: float, steps: int, generator: "torch.Generator") -> list[list[int]]:
    """For each step the indices of the rows drawn, each row with probability `sample_rate`; a batch may be empty."""
    import torch

    return [
        torch.nonzero(torch.rand(n_rows, generator=generator) < sample_rate).flatten().tolist() for _ in range(steps)
    ]


def take_step(
    model: Any, optimizer: "DPOptimizer", rows: list[dict[str, Any]], params: Train, pad_token_id: int
) -> float:
    """One noisy step over the rows of a Poisson batch, in micro-batches; the mean loss of its rows (nan for none).

    A row's loss is the mean over its own supervised tokens, so that no row's gradient depends on another row.
    """
    import torch

    device = next(model.parameters()).device
    mixed = choose_dtype(params.precision) == torch.bfloat16
    chunks = [rows[first : first + params.micro_batch_size] for first in range(0, len(rows), params.micro_batch_size)]
    total = 0.0
    for index, chunk in enumerate(chunks):
        batch = {key: value.to(device) for key, value in pad_batch(chunk, pad_token_id).items()}
        with torch.autocast(device.type, torch.bfloat16, enabled=mixed):
            losses, counts = token_losses(model, batch)
        loss = (losses / counts).mean()
        loss.backward()
        total += loss.item() * len(chunk)
        optimizer.signal_skip_step(do_skip=index < len(chunks) - 1)
        optimizer.step()
        optimizer.zero_grad()
    if not chunks:  # an empty batch still gets its noise: leaving the step out would tell that it was empty
        for parameter in optimizer.params:
            parameter.grad_sample = torch.zeros((0, *parameter.shape), device=device)
        optimizer.step()
        optimizer.zero_grad()
    return total / len(rows) if rows else float("nan")


def train_privately(
    model: Any, train: pl.DataFrame, params: Train, private: SftDp, pad_token_id: int
) -> tuple[pl.DataFrame, pl.DataFrame, "IAccountant", float]:
    """Returns (curve with step, loss, lr; consumed rows; accountant; noise multiplier)."""
    import torch
    from opacus.accountants import create_accountant
    from opacus.optimizers import DPOptimizer
    from tqdm import tqdm
    from transformers import get_scheduler

    sample_rate = min(1.0, params.batch_size / train.height)
    steps = params.epochs * max(1, round(1 / sample_rate))
    noise = calibrate_noise(private, sample_rate, steps)
    device = next(model.parameters()).device
    sampler, noiser = torch.Generator(), torch.Generator(device=device)
    for offset, generator in enumerate((sampler, noiser)):
        generator.seed() if private.noise_seed is None else generator.manual_seed(private.noise_seed + offset)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = DPOptimizer(
        torch.optim.AdamW(trained, lr=params.lr, weight_decay=params.weight_decay),
        noise_multiplier=noise,
        max_grad_norm=private.clip_norm,
        expected_batch_size=params.batch_size,
        generator=noiser,
    )
    accountant = create_accountant(private.accountant)
    optimizer.attach_step_hook(accountant.get_optimizer_hook_fn(sample_rate))
    name = "constant_with_warmup" if params.schedule == "constant" else params.schedule
    schedule = get_scheduler(name, optimizer.original_optimizer, round(params.warmup_share * steps), steps)
    rows, curve, seen = train.to_dicts(), [], []
    batches = poisson_batches(train.height, sample_rate, steps, sampler)
    model.train()
    for step, indices in enumerate(progress := tqdm(batches, desc="sft_dp", unit=" steps")):
        rate = schedule.get_last_lr()[0]
        loss = take_step(model, optimizer, [rows[index] for index in indices], params, pad_token_id)
        schedule.step()
        progress.set_postfix(loss=f"{loss:.3f}")
        curve.append({"step": step + 1, "loss": loss, "lr": rate})
        seen += [
            {"row_id": rows[index]["row_id"], "epoch": step * params.epochs // steps, "step": step} for index in indices
        ]
    consumed = pl.DataFrame(seen, schema={"row_id": pl.String, "epoch": pl.Int64, "step": pl.Int64})
    return pl.DataFrame(curve), consumed, accountant, noise


def main() -> None:
    import torch
    from opacus import GradSampleModule
    from peft import get_peft_model

    params, private = load(Train, "train"), load(SftDp, "sft_dp")
    tokenizer = load_tokenizer(PARENT)
    train, heldout = read_mixture(PARENT, tokenizer)
    check_choices(params, private, train)
    torch.manual_seed(params.seed)
    # The model stands on its device before it gets adapters: the other way round nothing is trained (peft#3409).
    config = training.lora_config(params)
    assert config is not None  # check_choices: method is lora
    model = get_peft_model(load_model(PARENT, params.precision, choose_device()), config)
    before = training.trainable_copy(model)
    wrapped = GradSampleModule(model, strict=False)
    curve, consumed, accountant, noise = train_privately(wrapped, train, params, private, tokenizer.pad_token_id)
    SFT_CONSUMED.check(consumed, mixture=train.with_columns(split=pl.lit("train")), steps=None)
    wrapped.to_standard_module()
    moved = training.require_moved(before, model, "sft_dp")
    save_trained(model, OUTPUT, PARENT)
    training.write_training("sft", OUTPUT, consumed, curve)
    metrics = {
        "rows_in": train.height,
        "steps": curve.height,
        "train_loss": float(curve["loss"].drop_nans().mean()),  # type: ignore[arg-type]
        "heldout_loss": heldout_loss(model, heldout, tokenizer, params),
        "supervised_tokens": int(consumed.join(train, on="row_id")["supervised_tokens"].sum()),
        "weights_moved_rms": moved,
        "epsilon": float(accountant.get_epsilon(delta=private.delta)),
        "delta": private.delta,
        "noise_multiplier": noise,
        "sample_rate": min(1.0, params.batch_size / train.height),
        "clip_norm": private.clip_norm,
        "private": private.noise_seed is None,
    }
    write_json("metrics/sft.json", metrics)
    say("sft_dp", f"epsilon {metrics['epsilon']:.2f} at delta {private.delta:g}, noise multiplier {noise:.2f}")
    if private.noise_seed is not None:
        say("sft_dp", "the noise has a published seed: these weights are NOT private; set sft_dp.noise_seed to null")


if __name__ == "__main__":
    run("sft", main, outputs=["models/sft"])
