"""The fast way of training on a CPU gives what PEFT and TRL give."""

from pathlib import Path

import polars as pl
import pytest
import torch
from conftest import make_row, make_rows
from peft import LoraConfig, get_peft_model
from test_dpo import params as dpo_params

from stages import dpo, sft
from stages.common import cpu_training, training
from stages.common.cpu_training import LoraProduct, TokenLogProbabilities, plain_attention_fits, speed_up_lora
from stages.common.models import load_model, load_tokenizer
from stages.common.params import Train


def adapted(folder: Path, **settings: object) -> torch.nn.Module:
    torch.manual_seed(3)
    config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM", **settings)
    model = get_peft_model(load_model(folder, "float32", "cpu"), config)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return model


def gradients(model: torch.nn.Module, tokens: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    logits = model(input_ids=tokens, attention_mask=torch.ones_like(tokens)).logits
    logits.float().square().mean().backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return logits.detach(), found


def test_adapted_layers_equal_peft(toy_base: Path) -> None:
    model, tokens = adapted(toy_base), torch.arange(5, 29).reshape(2, 12)
    logits, expected = gradients(model, tokens)
    assert len(expected) > 10
    speed_up_lora(model)
    fast_logits, found = gradients(model, tokens)
    assert any("adapted_forward" in str(getattr(module, "forward", "")) for module in model.modules())
    torch.testing.assert_close(fast_logits, logits, rtol=1e-4, atol=1e-5)
    assert found.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-3, atol=1e-7)


def test_switched_off_adapters_give_the_base_model(toy_base: Path) -> None:
    model, tokens = adapted(toy_base), torch.arange(5, 17)[None]
    base = load_model(toy_base, "float32", "cpu")(input_ids=tokens).logits
    speed_up_lora(model)
    with torch.no_grad(), model.disable_adapter():
        torch.testing.assert_close(model(input_ids=tokens).logits, base, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(model(input_ids=tokens).logits, base, atol=1e-3)


def test_lora_product_by_finite_differences() -> None:
    torch.manual_seed(1)
    x, weight, down, up = (torch.randn(shape, dtype=torch.float64) for shape in ((3, 5), (4, 5), (2, 5), (4, 2)))
    expected = x @ weight.t() + 0.5 * (x @ down.t()) @ up.t()
    torch.testing.assert_close(LoraProduct.apply(x, weight, down, up, 0.5), expected)
    for tensor in (x, down, up):
        tensor.requires_grad_()
    LoraProduct.apply(x, weight, down, up, 0.5).sin().sum().backward()
    found = [tensor.grad.clone() for tensor in (x, down, up)]
    copies = [tensor.detach().clone().requires_grad_() for tensor in (x, down, up)]
    (copies[0] @ weight.t() + 0.5 * (copies[0] @ copies[1].t()) @ copies[2].t()).sin().sum().backward()
    for gradient, copy in zip(found, copies, strict=True):
        torch.testing.assert_close(gradient.double(), copy.grad, rtol=1e-5, atol=1e-6)


def test_token_log_probabilities_equal_log_softmax(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_training, "HEAD_ROWS", 4)  # three chunks, the last one short
    torch.manual_seed(2)
    hidden, weight, targets = torch.randn(10, 6, requires_grad=True), torch.randn(20, 6), torch.arange(10)
    weights = torch.linspace(-1, 1, 10)
    found, likeliest = TokenLogProbabilities.apply(hidden, weight, targets)
    (found * weights).sum().backward()
    gradient = hidden.grad.clone()
    hidden.grad = None
    logits = hidden @ weight.t()
    expected = logits.log_softmax(1)[torch.arange(10), targets]
    (expected * weights).sum().backward()
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradient, hidden.grad, rtol=1e-5, atol=1e-6)
    assert likeliest.tolist() == (logits.argmax(1) == targets).tolist()


@pytest.mark.parametrize("settings", [{"lora_dropout": 0.5}, {"use_dora": True}, {"lora_bias": True}])
def test_other_adapters_stay_with_peft(toy_base: Path, settings: dict[str, object]) -> None:
    model = adapted(toy_base, **settings)
    speed_up_lora(model)
    layers = [module for module in model.modules() if isinstance(module, cpu_training.Linear)]
    assert layers
    assert all("forward" not in vars(layer) for layer in layers)


def test_long_sequences_keep_the_fused_attention(toy_base: Path) -> None:
    model = load_model(toy_base, "float32", "cpu")
    assert plain_attention_fits(model, torch.Size((8, 256)))
    assert not plain_attention_fits(model, torch.Size((1, 257)))
    assert not plain_attention_fits(model, torch.Size((10_000, 256)))


def losses_of(trainer: object) -> list[float]:
    trainer.train()  # type: ignore[attr-defined]
    return [float(line["loss"]) for line in trainer.state.log_history if "loss" in line]  # type: ignore[attr-defined]


def test_sft_and_dpo_have_the_stock_loss_curve(toy_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sft, "PARENT", toy_base)
    monkeypatch.setattr(dpo, "PARENT", toy_base)
    tokenizer = load_tokenizer(toy_base)
    pairs = make_rows([make_row(i, f"Question {i}?", "Yes, gladly.", "No " * (1 + i % 3)) for i in range(16)])
    encoded_pairs = dpo.encode_pairs(pairs, tokenizer)
    rows = pl.DataFrame(
        {
            "input_ids": [list(range(4 + i, 16 + 2 * i)) for i in range(16)],
            "labels": [[-100] * 5 + list(range(9 + i, 16 + 2 * i)) for i in range(16)],
        }
    )
    settings = dpo_params()
    train = Train(**{name: getattr(settings, name) for name in Train.model_fields})
    own = sft.Sft(group_by_length=False, neftune_alpha=None)

    def curves() -> tuple[list[float], list[float]]:
        return (
            losses_of(sft.build_trainer(rows, tokenizer, train, own, tmp_path / "sft")),
            losses_of(dpo.build_trainer(encoded_pairs, tokenizer, settings, tmp_path / "dpo")),
        )

    fast = curves()
    monkeypatch.setattr(training, "speed_up", lambda model: None)
    stock = curves()
    assert len(fast[0]) == len(fast[1]) == 4
    assert fast[0] == pytest.approx(stock[0], abs=2e-4)
    assert fast[1] == pytest.approx(stock[1], abs=2e-4)
