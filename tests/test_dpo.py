import math
from pathlib import Path

import polars as pl
import pytest
import torch
from conftest import make_row, make_rows

from stages import dpo
from stages.common.errors import InputError
from stages.common.models import load_tokenizer
from stages.dpo import Dpo, build_trainer, check_start, encode_pairs, preference_accuracy, split_pairs
from stages.dpo import heldout_preferences as measure


def params(**changes: object) -> Dpo:
    values = {
        "beta": 0.1, "loss_type": "sigmoid", "label_smoothing": 0.0, "method": "lora", "lr": 1e-2, "epochs": 1,
        "batch_size": 4, "micro_batch_size": 2, "schedule": "constant", "warmup_share": 0.0, "weight_decay": 0.0,
        "max_grad_norm": 1.0, "lora_rank": 4, "lora_alpha": 8, "lora_dropout": 0.0, "precision": "float32",
        "checkpoint_steps": 100, "seed": 1,
    }  # fmt: skip
    return Dpo(**(values | changes))


@pytest.fixture
def pairs(toy_base: Path) -> pl.DataFrame:
    rows = make_rows([make_row(i, f"Question {i}?", "Yes, gladly.", "No " * (1 + i % 3)) for i in range(16)])
    return encode_pairs(rows, load_tokenizer(toy_base))


def test_ties_count_one_half() -> None:
    assert preference_accuracy(pl.Series([0.3, 0.0, -0.2, 0.1])) == pytest.approx((1 + 0.5 + 0 + 1) / 4)


def test_pairs_share_their_prompt(toy_base: Path, pairs: pl.DataFrame) -> None:
    tokenizer = load_tokenizer(toy_base)
    assert tokenizer.decode(pairs["prompt_ids"][1].to_list()).endswith("Question 1?<|im_end|>\n<|im_start|>assistant\n")
    assert tokenizer.decode(pairs["chosen_ids"][1].to_list()) == "Yes, gladly.<|im_end|>"
    assert tokenizer.decode(pairs["rejected_ids"][1].to_list()) == "No No <|im_end|>"


@pytest.mark.parametrize("method", ["lora", "full"])
def test_training_starts_at_ln_2_and_learns(
    method: str, toy_base: Path, pairs: pl.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dpo, "PARENT", toy_base)
    settings = params(method=method, lr=1e-2 if method == "lora" else 1e-3)
    trainer = build_trainer(pl.concat([pairs] * 4), load_tokenizer(toy_base), settings, tmp_path)
    assert (
        preference_accuracy(measure(trainer, pairs, settings)["margin"]) == 0.5
    )  # the policy is its reference: all ties
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert float(losses[0]) == pytest.approx(math.log(2), abs=1e-4)
    assert float(losses[-1]) < 0.6
    assert preference_accuracy(measure(trainer, pairs, settings)["margin"]) == 1.0


def test_margins_equal_the_definition(toy_base: Path, pairs: pl.DataFrame, tmp_path: Path, monkeypatch) -> None:
    """beta * ((chosen - reference chosen) - (rejected - reference rejected)), summed by hand from the logits."""
    monkeypatch.setattr(dpo, "PARENT", toy_base)
    trainer = build_trainer(pairs, load_tokenizer(toy_base), params(), tmp_path)
    trainer.train()
    model = trainer.model.eval()

    def log_probability(prompt: list[int], reply: list[int]) -> float:
        logits = model(input_ids=torch.tensor([prompt + reply])).logits[0].float().log_softmax(-1)
        return sum(logits[len(prompt) - 1 + place, token].item() for place, token in enumerate(reply))

    row = pairs.row(3, named=True)
    with torch.no_grad():
        policy = [log_probability(row["prompt_ids"], row[key]) for key in ("chosen_ids", "rejected_ids")]
        with model.disable_adapter():
            reference = [log_probability(row["prompt_ids"], row[key]) for key in ("chosen_ids", "rejected_ids")]
    expected = 0.1 * ((policy[0] - reference[0]) - (policy[1] - reference[1]))
    margins = dict(measure(trainer, pairs, params()).iter_rows())
    assert margins[row["row_id"]] == pytest.approx(expected, abs=1e-4)


def test_a_reference_that_is_not_the_policy_fails() -> None:
    check_start(0.6935, params())
    with pytest.raises(RuntimeError, match="the reference is not the SFT policy"):
        check_start(0.71, params())


def test_batches_must_divide() -> None:
    with pytest.raises(ValueError, match="not a multiple"):
        params(batch_size=5)


def test_a_reply_without_text_is_refused(toy_base: Path) -> None:
    rows = make_rows([make_row(1, "Hi", "Hello", "Go")])
    tokenizer = load_tokenizer(toy_base)
    tokenizer.chat_template = "{% for m in messages %}x{% endfor %}"
    with pytest.raises(InputError):
        encode_pairs(rows, tokenizer)


def test_training_in_parts_has_the_loss_curve_of_whole_batches(
    toy_base: Path, pairs: pl.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dpo, "PARENT", toy_base)
    settings = params(micro_batch_size=4)

    def curve() -> list[tuple[float, float]]:
        trainer = build_trainer(pairs, load_tokenizer(toy_base), settings, tmp_path)
        trainer.train()
        lines = [line for line in trainer.state.log_history if "loss" in line]
        return [(float(line["loss"]), float(line["rewards/margins"])) for line in lines]

    whole = curve()
    assert len(whole) == 4
    monkeypatch.setattr(dpo.training, "CPU_PASS_TOKENS", 200)  # of about 40 tokens each: parts of two pairs
    for found, expected in zip(curve(), whole, strict=True):
        assert found == pytest.approx(expected, abs=1e-4)


def test_pairs_are_split_with_their_rejected_halves() -> None:
    ids = torch.tensor([[1, 1, 1], [2, 2, 0], [3, 3, 0], [4, 0, 0], [5, 5, 0], [6, 6, 0], [7, 0, 0], [8, 8, 0]])
    batch = {"input_ids": ids, "attention_mask": (ids > 0).long()}
    parts = split_pairs(batch, limit_tokens=12)
    assert [part["input_ids"].tolist() for part in parts] == [
        [[1, 1, 1], [2, 2, 0], [5, 5, 0], [6, 6, 0]],
        [[3, 3], [4, 0], [7, 0], [8, 8]],
    ]
    assert len(split_pairs(batch, limit_tokens=1)) == 4
    assert len(split_pairs(batch, limit_tokens=24)) == 1
