"""Count the tokens that a trainer will see: each row rendered once, the tokenizer called on batches."""

from bisect import bisect_left
from pathlib import Path
from typing import Any

import polars as pl
from tqdm import tqdm

from stages.common.chat import encode, encode_reply, render
from stages.common.models import load_tokenizer

BATCH = 1000  # conversations


def check_template(tokenizer: Any, rows: pl.DataFrame) -> None:
    """Raises InputError where the chat template does not suit training, as the longest conversation of a kind shows."""
    turns = pl.col("messages").list.len()
    for row in rows.sort(-turns.cast(pl.Int64), "row_id").unique("kind", keep="first").iter_rows(named=True):
        if row["kind"] == "sft":
            encode(tokenizer, row["messages"], row["tools"], row["row_id"])
        else:
            encode_reply(tokenizer, row["messages"], row["chosen"], row["tools"], row["row_id"])


def count_texts(tokenizer: Any, texts: list[str], whole: list[bool]) -> list[int]:
    """Tokens of each text; where not `whole`, only those up to the end of the last turn, which end a reply."""
    batch = tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True)
    ends = [len(text) if all_of_it else len(text.rstrip()) for text, all_of_it in zip(texts, whole, strict=True)]
    return [
        bisect_left(offsets, end, key=lambda offset: offset[0])
        for offsets, end in zip(batch["offset_mapping"], ends, strict=True)
    ]


def count_tokens(rows: pl.DataFrame, folder: Path) -> pl.DataFrame:
    """Add `tokens` (prompt and reply through the chat template; for pairs both sequences) and `longest_tokens`."""
    tokenizer = load_tokenizer(folder)
    check_template(tokenizer, rows)
    conversations = pl.concat(
        [
            rows.filter(pl.col("kind") == "sft").select("row_id", "messages", "tools", whole=True),
            *(
                rows.filter(pl.col("kind") != "sft", pl.col(reply).is_not_null()).select(
                    "row_id", pl.concat_list("messages", reply), "tools", whole=False
                )
                for reply in ("chosen", "rejected")
            ),
        ]
    )
    counts: list[int] = []
    for start in tqdm(range(0, conversations.height, BATCH), desc="mix: counting tokens", unit="batch"):
        batch = conversations.slice(start, BATCH)
        texts = [
            render(tokenizer, messages, tools, prompt=False)
            for messages, tools in batch.select("messages", "tools").iter_rows()
        ]
        counts += count_texts(tokenizer, texts, batch["whole"].to_list())
    counted = conversations.select("row_id", pl.Series("tokens", counts, pl.Int64))
    totals = counted.group_by("row_id").agg(pl.col("tokens").sum(), longest_tokens=pl.col("tokens").max())
    return rows.join(totals, on="row_id", how="left", maintain_order="left")
