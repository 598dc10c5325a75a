"""Greedy answers to fixed prompts, for people to read."""

from typing import TYPE_CHECKING

import polars as pl

from stages.common.chat import render
from stages.common.rows import message

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def answer_prompts(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    prompts: list[str],
    batch_size: int,
    max_new_tokens: int,
) -> pl.DataFrame:
    """prompt, answer: the likeliest token at each step, up to the end of the turn or `max_new_tokens`."""
    import torch

    answers: list[str] = []
    ends = [tokenizer.eos_token_id, getattr(model.generation_config, "eos_token_id", None)]
    ends = sorted({end for entry in ends for end in (entry if isinstance(entry, list) else [entry]) if end is not None})
    tokenizer.padding_side = "left"
    for start in range(0, len(prompts), batch_size):
        some = prompts[start : start + batch_size]
        texts = [render(tokenizer, [message("user", text)], None, prompt=True) for text in some]
        batch = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False).to(model.device)
        with torch.inference_mode():
            written = model.generate(  # type: ignore[operator]
                input_ids=batch["input_ids"],
                attention_mask=batch["attention_mask"],
                max_new_tokens=max_new_tokens,
                do_sample=False,
                eos_token_id=ends,
                pad_token_id=tokenizer.pad_token_id,
            )
        replies = tokenizer.batch_decode(written[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
        answers += [reply.strip() for reply in replies]
    return pl.DataFrame({"prompt": prompts, "answer": answers}, {"prompt": pl.String, "answer": pl.String})
