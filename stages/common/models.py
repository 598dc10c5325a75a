"""Load and save models. An adapter folder names the model it sits on, so that a chain base ← sft ← align loads whole.

    models/base     config.json, model.safetensors, tokenizer files
    models/sft      adapter_config.json, adapter_model.safetensors, parent.json {"parent": "models/base", "digest": ...}

Safetensors only; no pickle and no code out of a model folder is ever run.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from stages.common.errors import InputError
from stages.common.files import digest_files, read_json, write_json

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Precision = Literal["auto", "bfloat16", "float32"]
WEIGHT_FILES = ("*.safetensors", "*config.json", "tokenizer.json", "chat_template.jinja")


def choose_device() -> str:
    """cuda where there is one, else cpu (on Apple's mps LoRA training is not reproducible enough to be the default)."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def choose_dtype(precision: Precision) -> "torch.dtype":
    """auto: bfloat16 where the hardware computes in it (Ampere or newer, AVX-512 BF16, AMX, Arm BF16), else float32."""
    import torch

    if precision != "auto":
        return torch.bfloat16 if precision == "bfloat16" else torch.float32
    if torch.cuda.is_available():
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    if not torch.backends.mkldnn.is_available():
        return torch.float32
    return torch.bfloat16 if torch.ops.mkldnn._is_mkldnn_bf16_supported() else torch.float32


def model_files(folder: Path) -> list[Path]:
    return sorted({file for pattern in WEIGHT_FILES for file in folder.glob(pattern)})


def model_digest(folder: Path) -> str:
    """Digest of the weights, configuration and tokenizer of a model folder."""
    return digest_files(model_files(folder))


def read_parent(folder: Path) -> dict[str, str] | None:
    path = folder / "parent.json"
    return read_json(path) if path.exists() else None


def chain_of(folder: Path) -> list[Path]:
    """The folders from the base model up to `folder`. Raises InputError where a parent is missing or has changed."""
    if not (folder / "config.json").exists() and not (folder / "adapter_config.json").exists():
        raise InputError(f"{folder}: there is no model; run `dvc repro`, or `dvc pull {folder}`")
    parent = read_parent(folder)
    if parent is None:
        return [folder]
    parents = chain_of(Path(parent["parent"]))
    if model_digest(parents[-1]) != parent["digest"]:
        raise InputError(
            f"{folder}: was trained on another {parent['parent']} than the one here; run `dvc repro {folder.name}`"
        )
    return [*parents, folder]


def load_tokenizer(folder: Path) -> "PreTrainedTokenizerBase":
    """The tokenizer of the base model at the root of the chain."""
    from transformers import AutoTokenizer

    root = chain_of(folder)[0]
    return AutoTokenizer.from_pretrained(root, trust_remote_code=False, local_files_only=True)


def load_model(folder: Path, precision: Precision = "auto", device: str | None = None) -> "PreTrainedModel":
    """The model of a folder with every adapter of its chain merged in float32, then cast; in eval mode on `device`."""
    import torch
    from transformers import AutoModelForCausalLM

    folders = chain_of(folder)
    dtype = choose_dtype(precision)
    whole = max(index for index, path in enumerate(folders) if (path / "config.json").exists())
    merging = whole < len(folders) - 1
    model: Any = AutoModelForCausalLM.from_pretrained(
        folders[whole],
        dtype=torch.float32 if merging else dtype,
        trust_remote_code=False,
        use_safetensors=True,
        local_files_only=True,
    )
    for adapter in folders[whole + 1 :]:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, adapter).merge_and_unload()
    if merging:
        model = model.to(dtype)
    return model.to(device or choose_device()).eval()


def save_trained(model: Any, folder: Path, parent: Path) -> None:
    """Adapter or whole weights with parent.json, safetensors only."""
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder, safe_serialization=True)
    for leftover in ("README.md",):
        (folder / leftover).unlink(missing_ok=True)
    adapter = folder / "adapter_config.json"
    if adapter.exists():
        # PEFT writes the folder of the parent as it was loaded and sets in set order: neither belongs in an output.
        config = json.loads(adapter.read_text())
        config["base_model_name_or_path"] = str(parent)
        if isinstance(config.get("target_modules"), list):
            config["target_modules"] = sorted(config["target_modules"])
        write_json(adapter, dict(sorted(config.items())))
    write_json(folder / "parent.json", {"parent": parent.as_posix(), "digest": model_digest(parent)})
