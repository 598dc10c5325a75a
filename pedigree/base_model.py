"""What can be told of the base model before it is loaded: its configuration, its widths, its size."""

import json
import re
from pathlib import Path
from typing import Any

from stages.common.params import PARAMS_FILE, Base, read_yaml

BASE_CONFIG = Path("models/base/config.json")
BYTES_OF_DTYPE = {"bfloat16": 2, "float32": 4}
DEFAULT_PARAMETERS = 135e6  # of a model whose name does not tell its size


def read_config(base: Base) -> dict[str, Any] | None:
    """config.json of the base model: of path:DIR, or of models/base while that is the model of params.yaml."""
    scheme, _, name = base.model.partition(":")
    path = Path(name) / "config.json" if scheme == "path" else BASE_CONFIG
    if not path.is_file() or (path == BASE_CONFIG and not base_is_current(base)):
        return None
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None  # the stage base will tell
    return config if isinstance(config, dict) else None


def base_is_current(base: Base) -> bool:
    """Whether models/base was made from this block, as far as dvc.lock tells."""
    lock = Path("dvc.lock")
    if not lock.is_file():
        return True
    stage = ((read_yaml(lock) or {}).get("stages") or {}).get("base") or {}
    return bool((stage.get("params") or {}).get(str(PARAMS_FILE), {}).get("base") == base.model_dump())


def input_widths(config: dict[str, Any]) -> dict[str, int]:
    """Input width of each kind of linear layer of a decoder, as far as the configuration tells."""
    hidden, heads = config.get("hidden_size"), config.get("num_attention_heads")
    head = config.get("head_dim") or (hidden // heads if hidden and heads else None)
    widths = {
        "the attention": hidden,
        "the attention's output": head * heads if head and heads else None,
        "the feed-forward's output": config.get("intermediate_size"),
    }
    return {part: width for part, width in widths.items() if width}


def estimate_base_bytes(base: Base) -> float:
    """Bytes of the base model: those at hand, or from the size in its name (Qwen2.5-7B, smollm2-135m)."""
    scheme, _, name = base.model.partition(":")
    if scheme == "random":
        return 1e6
    folder = Path(name) if scheme == "path" else BASE_CONFIG.parent
    if folder.is_dir() and (scheme == "path" or base_is_current(base)):
        return float(sum(file.stat().st_size for file in folder.iterdir() if file.is_file()))
    size = re.search(r"(?<![\w.])(\d+(?:\.\d+)?)([bBmM])(?![a-zA-Z])", name)
    parameters = float(size[1]) * (1e9 if size[2] in "bB" else 1e6) if size else DEFAULT_PARAMETERS
    return parameters * BYTES_OF_DTYPE[base.dtype]
