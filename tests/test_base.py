"""The base stage on each kind of source; the hub is a local stand-in that speaks the hub's HTTP."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from stages.base import DOWNLOADS, USED_FILES, check_digest
from stages.common.errors import InputError
from stages.common.files import digest_files
from stages.common.models import chain_of, load_model, load_tokenizer, model_digest, save_trained
from stages.common.rows import message

ROOT = Path(__file__).parent.parent
COMMIT = "0123456789abcdef0123456789abcdef01234567"
FETCHED: list[str] = []  # names of the files that the local hub has sent


def folder_digest(folder: Path) -> str:
    return digest_files({file for pattern in USED_FILES for file in folder.glob(pattern)})


def run_base(folder: Path, model: str, digest: str | None, **environment: str) -> subprocess.CompletedProcess:
    block = {"model": model, "digest": digest, "licence": "none", "attribution": None, "chat_template": "chatml"}
    YAML().dump({"base": block | {"dtype": "float32"}}, folder / "params.yaml")
    return subprocess.run(
        [sys.executable, "-m", "stages.base"], cwd=folder, capture_output=True, text=True, timeout=300, check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
    )  # fmt: skip


class Hub(BaseHTTPRequestHandler):
    """One model repository at one commit."""

    folder: Path
    fetched: list[str]

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in ({"Content-Length": str(len(content))} | headers).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        files = sorted(file.name for file in self.folder.iterdir())
        if path == f"/api/models/lab/toy/tree/{COMMIT}":
            sizes = [(name, (self.folder / name).stat().st_size) for name in files]
            body = [{"type": "file", "path": name, "size": size, "oid": "0" * 40} for name, size in sizes]
            self.answer(200, json.dumps(body).encode(), {"Content-Type": "application/json"})
        elif path.startswith("/api/models/lab/toy/"):
            self.answer(404, b'{"error": "Invalid rev id"}', {"X-Error-Code": "RevisionNotFound"})
        elif path.startswith(f"/lab/toy/resolve/{COMMIT}/") and (name := path.rpartition("/")[2]) in files:
            content = (self.folder / name).read_bytes()
            if self.command == "GET":
                self.fetched.append(name)
            etag = f'"{hashlib.sha256(content).hexdigest()}"'
            self.answer(200, content, {"ETag": etag, "X-Repo-Commit": COMMIT})
        else:
            self.answer(404, b'{"error": "Repository not found"}', {"X-Error-Code": "RepoNotFound"})


@pytest.fixture
def hub(toy_base: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("ToyHub", (Hub,), {"folder": toy_base, "fetched": FETCHED}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()


def test_hub_at_a_commit(tmp_path: Path, toy_base: Path, hub: str) -> None:
    done = run_base(
        tmp_path, f"hub:lab/toy@{COMMIT}", folder_digest(toy_base), HF_ENDPOINT=hub, HF_HOME=str(tmp_path / "hf")
    )
    assert done.returncode == 0, done.stderr
    model = load_model(tmp_path / "models/base", "float32", "cpu")
    assert model.num_parameters() == load_model(toy_base, "float32", "cpu").num_parameters()
    assert json.loads((tmp_path / "metrics/base.json").read_text())["window_tokens"] == 2048


def test_a_digest_is_learnt_with_one_download(tmp_path: Path, toy_base: Path, hub: str) -> None:
    FETCHED.clear()
    environment = {"HF_ENDPOINT": hub, "HF_HOME": str(tmp_path / "hf")}
    done = run_base(tmp_path, f"hub:lab/toy@{COMMIT}", "unknown", **environment)
    assert done.returncode == 1
    assert f"these weights are {folder_digest(toy_base)}: put that in" in done.stderr
    assert "model.safetensors" in FETCHED
    assert run_base(tmp_path, f"hub:lab/toy@{COMMIT}", folder_digest(toy_base), **environment).returncode == 0
    assert FETCHED.count("model.safetensors") == 1
    assert not (tmp_path / DOWNLOADS).exists()


def test_hub_without_that_revision(tmp_path: Path, hub: str) -> None:
    done = run_base(tmp_path, "hub:lab/toy@deadbeef", "sha256:0", HF_ENDPOINT=hub, HF_HOME=str(tmp_path / "hf"))
    assert done.returncode == 1
    assert "lab/toy has no revision deadbeef" in done.stderr
    assert "Traceback" not in done.stderr


def test_hub_that_cannot_be_reached(tmp_path: Path) -> None:
    done = run_base(
        tmp_path, f"hub:lab/toy@{COMMIT}", "sha256:0", HF_ENDPOINT="http://127.0.0.1:9", HF_HOME=str(tmp_path / "hf")
    )
    assert done.returncode == 1
    assert "could not be fetched" in done.stderr
    assert "Traceback" not in done.stderr


def test_hub_without_a_revision_is_no_valid_name(tmp_path: Path) -> None:
    done = run_base(tmp_path, "hub:lab/toy", "sha256:0")
    assert done.returncode == 1
    assert done.stderr.startswith("base: error: params.yaml, base.model:")


def test_path_with_a_wrong_digest_prints_the_right_one(toy_base: Path) -> None:
    with pytest.raises(InputError, match=folder_digest(toy_base)):
        check_digest(toy_base, "sha256:" + "0" * 64)
    with pytest.raises(InputError, match="put that in"):
        check_digest(toy_base, "unknown")
    check_digest(toy_base, folder_digest(toy_base))


def test_pickle_is_never_read(tmp_path: Path) -> None:
    evil = tmp_path / "evil"
    evil.mkdir()
    (evil / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    (evil / "config.json").write_text('{"model_type": "llama"}')
    done = run_base(tmp_path, "path:evil", folder_digest(evil))
    assert done.returncode == 1
    assert "pickle is never read" in done.stderr


def test_random_model_is_the_same_every_time(tmp_path: Path, toy_base: Path) -> None:
    done = run_base(tmp_path, "random:llama", None)
    assert done.returncode == 0, done.stderr
    assert model_digest(tmp_path / "models/base") == model_digest(toy_base)


def test_end_of_turn_is_eos_and_pad_is_another_token(toy_base: Path) -> None:
    tokenizer = load_tokenizer(toy_base)
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|endoftext|>")
    assert tokenizer.decode(tokenizer("Grüß Gott, 7:30!").input_ids) == "Grüß Gott, 7:30!"


def test_adapter_chain_is_merged_and_its_parent_checked(tmp_path: Path, toy_base: Path, monkeypatch) -> None:
    import shutil

    import torch
    from peft import LoraConfig, get_peft_model

    monkeypatch.chdir(tmp_path)
    shutil.copytree(toy_base, "models/base")
    base, adapter = Path("models/base"), Path("models/sft")
    model = get_peft_model(load_model(base, "float32", "cpu"), LoraConfig(r=2, target_modules="all-linear"))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter += 0.05
    save_trained(model, adapter, base)
    ids = load_tokenizer(base).apply_chat_template([message("user", "Hi")], return_tensors="pt", return_dict=True)[
        "input_ids"
    ]
    merged = load_model(adapter, "float32", "cpu")
    assert [path.name for path in chain_of(adapter)] == ["base", "sft"]
    torch.testing.assert_close(merged(ids).logits, model.eval()(ids).logits, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(merged(ids).logits, load_model(base, "float32", "cpu")(ids).logits)
    (base / "generation_config.json").write_text("{}")
    with pytest.raises(InputError, match="was trained on another models/base"):
        load_model(adapter, "float32", "cpu")
