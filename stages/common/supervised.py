"""Rows of the SFT mixture as tensors, and the loss on rows that were not trained on: shared by sft and sft_dp."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from stages.common.chat import encode
from stages.common.errors import InputError
from stages.common.mixture_contracts import ENCODED, IGNORED, mixture_of, read_limits
from stages.common.training import CPU_PASS_TOKENS

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase


def encode_rows(rows: pl.DataFrame, tokenizer: "PreTrainedTokenizerBase") -> pl.DataFrame:
    """row_id, input_ids, labels (IGNORED where not supervised), length, supervised_tokens. Raises InputError."""
    encoded = [encode(tokenizer, row["messages"], row["tools"], row["row_id"]) for row in rows.iter_rows(named=True)]
    return pl.DataFrame(
        {
            "row_id": rows["row_id"],
            "input_ids": [item.input_ids for item in encoded],
            "labels": [
                [token if kept else IGNORED for token, kept in zip(item.input_ids, item.supervised, strict=True)]
                for item in encoded
            ],
            "length": [len(item.input_ids) for item in encoded],
            "supervised_tokens": [sum(item.supervised) for item in encoded],
        },
        schema=ENCODED.columns,
    )


def read_mixture(folder: Path, tokenizer: "PreTrainedTokenizerBase") -> tuple[pl.DataFrame, pl.DataFrame]:
    """(training rows, held-out rows) of the SFT mixture in their order, encoded for the base model of `folder`.

    Raises InputError where either is empty, or a row is not as it must be.
    """
    contract, limits = mixture_of("sft"), read_limits(folder, tokenizer)
    if not Path(contract.path).exists():
        raise InputError(f"{contract.path}: there is no such file; add an SFT source to params.yaml, then `dvc repro`")
    rows = contract.read(window=limits["window"]).sort("position")
    train, heldout = (rows.filter(split=split) for split in ("train", "heldout"))
    if train.is_empty():
        raise InputError(f"{contract.path} has no training row; raise mix.budget.sft or add a source")
    if heldout.is_empty():
        raise InputError(
            f"{contract.path} has no held-out row; raise mix.heldout_share.sft, or, where mix warns that the groups of "
            "a source are too large for its share, add rows that share no subject, prompt or cluster"
        )
    encoded = ENCODED.check(encode_rows(rows, tokenizer), mixture=rows, **limits)
    in_training = rows["split"] == "train"
    return encoded.filter(in_training), encoded.filter(~in_training)


def pad_batch(rows: list[dict[str, Any]], pad_token_id: int) -> dict[str, "torch.Tensor"]:
    """input_ids, attention_mask and labels of shape (n_rows, longest), padded on the right."""
    import torch

    longest = max(len(row["input_ids"]) for row in rows)

    def filled(key: str, filler: int) -> "torch.Tensor":
        return torch.tensor([row[key] + [filler] * (longest - len(row[key])) for row in rows])

    lengths = torch.tensor([[len(row["input_ids"])] for row in rows])
    return {
        "input_ids": filled("input_ids", pad_token_id),
        "attention_mask": (torch.arange(longest)[None] < lengths).long(),
        "labels": filled("labels", IGNORED),
    }


def split_batch(batch: dict[str, "torch.Tensor"], limit_tokens: int) -> list[dict[str, "torch.Tensor"]]:
    """A batch padded on the right as parts of at most `limit_tokens` tokens, padding included, and at least one row."""
    n_rows, length = batch["input_ids"].shape
    some = max(1, limit_tokens // length)
    parts = [{key: value[start : start + some] for key, value in batch.items()} for start in range(0, n_rows, some)]
    longest = [int(part["attention_mask"].sum(1).max()) for part in parts]
    return [{key: value[:, :end] for key, value in part.items()} for part, end in zip(parts, longest, strict=True)]


def token_losses(model: "torch.nn.Module", batch: dict[str, "torch.Tensor"]) -> tuple["torch.Tensor", "torch.Tensor"]:
    """(summed negative log-likelihood in nats, supervised tokens) of each row, float32 and int64 (n_rows,)."""
    import torch

    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False).logits
    targets = batch["labels"][:, 1:]
    losses = torch.nn.functional.cross_entropy(
        logits[:, :-1].float().transpose(1, 2), targets, ignore_index=IGNORED, reduction="none"
    )
    return losses.sum(1), (targets != IGNORED).sum(1)


def heldout_loss(
    model: "torch.nn.Module", rows: pl.DataFrame, tokenizer: "PreTrainedTokenizerBase", params: Any
) -> float:
    """Mean negative log-likelihood of a supervised token over `rows`, in nats."""
    import torch
    from tqdm import tqdm

    model.eval()
    total, tokens = 0.0, 0
    items = rows.sort("length", "row_id").to_dicts()
    device = next(model.parameters()).device
    bfloat16 = torch.bfloat16 in {parameter.dtype for parameter in model.parameters()}
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
        for start in tqdm(range(0, len(items), params.micro_batch_size), desc="held-out loss", unit=" batches"):
            batch = pad_batch(items[start : start + params.micro_batch_size], tokenizer.pad_token_id)
            for part in split_batch(batch, CPU_PASS_TOKENS):
                losses, counts = token_losses(model, {key: value.to(device) for key, value in part.items()})
                total, tokens = total + losses.sum().item(), tokens + int(counts.sum())
    return total / tokens
