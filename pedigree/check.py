"""pedigree check: the preflight. All of params.yaml and what it names, before anything runs.

Every mistake is told, a line each: file, key, what is wrong, what to do. `note:` lines are choices that work but are
seldom meant. Nothing heavy is imported, so it takes a second or two.
"""

import argparse
import hashlib
import os
import re
import shutil
import tomllib
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

from pedigree.base_model import estimate_base_bytes, input_widths, read_config
from pedigree.blocks import BLOCKS, validate_blocks
from pedigree.layout import show_bytes, table
from pedigree.report import Report
from pedigree.source_files import check_items, check_sources
from stages.common.errors import InputError
from stages.common.params import PARAMS_FILE, read_yaml

Blocks = dict[str, Any]
EVAL_FOLDER = Path("data/raw/eval")
SPARE_BYTES = 2e9  # data, caches, temporary files
BASE_COPIES = 6  # download, base, one merged or whole model a stage, quantized, and DVC's cache of them


def check_key(blocks: Blocks, report: Report) -> None:
    """The secret behind the digests of subjects, its fingerprint in params.yaml, and the exclusions made under it."""
    from stages.common.exclusions import read_exclusions
    from stages.pool import read_subject_key

    secret = os.environ.get("PEDIGREE_KEY", "")
    if secret:
        fingerprint = hashlib.sha256(secret.encode()).hexdigest()[:12]
        report.facts.append(("subjects", f"PEDIGREE_KEY has the fingerprint {fingerprint} (pool.subject_key)"))
    else:
        report.facts.append(("subjects", "PEDIGREE_KEY is not set"))
    try:
        read_subject_key(blocks["pool"].subject_key, os.environ)
        read_exclusions(blocks["pool"].subject_key)
    except InputError as error:
        report.mistakes += str(error).splitlines()
    if secret and blocks["pool"].subject_key == "public":
        report.note("pool.subject_key", f'public, so PEDIGREE_KEY is not used; put "{fingerprint}" to use it')


def check_scrub(blocks: Blocks, report: Report) -> None:
    """The secret behind stand-ins and the file of what must go."""
    from stages.pii.given import read_deny, read_key

    params = blocks["scrub"]
    for read in (lambda: read_key(params.key_fingerprint, os.environ), lambda: read_deny(params)):
        try:
            read()
        except InputError as error:
            report.mistakes += str(error).splitlines()


def check_tasks(blocks: Blocks, report: Report) -> None:
    """Each task's YAML and the files that its items come from."""
    from stages.common.evalsets import data_files

    found: dict[Path, None] = {}
    for task in blocks["tasks"]:
        key = f"tasks.{task.name}.path"
        if os.path.isdir(task.path):
            report.wrong(key, f"{task.path} is a folder; name the task's YAML file in it")
            continue
        try:
            files = data_files([task])
        except InputError as error:
            report.mistakes += [f"{PARAMS_FILE}, {key}: {line}" for line in str(error).splitlines()]
            continue
        for file in (Path(task.path), *files):
            if EVAL_FOLDER not in Path(os.path.normpath(file)).parents:
                report.wrong(key, f"{file} is not below {EVAL_FOLDER}: `dvc repro` would not see it change; move it")
            elif not os.path.isfile(file):
                report.wrong(key, f"{task.path} reads {file}, which is not there; mend `data_files` or put it there")
            elif check_items(file, key, report):
                found[file] = None
    report.facts.append(("tasks", f"{len(blocks['tasks'])}, items in {len(found)} files"))


def check_prompts(blocks: Blocks, report: Report) -> None:
    """The prompts whose answers the card shows."""
    path = Path(blocks["eval"].prompts)
    if not os.path.isfile(path):
        report.wrong("eval.prompts", f"{path} is not there; put a YAML list of texts there ([] for none)")


def check_places(blocks: Blocks, report: Report) -> None:
    """What one block asks of another."""
    kinds = {source.kind for source in blocks["sources"] if source.share != 0}
    for kind, formats in (("sft", "alpaca, sharegpt, chat, oasst or qa"), ("preference", "hh or pairs")):
        if kind not in kinds:
            report.wrong("sources", f"no source of kind {kind}, which the graph needs; add one in the format {formats}")
        elif getattr(blocks["mix"].heldout_share, kind) == 0:
            report.wrong(f"mix.heldout_share.{kind}", "0 leaves no row to measure on; 0.05 is usual")
    if languages := blocks["filters"].languages:
        from stages.quality.filters import make_language_finder

        try:
            make_language_finder(languages)
        except InputError as error:
            report.mistakes.append(str(error))
    tasks = [task.name for task in blocks["tasks"]]
    for name in blocks["decontaminate"].tasks:
        if name not in tasks:
            report.wrong(f"decontaminate.tasks.{name}", f"no such task; there are {', '.join(tasks)}")


def check_policy(blocks: Blocks, report: Report) -> None:
    """Licences and consents of the sources and of the base model, and what the model inherits from them."""
    from stages.common.policy import list_works, settle

    policy = blocks["policy"]
    settled = settle(policy, list_works(blocks["base"], blocks["sources"]))
    report.mistakes += settled.conflicts
    if not settled.conflicts:
        report.facts.append(("policy", f"{policy.use} use; licence of the model: {settled.model_licence}"))
        for duty in settled.duties:
            report.note("policy", duty)


def check_training(blocks: Blocks, report: Report) -> None:
    """Rates that train nothing or too much, and what differential privacy asks."""
    for name in ("train", "dpo"):
        block = blocks[name]
        if block.method == "lora" and block.lr < 5e-5:
            report.note(f"{name}.lr", f"{block.lr:g} is a rate for full fine-tuning; LoRA hardly moves below 1e-4")
        if block.method == "full" and block.lr > 1e-4:
            report.note(f"{name}.lr", f"{block.lr:g} is a rate for LoRA; full fine-tuning wants about 2e-5")
    if blocks["pipeline"].sft != "sft_dp":
        return
    if blocks["train"].method != "lora":
        report.wrong("train.method", "DP-SGD here trains adapters; set it to lora")
    if blocks["train"].lora_dropout > 0:
        report.wrong("train.lora_dropout", "must be 0 under DP; noise regularises already")
    if blocks["mix"].repeat_cap > 1:
        report.wrong("mix.repeat_cap", "must be 1 under DP: a row seen k times costs k times the budget")
    for source in blocks["sources"]:
        if source.kind == "sft" and (source.repeat_cap or 1) > 1:
            report.wrong(f"sources.{source.name}.repeat_cap", "must be 1 under DP, like mix.repeat_cap")
    if blocks["quantize"].calibration == "mixture":
        report.wrong(
            "quantize.calibration", "mixture would carry training rows past the noise of sft_dp; set it to generated"
        )
    if blocks["pipeline"].final == "align":
        report.note(
            "pipeline.final", "align trains on the preference rows without privacy; sft keeps the promise whole"
        )


def check_base(blocks: Blocks, report: Report) -> None:
    """Lengths and group sizes against the base model's own, where its configuration is at hand."""
    scheme, _, name = blocks["base"].model.partition(":")
    if scheme == "path" and not os.path.isdir(name):
        report.wrong("base.model", f"there is no folder {name}; put the model there, or mend the path")
    revision = name.partition("@")[2]
    if scheme == "hub" and not re.fullmatch(r"[0-9a-f]{40}", revision):
        report.wrong("base.model", f"@{revision} is no commit; give its 40 hex digits, so that the model cannot change")
    if scheme != "random" and not str(blocks["base"].digest).startswith("sha256:"):
        report.note("base.digest", "not pinned yet; the stage base will print the digest to put here")
    config = read_config(blocks["base"])
    if config is None:
        return
    window = config.get("max_position_embeddings")
    for key in ("mix.max_length_tokens", "quantize.calibration_length_tokens"):
        block, _, key_name = key.partition(".")
        length = getattr(blocks[block], key_name)
        if window and length > window:
            report.wrong(
                key, f"{length} is more than the base model's window of {window} tokens; set it to {window} or less"
            )
    group_size = blocks["quantize"].group_size
    for part, width in input_widths(config).items():
        if width % group_size:
            usual = [size for size in (128, 64, 32) if not any(each % size for each in input_widths(config).values())]
            hint = f"set it to {usual[0]}" if usual else "choose a divisor of it"
            report.wrong("quantize.group_size", f"{group_size} does not divide the {width} inputs of {part}; {hint}")


def check_disk(blocks: Blocks, report: Report) -> None:
    """Free disk against a generous estimate: BASE_COPIES copies of the base model and SPARE_BYTES."""
    needed = BASE_COPIES * estimate_base_bytes(blocks["base"]) + SPARE_BYTES
    free = shutil.disk_usage(".").free
    report.facts.append(("disk", f"needs about {show_bytes(needed)}, {show_bytes(free)} free"))
    if free < needed:
        report.mistakes.append(
            f"disk: needs about {show_bytes(needed)}, {show_bytes(free)} free; make room, `dvc gc -w` drops old results"
        )


def check_packages(blocks: Blocks, report: Report) -> None:
    """The packages of the groups that dvc.yaml names are installed as pyproject.toml pins them."""
    from packaging.requirements import Requirement

    try:
        groups = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["dependency-groups"]
    except (OSError, ValueError, KeyError):
        report.mistakes.append(
            "pyproject.toml: has no dependency-groups; `git checkout pyproject.toml` brings them back"
        )
        return
    graph = Path("dvc.yaml").read_text(encoding="utf-8")
    for place, choice in blocks["pipeline"]:
        graph = graph.replace(f"${{pipeline.{place}}}", choice)
    used = [group for group in re.findall(r"dependency-groups\.([\w-]+)", graph) if group in groups]
    pins = dict.fromkeys(pin for group in used for pin in list_pins(group, groups))
    for requirement in map(Requirement, pins):
        if requirement.marker and not requirement.marker.evaluate():
            continue
        try:
            installed = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            report.mistakes.append(f"pyproject.toml, {requirement}: is not installed; `make test` installs it")
            continue
        if not requirement.specifier.contains(installed, prereleases=True):
            report.mistakes.append(f"pyproject.toml, {requirement}: {installed} is installed; `make test` mends it")
    report.facts.append(("packages", f"{len(pins)} as pinned in pyproject.toml"))


def list_pins(group: str, groups: dict[str, list[Any]]) -> list[str]:
    """The requirements of a dependency group and of the groups that it includes."""
    pins = []
    for entry in groups.get(group, []):
        pins += [entry] if isinstance(entry, str) else list_pins(entry.get("include-group", ""), groups)
    return pins


# Each check with the blocks that it reads; it runs where they are valid.
CHECKS: tuple[tuple[Callable[[Blocks, Report], None], tuple[str, ...]], ...] = (
    (check_sources, ("sources",)),
    (check_policy, ("policy", "base", "sources")),
    (check_key, ("pool",)),
    (check_scrub, ("scrub",)),
    (check_tasks, ("tasks",)),
    (check_prompts, ("eval",)),
    (check_places, ("sources", "mix", "filters", "decontaminate", "tasks")),
    (check_training, ("pipeline", "train", "dpo", "mix", "sources")),
    (check_base, ("base", "mix", "quantize")),
    (check_packages, ("pipeline",)),
    (check_disk, ("base",)),
)


def preflight() -> Report:
    """All checks on the params.yaml of the working folder. Raises InputError where it is missing or not valid YAML."""
    values = read_yaml(PARAMS_FILE)
    report = Report()
    blocks, report.mistakes = validate_blocks(values)
    report.facts.append(("blocks", f"{len(blocks)} of {len(BLOCKS)} valid"))
    for inspect_part, needed in CHECKS:
        if all(name in blocks for name in needed):
            inspect_part(blocks, report)
    return report


def check(arguments: argparse.Namespace) -> None:
    report = preflight()
    print(table(report.facts))
    for note in report.notes:
        print(f"note: {note}")
    if report.mistakes:
        raise InputError("\n".join(report.mistakes))
    print(f"{PARAMS_FILE} is fine. Next: dvc repro")
