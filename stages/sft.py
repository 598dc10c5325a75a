"""Supervised fine-tuning.    models/base + data/mix/sft.parquet → models/sft, metrics/sft.json

TRL's SFTTrainer on LoRA adapters (or all weights) with the loss on the assistant's tokens alone. Frozen weights and
arithmetic are bfloat16 where the hardware has it, trained weights float32.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import polars as pl
from pydantic import Field

from stages.common.stage import run, say  # isort: skip
from stages.common import training
from stages.common.files import write_json
from stages.common.mixture_contracts import SFT_CONSUMED
from stages.common.models import load_model, load_tokenizer, model_digest
from stages.common.params import Params, Train, load
from stages.common.supervised import heldout_loss, read_mixture, split_batch

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PARENT = Path("models/base")
DATA = Path("data/mix/sft.parquet")


class Sft(Params):
    """What only the non-private SFT has, beside `train`."""

    group_by_length: bool
    """Rows of like length share a batch, within windows of 16 batches: less padding."""
    neftune_alpha: Annotated[float, Field(gt=0)] | None
    """Scale of uniform noise on the embeddings (NEFTune, Jain et al. 2023), 5 to 15; null: none."""


def build_trainer(
    rows: pl.DataFrame, tokenizer: "PreTrainedTokenizerBase", params: Train, own: Sft, folder: Path
) -> Any:
    """An SFTTrainer over rows that are tokenized already, in the order given.

    On a CPU a batch of long rows goes through the model in parts: the loss is a sum over tokens divided by the count of
    the whole step, so the gradients of the parts add up to the same.
    """
    import torch
    from datasets import Dataset
    from transformers import set_seed
    from trl import SFTConfig, SFTTrainer

    class PartwiseTrainer(SFTTrainer):
        def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
            parts = split_batch(inputs, training.CPU_PASS_TOKENS) if self.args.use_cpu else [inputs]
            step = super().training_step
            return torch.stack([step(model, part, num_items_in_batch) for part in parts]).sum()

    set_seed(params.seed)
    arguments = SFTConfig(
        **training.trainer_arguments(params, folder, rows.height),
        max_length=None,
        packing=False,
        neftune_noise_alpha=own.neftune_alpha,
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    trainer = PartwiseTrainer(
        model=load_model(PARENT, training.weights_precision(params)),
        args=arguments,
        train_dataset=Dataset.from_list(rows.select("input_ids", "labels").to_dicts()),
        processing_class=tokenizer,
        peft_config=training.lora_config(params),
    )
    training.speed_up(trainer.model)
    return trainer


def main() -> None:
    params, own = load(Train, "train"), load(Sft, "sft")
    tokenizer = load_tokenizer(PARENT)
    train, heldout = read_mixture(PARENT, tokenizer)
    window = training.WINDOW_BATCHES if own.group_by_length else 1
    order = training.plan_order(train["length"].to_list(), params.epochs, params.batch_size, params.seed, window)
    folder = training.checkpoint_folder("sft", params, own, DATA, model_digest(PARENT))
    trainer = build_trainer(train[order], tokenizer, params, own, folder)
    consumed = training.consumed_table(train["row_id"].to_list(), order, params.batch_size)
    SFT_CONSUMED.check(
        consumed, mixture=train.with_columns(split=pl.lit("train")), steps=-(-len(order) // params.batch_size)
    )
    columns = {"loss": "loss", "lr": "learning_rate", "grad_norm": "grad_norm"}
    _, metrics = training.train_and_write(trainer, "sft", PARENT, folder, consumed, columns)
    metrics |= {
        "heldout_loss": heldout_loss(trainer.model, heldout, tokenizer, params),
        "supervised_tokens": int(train["supervised_tokens"].sum()) * params.epochs,
    }
    write_json("metrics/sft.json", metrics)
    training.remove_checkpoints(folder)
    say("sft", f"training loss {metrics['train_loss']:.3f}, held-out loss {metrics['heldout_loss']:.3f}")


if __name__ == "__main__":
    run("sft", main, outputs=["models/sft"])
