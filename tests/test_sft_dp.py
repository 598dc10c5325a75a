import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from conftest import make_row, make_rows

from stages.common.errors import InputError
from stages.common.models import load_model, load_tokenizer
from stages.common.params import Train
from stages.common.supervised import encode_rows
from stages.common.training import lora_config
from stages.sft_dp import SftDp, calibrate_noise, check_choices, poisson_batches, take_step, train_privately


def train_params(**changes: object) -> Train:
    values = {
        "method": "lora", "lr": 1e-2, "epochs": 2, "batch_size": 8, "micro_batch_size": 4, "schedule": "constant",
        "warmup_share": 0.0, "weight_decay": 0.0, "max_grad_norm": 1.0, "lora_rank": 2, "lora_alpha": 4,
        "lora_dropout": 0.0, "precision": "float32", "checkpoint_steps": 100, "seed": 1,
    }  # fmt: skip
    return Train(**(values | changes))


def private(**changes: object) -> SftDp:
    values = {"epsilon": 8.0, "delta": 1e-3, "clip_norm": 1.0, "accountant": "rdp", "noise_seed": 3}
    return SftDp(**(values | changes))


@pytest.fixture
def rows(toy_base: Path) -> pl.DataFrame:
    table = make_rows([make_row(i, f"Question {i}?", f"Answer {i * 7}.") for i in range(40)])
    return encode_rows(table, load_tokenizer(toy_base))


def wrapped(toy_base: Path) -> torch.nn.Module:
    from opacus import GradSampleModule
    from peft import get_peft_model

    torch.manual_seed(0)
    return GradSampleModule(
        get_peft_model(load_model(toy_base, "float32", "cpu"), lora_config(train_params())), strict=False
    )


def test_noise_is_calibrated_to_the_budget() -> None:
    """Twice the steps want more noise; and the noise found costs at most epsilon by Opacus's own accountant."""
    from opacus.accountants import RDPAccountant

    short, long = (calibrate_noise(private(), 0.1, steps) for steps in (50, 100))
    assert long > short
    accountant = RDPAccountant()
    accountant.history = [(long, 0.1, 100)]
    assert 7.9 < accountant.get_epsilon(delta=1e-3) <= 8.0


def test_full_batch_gaussian_agrees_with_the_closed_form() -> None:
    """One step on all rows is the Gaussian mechanism; its RDP bound is min over a of a/(2 s^2) + log(1/d)/(a-1)
    (Mironov 2017, proposition 3), which Opacus's conversion may only improve on."""
    noise = calibrate_noise(private(epsilon=1.0, delta=1e-5), 1.0, 1)
    orders = np.linspace(1.01, 200, 20000)
    bound = (orders / (2 * noise**2) + math.log(1e5) / (orders - 1)).min()
    assert 1.0 <= bound < 1.25


def test_poisson_batches_vary_and_have_the_right_mean() -> None:
    batches = poisson_batches(1000, 0.05, 400, torch.Generator().manual_seed(1))
    sizes = [len(batch) for batch in batches]
    assert len(set(sizes)) > 10
    assert abs(np.mean(sizes) - 50) < 4 * math.sqrt(1000 * 0.05 * 0.95 / 400)


def test_clipping_bounds_what_one_row_can_do(toy_base: Path, rows: pl.DataFrame) -> None:
    """Without noise a batch gives the sum of row gradients, each cut to clip_norm, over the batch size;
    recomputed here row by row with plain autograd."""
    from opacus.optimizers import DPOptimizer

    module = wrapped(toy_base)
    with torch.no_grad():  # lora_B starts at zero, where lora_A has no gradient: move away from there
        for name, parameter in module.named_parameters():
            if "lora_B" in name:
                parameter += 0.1 * torch.randn_like(parameter)
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    chosen, clip = rows.to_dicts()[:6], 0.5
    expected = [torch.zeros_like(parameter) for parameter in trained]
    plain = module._module
    for row in chosen:
        labels = torch.tensor([row["labels"]])
        loss = plain(input_ids=torch.tensor([row["input_ids"]]), labels=labels).loss
        gradients = torch.autograd.grad(loss, trained)
        length = torch.sqrt(sum(gradient.square().sum() for gradient in gradients))
        for total, gradient in zip(expected, gradients, strict=True):
            total += gradient * min(1.0, clip / (length.item() + 1e-6)) / 6
    for parameter in trained:
        parameter.grad_sample = None
    optimizer = DPOptimizer(
        torch.optim.SGD(trained, lr=1.0), noise_multiplier=0.0, max_grad_norm=clip, expected_batch_size=6
    )
    before = [parameter.detach().clone() for parameter in trained]
    take_step(module, optimizer, chosen, train_params(micro_batch_size=4), pad_token_id=0)
    for start, parameter, gradient in zip(before, trained, expected, strict=True):
        torch.testing.assert_close(start - parameter.detach(), gradient, atol=1e-5, rtol=1e-3)


def test_an_empty_batch_still_gets_its_noise(toy_base: Path) -> None:
    from opacus.optimizers import DPOptimizer

    module = wrapped(toy_base)
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    before = [parameter.detach().clone() for parameter in trained]
    optimizer = DPOptimizer(
        torch.optim.SGD(trained, lr=1.0), noise_multiplier=2.0, max_grad_norm=0.5, expected_batch_size=4,
        generator=torch.Generator().manual_seed(1),
    )  # fmt: skip
    assert math.isnan(take_step(module, optimizer, [], train_params(), pad_token_id=0))
    moved = torch.cat([(a - b.detach()).flatten() for a, b in zip(before, trained, strict=True)])
    assert moved.std().item() == pytest.approx(2.0 * 0.5 / 4, rel=0.05)  # noise_multiplier * clip / expected batch


def test_training_moves_the_adapter_and_counts_epsilon(toy_base: Path, rows: pl.DataFrame) -> None:
    module = wrapped(toy_base)
    before = {name: p.detach().clone() for name, p in module.named_parameters() if p.requires_grad}
    curve, consumed, accountant, noise = train_privately(module, rows, train_params(), private(), 0)
    assert curve.height == 2 * round(40 / 8)
    assert 0 < accountant.get_epsilon(delta=1e-3) <= 8.0
    assert noise > 0
    assert set(consumed["row_id"]) <= set(rows["row_id"])
    assert any(not torch.equal(before[name], p) for name, p in module.named_parameters() if name in before)


def test_the_promise_is_not_made_where_it_would_not_hold(rows: pl.DataFrame) -> None:
    with pytest.raises(InputError, match=r"sft_dp\.delta: 0\.1 is not below"):
        check_choices(train_params(), private(delta=0.1), rows)
    with pytest.raises(InputError, match="repeat_cap"):
        check_choices(train_params(), private(), pl.concat([rows, rows]))
    with pytest.raises(InputError, match=r"train\.method"):
        check_choices(train_params(method="full"), private(), rows)
