"""Direct preference optimisation.    models/sft + data/mix/preference.parquet → models/align, metrics/align.json

Rafailov et al. 2023, equation 7, with TRL's DPOTrainer. The reference is the SFT policy: the adapters of models/sft are
merged, a new adapter starts at zero on top, and the reference is the same model with that adapter switched off, on the
same padded batches. So the loss at step 0 is ln 2 up to rounding, and the stage fails where it is not.
"""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import polars as pl
from pydantic import Field, model_validator

from stages.common.stage import run, say  # isort: skip
from stages.common import training
from stages.common.chat import encode_reply
from stages.common.errors import InputError
from stages.common.files import write_json
from stages.common.mixture_contracts import ALIGN_CONSUMED, PAIRS, mixture_of, read_limits
from stages.common.models import chain_of, load_model, load_tokenizer, model_digest
from stages.common.params import Train, load

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

PARENT = Path("models/sft")
DATA = Path("data/mix/preference.parquet")
LOSSES_FROM_LN_2 = ("sigmoid", "robust")


class Dpo(Train):
    """Direct preference optimisation, on top of the fields of `train`."""

    beta: Annotated[float, Field(gt=0)]
    """Strength of the tie to the reference: low values let the policy move further."""
    loss_type: Literal["sigmoid", "hinge", "ipo", "robust"]
    """sigmoid (DPO), hinge (SLiC), ipo (Azar et al. 2023), robust (Chowdhury et al. 2024)."""
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)]
    """Share of the labels that are taken to be wrong; robust and sigmoid only."""

    @model_validator(mode="after")
    def _smoothing_is_used(self) -> "Dpo":
        if self.label_smoothing and self.loss_type not in LOSSES_FROM_LN_2:
            raise ValueError(
                f"label_smoothing {self.label_smoothing:g} has no effect on the loss {self.loss_type}; set 0"
            )
        return self


def encode_pairs(rows: pl.DataFrame, tokenizer: "PreTrainedTokenizerBase") -> pl.DataFrame:
    """Columns of PAIRS: tokens of prompt and replies, and length (of the longer sequence). Raises InputError."""
    lines = []
    for row in rows.iter_rows(named=True):
        prompt, chosen = encode_reply(tokenizer, row["messages"], row["chosen"], row["tools"], row["row_id"])
        other_prompt, rejected = encode_reply(tokenizer, row["messages"], row["rejected"], row["tools"], row["row_id"])
        length = len(prompt) + max(len(chosen), len(rejected))
        lines.append((row["row_id"], prompt, chosen, other_prompt, rejected, length))
    return pl.DataFrame(lines, schema=PAIRS.columns, orient="row")


def split_pairs(batch: dict[str, "torch.Tensor"], limit_tokens: int) -> list[dict[str, "torch.Tensor"]]:
    """A batch of TRL's collator, chosen above rejected, as equal parts of at most `limit_tokens` tokens, padding
    included, or of single pairs."""
    import torch

    rows, length = batch["input_ids"].shape
    n_pairs = rows // 2
    sizes = [size for size in range(1, n_pairs + 1) if n_pairs % size == 0 and 2 * size * length <= limit_tokens]
    size, parts = max(sizes, default=1), []
    for start in range(0, n_pairs, size):
        here = [*range(start, start + size), *range(n_pairs + start, n_pairs + start + size)]
        longest = int(batch["attention_mask"][here].sum(1).max())
        parts.append({key: value[torch.tensor(here), :longest] for key, value in batch.items()})
    return parts


def build_trainer(pairs: pl.DataFrame, tokenizer: "PreTrainedTokenizerBase", params: Dpo, folder: Path) -> Any:
    """A DPOTrainer over pairs that are tokenized already, in the order given.

    On a CPU a batch of long pairs goes through the model in equal parts, so that the mean over its pairs is the mean of
    the parts' means.
    """
    import torch
    from datasets import Dataset
    from transformers import TrainerCallback, set_seed
    from trl import DPOConfig, DPOTrainer

    class PairTrainer(DPOTrainer):
        n_parts = 1

        def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
            return dataset

        def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
            parts = split_pairs(inputs, training.CPU_PASS_TOKENS) if self.args.use_cpu else [inputs]
            self.n_parts, step = len(parts), super().training_step
            losses = torch.stack([step(model, part, num_items_in_batch) for part in parts])
            self.n_parts = 1
            return losses.sum()

        def compute_loss(self, *args: Any, **kwargs: Any) -> torch.Tensor:
            loss: torch.Tensor = super().compute_loss(*args, **kwargs)
            return loss / self.n_parts

    set_seed(params.seed)
    arguments = DPOConfig(
        **training.trainer_arguments(params, folder, pairs.height),
        beta=params.beta,
        loss_type=[params.loss_type],
        label_smoothing=params.label_smoothing,
        max_length=None,
        precompute_ref_log_probs=False,
    )

    class CheckStart(TrainerCallback):
        """A wrong reference must not cost the whole training."""

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **rest: Any) -> None:
            if logs and "loss" in logs and state.global_step == 1:
                check_start(float(logs["loss"]), params)

    columns = ("prompt_ids", "chosen_ids", "rejected_ids")
    trainer = PairTrainer(
        callbacks=[CheckStart()],
        model=load_model(PARENT, training.weights_precision(params)),
        ref_model=load_model(PARENT, training.weights_precision(params)) if params.method == "full" else None,
        args=arguments,
        train_dataset=Dataset.from_list(pairs.select(columns).to_dicts()),
        processing_class=tokenizer,
        peft_config=training.lora_config(params),
    )
    training.speed_up(trainer.model)
    return trainer


def heldout_preferences(trainer: Any, pairs: pl.DataFrame, params: Dpo) -> pl.DataFrame:
    """row_id and margin of each held-out pair: beta x the difference of the log-ratios to the reference, in nats."""
    import torch
    from tqdm import tqdm

    items = pairs.sort("length", "row_id").to_dicts()
    trainer.model.eval()
    margins: list[float] = []
    with torch.no_grad():
        for start in tqdm(range(0, len(items), params.micro_batch_size), desc="dpo: held-out pairs", unit=" batches"):
            chunk = items[start : start + params.micro_batch_size]
            inputs = trainer._prepare_inputs(trainer.data_collator(chunk))
            reference_model = trainer.ref_model or trainer.model
            reference = trainer.compute_ref_log_probs(reference_model, dict(inputs))
            labels = inputs["input_ids"].masked_fill(inputs["completion_mask"] == 0, -100)
            with trainer.compute_loss_context_manager(), trainer.accelerator.autocast():
                outputs = trainer.model(
                    input_ids=inputs["input_ids"],
                    attention_mask=inputs["attention_mask"],
                    labels=labels,
                    fused_lm_head=True,
                )
            chosen, rejected = outputs.log_probs.sum(1).chunk(2)
            margin = (chosen - reference[0]) - (rejected - reference[1])
            margins += (params.beta * margin.float()).tolist()
    return pl.DataFrame({"row_id": [item["row_id"] for item in items], "margin": margins})


def preference_accuracy(margins: pl.Series) -> float:
    """Share of positive margins; a tie counts one half (an untrained policy ties with its reference on every pair)."""
    return float(((margins > 0).cast(pl.Float64) + (margins == 0).cast(pl.Float64) / 2).mean())  # type: ignore[arg-type]


def check_start(loss: float, params: Dpo) -> None:
    """Raises RuntimeError where the reference is not the policy that training starts from.

    Where both are equal, sigmoid is -log(1/2) and so is robust, whatever the label smoothing.
    """
    if params.loss_type in LOSSES_FROM_LN_2 and abs(loss - math.log(2)) > 1e-3:
        raise RuntimeError(f"dpo: the loss at step 0 is {loss:.5f}, not ln 2: the reference is not the SFT policy")


def main() -> None:
    params = load(Dpo, "dpo")
    if not DATA.exists():
        raise InputError(f"{DATA}: there is no such file; add a preference source (hh or pairs) to params.yaml")
    tokenizer = load_tokenizer(PARENT)
    limits = read_limits(chain_of(PARENT)[0], tokenizer)
    rows = mixture_of("preference").read(window=limits["window"]).sort("position")
    pairs = PAIRS.check(encode_pairs(rows, tokenizer), mixture=rows, **limits)
    train, heldout = (pairs.filter(rows["split"] == split) for split in ("train", "heldout"))
    if train.is_empty() or heldout.is_empty():
        raise InputError(f"{DATA}: {train.height} training and {heldout.height} held-out pairs; both must be above 0")
    order = training.plan_order(train["length"].to_list(), params.epochs, params.batch_size, params.seed)
    folder = training.checkpoint_folder("dpo", params, DATA, model_digest(PARENT))
    trainer = build_trainer(train[order], tokenizer, params, folder)
    consumed = training.consumed_table(train["row_id"].to_list(), order, params.batch_size)
    ALIGN_CONSUMED.check(consumed, mixture=rows, steps=-(-len(order) // params.batch_size))
    columns = {"loss": "loss", "lr": "learning_rate", "accuracy": "rewards/accuracies", "margin": "rewards/margins"}
    curve, metrics = training.train_and_write(trainer, "align", PARENT, folder, consumed, columns)
    margins = heldout_preferences(trainer, heldout, params)
    metrics |= {
        "loss_at_start": float(curve["loss"][0]),
        "heldout_pairs": heldout.height,
        "heldout_accuracy": preference_accuracy(margins["margin"]),
        "heldout_margin": float(margins["margin"].mean()),  # type: ignore[arg-type]
    }
    write_json("metrics/align.json", metrics)
    training.remove_checkpoints(folder)
    say("dpo", f"held-out accuracy {metrics['heldout_accuracy']:.3f} on {heldout.height} pairs (0.5 before)")


if __name__ == "__main__":
    run("align", main, outputs=["models/align"])
