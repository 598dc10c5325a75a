from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from conftest import make_row, make_rows

from stages.common import training
from stages.common.errors import InputError
from stages.common.models import load_tokenizer
from stages.common.supervised import read_mixture
from stages.common.training import checkpoint_folder, consumed_table, curve_of, plan_order, require_moved


def test_every_epoch_holds_every_row_once() -> None:
    lengths = [5, 50, 7, 60, 9, 55, 8, 70, 6, 65]
    order = plan_order(lengths, epochs=3, batch_size=4, seed=1)
    assert order.shape == (30,)
    for epoch in range(3):
        assert sorted(order[epoch * 10 : (epoch + 1) * 10]) == list(range(10))


def test_rows_of_like_length_share_a_batch() -> None:
    order = plan_order([1, 9, 1, 9, 1, 9, 1, 9], epochs=1, batch_size=4, seed=1)
    batches = [sorted(order[:4]), sorted(order[4:])]
    assert sorted(batches) == [[0, 2, 4, 6], [1, 3, 5, 7]]


def test_a_window_of_one_batch_keeps_the_order_of_the_mixture_batch_by_batch() -> None:
    order = plan_order([9, 1, 8, 2, 7, 3], epochs=1, batch_size=2, seed=1, window_batches=1)
    assert [sorted(order[i : i + 2]) for i in (0, 2, 4)] == [[0, 1], [2, 3], [4, 5]]


def test_the_short_batch_stands_last_so_that_steps_and_rows_agree() -> None:
    order = plan_order([3] * 10, epochs=1, batch_size=4, seed=5)
    assert set(order[8:]) == {8, 9}


def test_consumed_table_counts_epochs_and_steps() -> None:
    table = consumed_table(["a", "b", "c"], np.array([2, 0, 1, 1, 2, 0]), batch_size=2)
    assert table.rows() == [("c", 0, 0), ("a", 0, 0), ("b", 0, 1), ("b", 1, 1), ("c", 1, 2), ("a", 1, 2)]


def test_curve_takes_training_lines_only() -> None:
    history = [
        {"step": 1, "loss": "1.5", "learning_rate": 0.1},
        {"step": 1, "eval_loss": 2.0},
        {"step": 2, "loss": 1.0},
    ]
    curve = curve_of(history, {"loss": "loss", "lr": "learning_rate"})
    assert curve["loss"].to_list() == [1.5, 1.0]
    assert np.isnan(curve["lr"][1])


def test_weights_that_have_not_moved_fail() -> None:
    layer = torch.nn.Linear(2, 1, bias=False)
    before = {name: parameter.detach().clone() for name, parameter in layer.named_parameters()}
    with pytest.raises(InputError, match="no trained weight has moved"):
        require_moved(before, layer, "sft")
    with torch.no_grad():
        layer.weight += 3.0
    assert require_moved(before, layer, "sft") == pytest.approx(3.0)


def test_other_inputs_get_another_checkpoint_folder(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    data = tmp_path / "data"
    data.write_text("one")
    first = checkpoint_folder("sft", {"lr": 1}, data)
    first.mkdir(parents=True)
    assert checkpoint_folder("sft", {"lr": 1}, data) == first
    data.write_text("two")
    second = checkpoint_folder("sft", {"lr": 1}, data)
    assert second != first
    assert not first.exists(), "checkpoints of other inputs can never be resumed: they are removed"


def test_heldout_loss_is_the_mean_over_tokens(toy_base) -> None:
    from types import SimpleNamespace

    from stages.common.models import load_model, load_tokenizer
    from stages.common.supervised import heldout_loss

    model, tokenizer = load_model(toy_base, "float32", "cpu"), load_tokenizer(toy_base)
    rows = pl.DataFrame(
        {
            "row_id": ["a", "b"], "input_ids": [[5, 6, 7], [8, 9, 10, 11]],
            "labels": [[-100, 6, 7], [-100, -100, -100, 11]], "length": [3, 4], "supervised_tokens": [2, 1],
        }
    )  # fmt: skip
    losses = []
    for ids, targets in (([5, 6, 7], {1: 6, 2: 7}), ([8, 9, 10, 11], {3: 11})):
        logits = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        losses += [-logits[place - 1, token].item() for place, token in targets.items()]
    found = heldout_loss(model, rows, tokenizer, SimpleNamespace(micro_batch_size=2))
    assert found == pytest.approx(sum(losses) / 3, abs=1e-5)


def test_parts_of_a_batch_hold_its_tokens_once() -> None:
    from stages.common.supervised import pad_batch, split_batch

    rows = [{"input_ids": list(range(1, 1 + n)), "labels": [-100, *range(2, 1 + n)]} for n in (3, 2, 6, 4)]
    batch = pad_batch(rows, pad_token_id=0)
    parts = split_batch(batch, limit_tokens=12)
    assert [tuple(part["input_ids"].shape) for part in parts] == [(2, 3), (2, 6)]
    found = [row[row > 0].tolist() for part in parts for row in part["input_ids"]]
    assert found == [row["input_ids"] for row in rows]
    assert [tuple(part["labels"].shape) for part in split_batch(batch, limit_tokens=1)] == [
        (1, 3),
        (1, 2),
        (1, 6),
        (1, 4),
    ]


def test_training_in_parts_has_the_loss_curve_of_whole_batches(toy_base, tmp_path, monkeypatch) -> None:
    from test_dpo import params as dpo_params

    from stages import sft
    from stages.common.models import load_tokenizer
    from stages.common.params import Train

    monkeypatch.setattr(sft, "PARENT", toy_base)
    settings = dpo_params(micro_batch_size=4)
    train = Train(**{name: getattr(settings, name) for name in Train.model_fields})
    own = sft.Sft(group_by_length=False, neftune_alpha=None)
    rows = pl.DataFrame(
        {
            "input_ids": [list(range(4 + i, 16 + 2 * i)) for i in range(16)],
            "labels": [[-100] * (1 + i) + list(range(5 + 2 * i, 16 + 2 * i)) for i in range(16)],
        }
    )

    def losses() -> list[float]:
        trainer = sft.build_trainer(rows, load_tokenizer(toy_base), train, own, tmp_path)
        trainer.train()
        return [float(line["loss"]) for line in trainer.state.log_history if "loss" in line]

    whole = losses()
    monkeypatch.setattr(training, "CPU_PASS_TOKENS", 40)
    assert losses() == pytest.approx(whole, abs=1e-4)
    assert whole[-1] < whole[0]


def test_without_held_out_rows_both_remedies_are_said(
    tmp_path: Path, toy_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("data/mix").mkdir(parents=True)
    tokens, first = pl.lit(9, pl.Int64), pl.lit(0, pl.Int64)
    beside = {"tokens": tokens, "longest_tokens": tokens, "repeat": first, "position": first}
    rows = make_rows([make_row(1, "Hi", "Hello")]).with_columns(split=pl.lit("train"), **beside)
    rows.write_parquet("data/mix/sft.parquet")
    with pytest.raises(InputError, match=r"raise mix\.heldout_share\.sft, or, .* add rows that share no subject"):
        read_mixture(toy_base, load_tokenizer(toy_base))
