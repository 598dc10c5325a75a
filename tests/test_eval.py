"""eval: the scores are those of the model, and SharedPromptLM's are those of lm-eval."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import polars as pl
import pytest

from stages.common.errors import InputError
from stages.common.evalsets import build_task
from stages.common.item_contracts import MARKED_SCHEMA
from stages.common.params import Task
from stages.eval import Eval, build_all, build_group, load_scorer, main
from stages.evaluation.answers import answer_prompts
from stages.evaluation.judging import judge_task, named_metrics, read_dirty

TEMPLATE = (
    "{% for message in messages %}<{{ message.role }}>{{ message.content }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>\n{% endif %}"
)
# One choice has one token, some begin alike, two items share a prompt, one choice continues another, lengths differ.
ITEMS: list[dict[str, Any]] = [
    {"question": "Where is it?", "choices": ["In Mill Lane.", "In Main Street.", "I"], "label": 0},
    {"question": "When does it open?", "choices": ["At 7.", "At 7.30 sharp", "Never"], "label": 1},
    {"question": "When does it open?", "choices": ["Soon", "Later", "Sooner"], "label": 0},
    {"question": "Who?", "choices": ["A", "B", "C"], "label": 1},
    {"question": "Why does a question that is much longer stand here?", "choices": ["X", "So", "Because"], "label": 0},
    {"question": "Is it?", "choices": ["yes", "no", "yes and no"], "label": 1},
]
PARAMS: dict[str, Any] = {
    "batch_size": 4, "shared_prompt": True, "precision": "float32", "answer_tokens": 5,
    "prompts": "prompts.yaml", "bootstrap_samples": 10, "seed": 1,
}  # fmt: skip
TASK_YAML = """
task: NAME
dataset_path: json
dataset_kwargs: {data_files: {test: NAME.jsonl}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: choices
doc_to_target: label
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
  - {metric: acc_norm, aggregation: mean, higher_is_better: true}
"""


def tiny_tokenizer() -> Any:
    """One token a byte, and two that mark turns."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {
        token: index for index, token in enumerate(["<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())])
    }
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(["<s>", "</s>"])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>", pad_token="<s>")
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def tiny_model(kind: str = "llama", **settings: Any) -> Any:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(
        kind, vocab_size=260, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, max_position_embeddings=128, initializer_range=0.2,
        bos_token_id=0, eos_token_id=1, pad_token_id=0, **settings,
    )  # fmt: skip
    return AutoModelForCausalLM.from_config(config).eval()


def write_task(name: str, items: list[dict[str, Any]] = ITEMS, chat: bool = True, limit: int | None = None) -> Task:
    Path(f"{name}.yaml").write_text(TASK_YAML.replace("NAME", name))
    Path(f"{name}.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    return Task(name=name, path=f"{name}.yaml", chat=chat, limit=limit)


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with a tiny model, one task and marks of dirty items."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    tiny_model().save_pretrained("models/base")
    tiny_tokenizer().save_pretrained("models/base")
    write_task("quiz")
    Path("prompts.yaml").write_text("- Who are you?\n- Where?\n")
    Path("params.yaml").write_text(
        json.dumps({"eval": PARAMS, "tasks": [{"name": "quiz", "path": "quiz.yaml", "chat": True, "limit": 5}]})
    )
    marks = [("quiz", "quiz", i, i in (1, 4), int(i in (1, 4)), "drop", []) for i in range(6)]
    Path("data/decontaminate").mkdir(parents=True)
    pl.DataFrame(marks, MARKED_SCHEMA, orient="row").write_parquet("data/decontaminate/items.parquet")
    return tmp_path


def logprob_of(model: Any, tokenizer: Any, prompt: str, reply: str) -> float:
    """Log-probability of each byte of the reply, one forward pass a byte: slow, and plainly right."""
    import torch

    tokens, total = tokenizer.encode(prompt, add_special_tokens=False), 0.0
    for token in tokenizer.encode(reply, add_special_tokens=False):
        with torch.no_grad():
            total += float(model(torch.tensor([tokens])).logits[0, -1].double().log_softmax(-1)[token])
        tokens = [*tokens, token]
    return total


def test_main_scores_what_the_model_prefers(workspace: Path) -> None:
    main("base")
    model, tokenizer = tiny_model(), tiny_tokenizer()
    items = pl.read_parquet("data/eval/base/items.parquet")
    assert items.columns == ["task", "subtask", "item", "correct", "loglikelihoods", "choice", "target", "dirty"]
    assert items["item"].to_list() == [0, 1, 2, 3, 4]  # limit: 5
    correct, normed = [], []
    for line, item in zip(items.iter_rows(named=True), ITEMS, strict=False):
        # The line break before the reply counts with it, as lm-eval counts white space at the end of a prompt.
        prompt = f"<user>{item['question']}</s><assistant>"
        expected = [logprob_of(model, tokenizer, prompt, "\n" + choice) for choice in item["choices"]]
        assert line["loglikelihoods"] == pytest.approx(expected, abs=1e-4)
        assert line["choice"] == expected.index(max(expected))
        assert line["target"] == item["label"]
        correct.append(float(line["choice"] == item["label"]))
        per_letter = [value / len(choice) for value, choice in zip(expected, item["choices"], strict=True)]
        normed.append(float(per_letter.index(max(per_letter)) == item["label"]))
    assert items["correct"].to_list() == correct
    metrics = json.loads(Path("metrics/eval/base.json").read_text())["quiz"]
    assert metrics["acc"] == pytest.approx(sum(correct) / 5, abs=1e-6)
    assert metrics["acc_norm"] == pytest.approx(sum(normed) / 5, abs=1e-6)
    assert (metrics["items"], metrics["clean_items"], metrics["dirty_items"]) == (5, 3, 2)
    assert metrics["clean_acc"] == pytest.approx((correct[0] + correct[2] + correct[3]) / 3, abs=1e-6)
    assert metrics["dirty_acc"] == pytest.approx((correct[1] + correct[4]) / 2, abs=1e-6)
    share = sum(correct) / 5  # the standard error of a mean of five zeros and ones
    assert metrics["acc_stderr"] == pytest.approx((share * (1 - share) / 4) ** 0.5, abs=1e-6)
    plot = pl.read_csv("metrics/plots/eval_base.csv").filter(metric="acc")
    assert plot.row(0)[2:] == pytest.approx((metrics["acc"], metrics["acc_stderr"]), abs=1e-6)
    assert pl.read_parquet("data/eval/base/answers.parquet")["prompt"].to_list() == ["Who are you?", "Where?"]


def test_two_runs_write_the_same_bytes(workspace: Path) -> None:
    written = []
    for _ in range(2):
        main("base")
        files = sorted(
            path for folder in ("data/eval", "metrics") for path in Path(folder).rglob("*") if path.is_file()
        )
        written.append({str(path): path.read_bytes() for path in files})
    assert written[0] == written[1]
    assert len(written[0]) == 4


def score_both_ways(model: Any, requests: list[tuple[str, str]], batch_size: int = 4) -> tuple[Any, Any, Any]:
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    from stages.evaluation.shared_prompt import SharedPromptLM

    def score(scorer: Any) -> Any:
        instances = [Instance("loglikelihood", {}, pair, index) for index, pair in enumerate(requests)]
        return scorer.loglikelihood(instances, disable_tqdm=True)

    options = {"pretrained": model, "tokenizer": tiny_tokenizer(), "batch_size": batch_size}
    stock, shared = HFLM(**options), SharedPromptLM(**options)
    return score(stock), score(shared), shared


REQUESTS = [(item["question"], " " + choice) for item in ITEMS for choice in item["choices"]]


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("llama", {}),
        ("llama", {"attn_implementation": "eager"}),
        ("qwen2", {}),
        ("qwen3", {"tie_word_embeddings": True}),
        ("mistral", {"sliding_window": None}),
        ("mistral", {"sliding_window": 24}),  # the long item goes lm-eval's own way
    ],
)
def test_shared_prompt_scores_as_lm_eval_does(kind: str, settings: dict[str, Any]) -> None:
    stock, shared, scorer = score_both_ways(tiny_model(kind, **settings), REQUESTS)
    assert scorer.shares_prompts()
    assert [value for value, _ in shared] == pytest.approx([value for value, _ in stock], abs=1e-4)
    assert [greedy for _, greedy in shared] == [greedy for _, greedy in stock]


def test_greedy_is_told_as_lm_eval_tells_it() -> None:
    import torch

    model, tokenizer = tiny_model(), tiny_tokenizer()
    tokens = torch.tensor([tokenizer.encode("Is it?", add_special_tokens=False)])
    with torch.no_grad():
        likeliest = int(model(tokens).logits[0, -1].argmax())
    stock, shared, _ = score_both_ways(model, [("Is it?", tokenizer.decode([likeliest])), ("Is it?", "?!")])
    assert [greedy for _, greedy in shared] == [greedy for _, greedy in stock] == [True, False]


def test_other_requests_go_the_stock_way() -> None:
    long = ("x" * 200, " far beyond the window of 128 tokens")
    cases = [("llama", [*REQUESTS, long, ("", "no prompt")]), ("olmo2", REQUESTS)]
    for kind, requests in cases:
        stock, shared, scorer = score_both_ways(tiny_model(kind), requests)
        assert scorer.shares_prompts() == (kind == "llama")
        assert [value for value, _ in shared] == pytest.approx([value for value, _ in stock], abs=1e-4)


def test_the_prompt_is_computed_once() -> None:
    model = tiny_model()
    seen = 0

    def count(module: Any, given: Any, keywords: dict[str, Any]) -> None:
        nonlocal seen
        seen += keywords["input_ids"].numel()

    model.model.register_forward_pre_hook(count, with_kwargs=True)
    from lm_eval.api.instance import Instance

    from stages.evaluation.shared_prompt import SharedPromptLM

    scorer = SharedPromptLM(pretrained=model, tokenizer=tiny_tokenizer(), batch_size=4)
    pairs = [("q" * 50, " ab"), ("q" * 50, " cde"), ("q" * 50, " f")]
    scorer.loglikelihood([Instance("loglikelihood", {}, pair, 0) for pair in pairs], disable_tqdm=True)
    # 50 of the prompt and the space that all begin with, then a, cd and nothing: last tokens are only predicted.
    assert seen == 51 + 1 + 2


def test_pack_lays_choices_behind_the_prompt() -> None:
    from stages.evaluation.shared_prompt import pack

    requests = [(("", ""), [7, 8], [5, 1]), (("", ""), [7, 8], [5, 2, 3]), (("", ""), [7, 8], [5, 2])]
    packed = pack([0, 1, 2], requests)
    assert packed.tokens == [7, 8, 5, 2]  # 5 begins every choice; of the second choice only 2 is left to read
    assert packed.positions == [0, 1, 2, 3]
    assert packed.segments == [0, 0, 0, 2]
    assert packed.predictions == [[(1, 5), (2, 1)], [(1, 5), (2, 2), (3, 3)], [(1, 5), (2, 2)]]


def test_a_choice_sees_the_prompt_and_itself() -> None:
    import torch

    from stages.evaluation.shared_prompt import attention_mask

    mask = attention_mask(torch.tensor([[0, 0, 1, 1, 2, -1]]), torch.float32)[0, 0] == 0
    assert mask.int().tolist() == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [1, 1, 0, 0, 1, 0],
        [1, 1, 0, 0, 0, 1],
    ]


def test_batches_hold_to_both_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    from stages.evaluation import shared_prompt

    groups = [shared_prompt.Packed([i], list(range(n)), [], [], []) for i, n in enumerate([2, 10, 3, 9, 2])]
    monkeypatch.setattr(shared_prompt, "MASK_CELLS", 200)
    batches = [[len(group) for group in batch] for batch in shared_prompt.batches_of(groups, 2)]
    assert batches == [[10, 9], [3, 2], [2]]
    monkeypatch.setattr(shared_prompt, "MASK_CELLS", 199)  # two of length 10 need 200
    batches = [[len(group) for group in batch] for batch in shared_prompt.batches_of(groups, 3)]
    assert batches == [[10], [9, 3], [2, 2]]


def test_answers_are_greedy_and_stop_at_the_end_of_the_turn(workspace: Path) -> None:
    import torch

    model, tokenizer = tiny_model(), tiny_tokenizer()
    params = Eval.model_validate(PARAMS | {"answer_tokens": 6})
    prompts = ["Who are you?", "Where is the long one, with many more words?", "Is it?"]
    expected = []
    for prompt in prompts:
        tokens = tokenizer.encode(f"<user>{prompt}</s><assistant>\n", add_special_tokens=False)
        start = len(tokens)
        while (len(tokens) < start + 6 and tokens[-1] != 1) or len(tokens) == start:
            with torch.no_grad():
                tokens.append(int(model(torch.tensor([tokens])).logits[0, -1].argmax()))
        expected.append(tokenizer.decode(tokens[start:], skip_special_tokens=True).strip())
    answers = answer_prompts(model, tokenizer, prompts, params.batch_size, params.answer_tokens)
    assert answers["answer"].to_list() == expected
    with torch.no_grad():  # a head that always says </s>
        model.lm_head.weight.zero_()
        model.model.norm.weight.fill_(1.0)
        model.lm_head.bias = torch.nn.Parameter(torch.eye(260)[1])
    assert answer_prompts(model, tokenizer, prompts, params.batch_size, params.answer_tokens)["answer"].to_list() == [
        "",
        "",
        "",
    ]
    assert answer_prompts(model, tokenizer, [], params.batch_size, params.answer_tokens).height == 0


def test_named_metrics_keep_numbers_and_name_filters() -> None:
    result = {"alias": "x", "sample_len": 4, "acc,none": 0.5, "acc_stderr,none": "N/A", "f1,none": float("nan"),
              "exact_match,strict-match": 0.25, "exact_match_stderr,strict-match": 0.1}  # fmt: skip
    assert named_metrics(result) == {
        "acc": 0.5, "exact_match_strict_match": 0.25, "exact_match_strict_match_stderr": 0.1
    }  # fmt: skip


def test_a_task_without_choices_is_judged_by_its_own_metric() -> None:
    built = SimpleNamespace(config=SimpleNamespace(doc_to_choice=None), aggregation=lambda: {"exact_match": sum})
    samples = [
        {"filter": name, "doc_id": item, "exact_match": value, "filtered_resps": ["text"], "target": "text", "doc": {}}
        for name, values in (("strict", [1, 0, 1]), ("loose", [1, 1, 1]))
        for item, value in enumerate(values)
    ]
    marks = pl.DataFrame({"task": "t", "subtask": "s", "item": [0, 1, 2], "dirty": [False, False, True]})
    result = {"alias": "t", "exact_match,strict": 0.67, "exact_match,loose": 1.0}
    metrics, items = judge_task(
        Task(name="t", path="t.yaml", chat=True, limit=None), {"s": built}, result, {"s": samples}, marks
    )
    assert metrics == {
        "exact_match_strict": 0.67, "exact_match_loose": 1.0, "items": 3,
        "clean_items": 2, "clean_exact_match": 1.0, "dirty_items": 1, "dirty_exact_match": 1.0,
    }  # fmt: skip
    assert items["correct"].to_list() == [1.0, 0.0, 1.0]
    assert items["loglikelihoods"].null_count() == items["choice"].null_count() == items["target"].null_count() == 3
    with pytest.raises(InputError, match=r"1 items of the task t are missing; run `dvc repro decontaminate`"):
        judge_task(
            Task(name="t", path="t.yaml", chat=True, limit=None), {"s": built}, result, {"s": samples}, marks[:2]
        )


def test_missing_marks_are_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"there is no such file; run `dvc repro decontaminate`"):
        read_dirty()
    Path("data/decontaminate").mkdir(parents=True)
    pl.DataFrame({"task": ["t"]}).write_parquet("data/decontaminate/items.parquet")
    with pytest.raises(InputError, match=r"`dvc repro --force --single-item decontaminate`"):
        read_dirty()


def write_group(lines: str) -> Task:
    for name, part in (("first", ITEMS[:4]), ("second", ITEMS[4:])):
        write_task(name, part)
    Path("both.yaml").write_text(f"group: both\ntask: [first, second]\n{lines}")
    return Task(name="both", path="both.yaml", chat=False, limit=None)


def test_a_group_is_the_mean_over_its_items(workspace: Path) -> None:
    from stages.eval import run_tasks

    task = write_group("aggregate_metric_list: [{metric: acc, weight_by_size: true}]")
    runnable, built = build_group(task)
    params = Eval.model_validate(PARAMS)
    results, samples = run_tasks(load_scorer(Path("models/base"), params), [task], [runnable], params, "test")
    marks = pl.DataFrame(
        {
            "task": "both",
            "subtask": ["first"] * 4 + ["second"] * 2,
            "item": [0, 1, 2, 3, 0, 1],
            "dirty": [False] * 5 + [True],
        }
    )
    metrics, items = judge_task(task, built, results["both"], samples, marks)
    assert items["subtask"].to_list() == ["first"] * 4 + ["second"] * 2
    assert items["target"].to_list() == [item["label"] for item in ITEMS]
    correct = (items["choice"] == items["target"]).cast(pl.Float64)
    assert metrics["acc"] == pytest.approx(correct.mean())
    assert metrics["clean_acc"] == pytest.approx(correct[:5].mean())
    assert metrics["dirty_acc"] == correct[5]
    assert (metrics["items"], metrics["clean_items"], metrics["dirty_items"]) == (6, 5, 1)


def test_a_group_must_say_how_its_mean_is_taken(workspace: Path) -> None:
    with pytest.raises(InputError, match=r"both.yaml: the group both says nothing of its mean; add `aggregate_metric"):
        build_group(write_group(""))


def test_a_subtask_stands_in_one_task_only(workspace: Path) -> None:
    group = write_group("aggregate_metric_list: [{metric: acc, weight_by_size: true}]")
    single = Task(name="second", path="second.yaml", chat=True, limit=None)
    with pytest.raises(InputError, match="both and second both hold second; take one out"):
        build_all([group, single])


# The benchmarks of docs/benchmarks, beside lm-eval's own task files.


@pytest.fixture
def prepare(workspace: Path) -> ModuleType:
    source = Path(__file__).parent.parent / "docs" / "benchmarks" / "prepare.py"
    specification = importlib.util.spec_from_file_location("prepare", source)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def official_task(name: str, items: dict[str, list[dict[str, Any]]]) -> Any:
    """lm-eval's own task on items as its hub data set has them."""
    import lm_eval.tasks
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.tasks._yaml_loader import load_yaml

    files = {}
    for split, records in items.items():
        path = Path(f"official_{name.replace('/', '_')}_{split}.jsonl")
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
        files[split] = str(path)
    config = load_yaml(Path(lm_eval.tasks.__file__).parent / f"{name}.yaml")
    local = {
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": files},
        "training_split": None,
    }
    return ConfigurableTask(config=config | local)


def assert_same_task(ours: Any, theirs: Any, shots: int = 0) -> None:
    """The same prompts, choices, targets and metrics, item by item."""
    for task in (ours, theirs):
        task.set_config("num_fewshot", shots)
        task.set_fewshot_seed(1)
    assert len(ours.eval_docs) == len(theirs.eval_docs) > 0
    for own, official in zip(ours.eval_docs, theirs.eval_docs, strict=True):
        assert ours.fewshot_context(own, num_fewshot=shots) == theirs.fewshot_context(official, num_fewshot=shots)
        assert ours.doc_to_choice(own) == theirs.doc_to_choice(official)
        assert ours.doc_to_target(own) == theirs.doc_to_target(official)
        replies = [(-1.5 - index, False) for index in range(len(ours.doc_to_choice(own)))]
        assert ours.process_results(own, replies) == pytest.approx(theirs.process_results(official, replies))
    assert ours.aggregation() == theirs.aggregation()
    assert ours.config.target_delimiter == theirs.config.target_delimiter


def build(path: str) -> dict[str, Any]:
    return build_task(Task(name=Path(path).stem, path=f"data/raw/eval/{path}.yaml", chat=False, limit=None))


def test_mmlu_asks_as_lm_eval_does(prepare: ModuleType) -> None:
    lines = {
        "test": ' What is 2 + 2? ,3,4,5,6,B\n"Which, of these?","one, two",b,c,d,D\n',
        "dev": "First?,a,b,c,d,A\nSecond?,e,f,g,h,C\n",
    }
    for split, text in lines.items():
        Path("mmlu", split).mkdir(parents=True)
        for subject in ("abstract_algebra", "us_foreign_policy"):
            Path("mmlu", split, f"{subject}_{split}.csv").write_text(text)
    assert prepare.prepare_mmlu(Path("mmlu"), Path("data/raw/eval")) == ["mmlu/mmlu"]
    records = {
        "test": [
            {"question": " What is 2 + 2? ", "choices": ["3", "4", "5", "6"], "answer": 1},
            {"question": "Which, of these?", "choices": ["one, two", "b", "c", "d"], "answer": 3},
        ],
        "dev": [
            {"question": "First?", "choices": ["a", "b", "c", "d"], "answer": 0},
            {"question": "Second?", "choices": ["e", "f", "g", "h"], "answer": 2},
        ],
    }
    ours = build("mmlu/mmlu")
    assert list(ours) == ["mmlu::abstract_algebra", "mmlu::us_foreign_policy"]
    for subject in ("abstract_algebra", "us_foreign_policy"):
        theirs = official_task(f"mmlu/default/mmlu_{subject}", records)
        for shots in (0, 2):
            assert_same_task(ours[f"mmlu::{subject}"], theirs, shots)


def test_hellaswag_asks_as_lm_eval_does(prepare: ModuleType) -> None:
    records = [
        {"activity_label": "Roof repair", "ctx_a": "A man is sitting on a roof.", "ctx_b": "he", "label": "1",
         "endings": ["sings.", "starts [step] pulling  it up."]},
        {"activity_label": "Family Life", "ctx_a": "How to plan [header] a wedding [title] Ask early.", "ctx_b": "",
         "endings": [" [substeps] Wait.", "Go."], "label": "0"},
    ]  # fmt: skip
    Path("upstream.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    assert prepare.prepare_hellaswag(Path("upstream.jsonl"), Path("data/raw/eval")) == ["hellaswag/hellaswag"]
    assert_same_task(
        build("hellaswag/hellaswag")["hellaswag"], official_task("hellaswag/hellaswag", {"validation": records})
    )
    copy = {"ctx": "Roof repair: A man sits. he", "endings": ["sings.", "[step] rests."], "label": 1}
    Path("copy.jsonl").write_text(json.dumps(copy) + "\n")
    assert prepare.read_hellaswag(Path("copy.jsonl")) == [
        {"query": "Roof repair: A man sits. he", "choices": ["sings.", " rests."], "label": 1}
    ]


def test_truthfulqa_asks_and_scores_as_lm_eval_does(prepare: ModuleType) -> None:
    records = [
        {"question": "Do seeds grow?", "mc1_targets": {"No": 1, "Yes": 0},
         "mc2_targets": {"No": 1, "They do not": 1, "Yes": 0}},
        {"question": "Is it flat?", "mc1_targets": {"Round": 1, "Flat": 0, "Hollow": 0},
         "mc2_targets": {"Round": 1, "Flat": 0, "Hollow": 0}},
    ]  # fmt: skip
    Path("mc_task.json").write_text(json.dumps(records))
    prepare.prepare_truthfulqa(Path("mc_task.json"), Path("data/raw/eval"))
    hub = [
        {"question": record["question"]}
        | {
            name: {"choices": list(record[name]), "labels": list(record[name].values())}
            for name in ("mc1_targets", "mc2_targets")
        }  # type: ignore[call-overload, attr-defined]
        for record in records
    ]
    for name in ("truthfulqa_mc1", "truthfulqa_mc2"):
        assert_same_task(build(f"truthfulqa/{name}")[name], official_task(f"truthfulqa/{name}", {"validation": hub}))
    records[0]["mc1_targets"] = {"Yes": 0, "No": 1}
    Path("mc_task.json").write_text(json.dumps(records))
    with pytest.raises(ValueError, match="record 0: the first answer of mc1_targets is not the only true one"):
        prepare.read_truthfulqa(Path("mc_task.json"))
