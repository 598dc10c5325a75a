"""What sft, sft_dp and preference tuning share: order of the rows, adapters, curves, checkpoints, the record of what
was consumed.

Rows are fed in an order that is planned before training, so that `consumed.parquet` is what was really seen: step k of
the optimiser reads the rows k * batch_size to (k + 1) * batch_size of it.
"""

import hashlib
import shutil
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from stages.common.errors import InputError
from stages.common.files import write_csv, write_table
from stages.common.models import Precision, choose_device, choose_dtype, save_trained
from stages.common.params import Train

if TYPE_CHECKING:
    import torch
    from peft import LoraConfig
    from transformers import TrainerCallback

CHECKPOINTS = Path(".pedigree/checkpoints")
WINDOW_BATCHES = 16
CPU_PASS_TOKENS = 2048  # of one pass through the model on a CPU: 16 rows of 512 tokens at once would take 12 GB


def plan_order(
    lengths: Sequence[int], epochs: int, batch_size: int, seed: int, window_batches: int = WINDOW_BATCHES
) -> np.ndarray:
    """Row indices of all epochs in the order of training, int64 (epochs * n_rows,).

    The first epoch follows the order of the mixture, the others a shuffled one; within windows of `window_batches` rows
    of like length share a batch (less padding), and the batches of a window are shuffled. 1: no grouping.
    """
    generator = np.random.default_rng(seed)
    lengths_array, planned = np.asarray(lengths), []
    for epoch in range(epochs):
        order = np.arange(len(lengths_array)) if epoch == 0 else generator.permutation(len(lengths_array))
        for start in range(0, len(order), batch_size * window_batches):
            window = order[start : start + batch_size * window_batches]
            window = window[np.argsort(lengths_array[window], kind="stable")]
            batches = [window[first : first + batch_size] for first in range(0, len(window), batch_size)]
            full, rest = [b for b in batches if len(b) == batch_size], [b for b in batches if len(b) < batch_size]
            planned += [full[index] for index in generator.permutation(len(full))] + rest
    return np.concatenate(planned) if planned else np.zeros(0, np.int64)


def consumed_table(row_ids: Sequence[str], order: np.ndarray, batch_size: int) -> pl.DataFrame:
    """row_id, epoch, step of every row that an optimiser step saw; epoch and step count from 0."""
    places = np.arange(len(order))
    return pl.DataFrame(
        {"row_id": [row_ids[index] for index in order], "epoch": places // len(row_ids), "step": places // batch_size},
        schema={"row_id": pl.String, "epoch": pl.Int64, "step": pl.Int64},
    )


def lora_config(params: Train) -> "LoraConfig | None":
    """Adapters on every linear layer but the head, or None for full fine-tuning."""
    from peft import LoraConfig

    if params.method == "full":
        return None
    return LoraConfig(
        r=params.lora_rank,
        lora_alpha=params.lora_alpha,
        lora_dropout=params.lora_dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )


def weights_precision(params: Train) -> Precision:
    """Precision to load the parent in: the frozen weights of LoRA may be bfloat16, trained ones are float32."""
    return "float32" if params.method == "full" else params.precision


def uses_autocast(params: Train) -> bool:
    """Whether a trainer computes in bfloat16 through autocast. Not for plain LoRA on a CPU: see cpu_training.py."""
    import torch

    plain = params.method == "lora" and params.lora_dropout == 0 and choose_device() == "cpu"
    return choose_dtype(params.precision) == torch.bfloat16 and not plain


def speed_up(model: Any) -> None:
    """LoRA on a CPU at about three times the stock speed; a model on a GPU stays as it is."""
    from stages.common.cpu_training import speed_up_lora

    speed_up_lora(model)


def trainer_arguments(params: Train, folder: Path, n_rows: int) -> dict[str, Any]:
    """Arguments that TRL's trainers share. `n_rows` is the length of the planned order (all epochs)."""
    steps = -(-n_rows // params.batch_size)
    return {
        "output_dir": str(folder),
        "num_train_epochs": 1,  # the planned order holds all epochs
        "per_device_train_batch_size": params.micro_batch_size,
        "per_device_eval_batch_size": params.micro_batch_size,
        "gradient_accumulation_steps": params.batch_size // params.micro_batch_size,
        "train_sampling_strategy": "sequential",
        "learning_rate": params.lr,
        "lr_scheduler_type": "constant_with_warmup" if params.schedule == "constant" else params.schedule,
        "warmup_steps": round(params.warmup_share * steps),
        "weight_decay": params.weight_decay,
        "max_grad_norm": params.max_grad_norm,
        "bf16": uses_autocast(params),
        "use_cpu": choose_device() == "cpu",
        "seed": params.seed,
        "data_seed": params.seed,
        "logging_steps": 1,
        "save_strategy": "steps",
        "save_steps": params.checkpoint_steps,
        "save_total_limit": 1,
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "gradient_checkpointing": False,
    }


def checkpoint_folder(stage: str, *inputs: object) -> Path:
    """Where an interrupted run of these very inputs left its checkpoints. Other inputs, other folder.

    `inputs` are parameters, digests or files; files count by content. The code of `stages`, the versions of the
    training packages and the hardware's precision count always.
    """
    digest = hashlib.sha256(f"{choose_device()} {choose_dtype('auto')}".encode())
    code = [*sorted(Path(__file__).parents[1].glob("**/*.py")), Path(__file__).with_name("chatml.jinja")]
    packages = [f"{name} {version(name)}" for name in ("torch", "transformers", "trl", "peft", "accelerate")]
    for item in (*inputs, *code, *packages):
        digest.update(item.read_bytes() if isinstance(item, Path) else repr(item).encode())
    folder = CHECKPOINTS / f"{stage}-{digest.hexdigest()[:16]}"
    for stale in CHECKPOINTS.glob(f"{stage}-*"):
        if stale != folder:
            shutil.rmtree(stale)
    return folder


def last_checkpoint(folder: Path) -> str | None:
    """The newest whole checkpoint; one that was being written when the run died is passed over."""
    whole = [path for path in folder.glob("checkpoint-*") if (path / "trainer_state.json").exists()]
    return str(max(whole, key=lambda path: int(path.name.rpartition("-")[2]))) if whole else None


def train_to_the_end(trainer: Any, name: str, folder: Path, planned: int) -> None:
    """Train for `planned` steps with a named progress bar, from the last checkpoint where there is one.

    Raises RuntimeError where the trainer's steps are not the planned ones: `consumed.parquet` would be wrong.
    """
    use_named_progress(trainer, name)
    trainer.train(resume_from_checkpoint=last_checkpoint(folder))
    if trainer.state.global_step != planned:
        raise RuntimeError(f"{name}: {trainer.state.global_step} steps were taken where {planned} were planned")


def train_and_write(
    trainer: Any, place: str, parent: Path, folder: Path, consumed: pl.DataFrame, columns: dict[str, str]
) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Train on the planned rows `consumed`, then write models/<place>, its consumed.parquet and its curve.

    Returns the curve (step and `columns`, see `curve_of`) and the metrics rows_in, steps, train_loss,
    weights_moved_rms.
    """
    before = trainable_copy(trainer.model)
    train_to_the_end(trainer, place, folder, consumed["step"].n_unique())
    curve = curve_of(trainer.state.log_history, columns)
    moved = require_moved(before, trainer.model, place)
    save_trained(trainer.model, Path("models") / place, parent)
    write_training(place, Path("models") / place, consumed, curve)
    return curve, {
        "rows_in": consumed["row_id"].n_unique(),
        "steps": curve.height,
        "train_loss": float(curve["loss"].mean()),  # type: ignore[arg-type]
        "weights_moved_rms": moved,
    }


def remove_checkpoints(folder: Path) -> None:
    """After the outputs are written: a finished run's checkpoint must not stand in for a later run."""
    shutil.rmtree(folder, ignore_errors=True)


def progress_callback(name: str) -> "TrainerCallback":
    """A progress bar with the stage's name and the loss, in place of the trainer's own nameless one."""
    from tqdm import tqdm
    from transformers import TrainerCallback

    class Progress(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
            self.bar = tqdm(total=state.max_steps, initial=state.global_step, desc=name, unit=" steps")

        def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
            self.bar.update(state.global_step - self.bar.n)

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **rest: Any) -> None:
            if logs and "loss" in logs:
                self.bar.set_postfix(loss=f"{float(logs['loss']):.3f}")

        def on_train_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
            self.bar.close()

    return Progress()


def use_named_progress(trainer: Any, name: str) -> None:
    from transformers import PrinterCallback, ProgressCallback

    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(progress_callback(name))


def curve_of(history: list[dict[str, Any]], columns: dict[str, str]) -> pl.DataFrame:
    """Step and the named columns ({column: key of the log}) of a trainer's log, one line an optimiser step."""
    lines = [entry for entry in history if "loss" in entry]
    return pl.DataFrame(
        {"step": [int(entry["step"]) for entry in lines]}
        | {column: [float(entry.get(key, "nan")) for entry in lines] for column, key in columns.items()}
    )


def require_moved(before: dict[str, "torch.Tensor"], model: "torch.nn.Module", stage: str) -> float:
    """The root mean square change of the trained weights. Raises InputError where nothing moved, or where a
    weight is infinite or no number.

    `before` holds copies of the trainable parameters by name. LoRA under DP has been seen to count epsilon up while it
    trained nothing (opacus#820).
    """
    changes = [
        (parameter.detach().float() - before[name].float()).square().mean().item()
        for name, parameter in model.named_parameters()
        if name in before
    ]
    moved = float(np.sqrt(np.mean(changes))) if changes else 0.0
    if not np.isfinite(moved):
        raise InputError(
            f"{stage}: a trained weight is not finite, so the training diverged; lower lr or max_grad_norm"
        )
    if not moved > 0:
        raise InputError(f"{stage}: no trained weight has moved; raise lr or epochs, or check that there are rows")
    return moved


def trainable_copy(model: "torch.nn.Module") -> dict[str, "torch.Tensor"]:
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def write_training(stage: str, folder: Path, consumed: pl.DataFrame, curve: pl.DataFrame) -> None:
    """consumed.parquet beside the model, the curve where `dvc plots` finds it."""
    write_table(folder / "consumed.parquet", consumed)
    write_csv(f"metrics/plots/{stage}.csv", curve)
