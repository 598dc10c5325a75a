"""Score the choices of an item in one pass: the prompt that they share is computed once.

lm-eval sends each choice through the model behind its own copy of the prompt. Here the requests with one context become
one packed sequence, [prompt, choice 1, choice 2, ...]: a 4-D attention mask lets each choice see the prompt and itself,
its positions go on from the prompt (as in the tree attention of SpecInfer, Miao et al. 2023), and the head is applied
only where a token of a choice is predicted. Log-probabilities are those of `HFLM` up to rounding.

What does not fit goes lm-eval's own way: rolling requests, sequences beyond the model's window, other architectures.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lm_eval.models import huggingface
from torch.nn.utils.rnn import pad_sequence

ARCHITECTURES = ("llama", "mistral", "qwen2", "qwen3")  # those whose results tests/test_eval.py compares with HFLM's
ATTENTION = ("sdpa", "eager")  # the implementations that take a 4-D mask as it is
MASK_CELLS = 2**26  # of one batch's attention mask: 256 MiB in float32; one sequence may have 8,192 tokens
HEAD_ROWS = 512  # positions that go through the head at once: 100 MB of float32 at a vocabulary of 49,152

Request = tuple[tuple[str, str] | None, list[int], list[int]]
"""(texts, context tokens, continuation tokens), as lm-eval hands them over; texts are None for rolling requests."""
Answer = tuple[float, bool]
"""Log-probability of the continuation, and whether greedy decoding would have written it."""


@dataclass(frozen=True)
class Packed:
    """The requests with one context as one sequence. Segment 0 is the shared prompt, segment k the k-th choice."""

    members: list[int]
    """Indices of the requests, in the order of the choices."""
    tokens: list[int]
    positions: list[int]
    segments: list[int]
    predictions: list[list[tuple[int, int]]]
    """For each choice (index in `tokens`, the token that must be predicted there)."""

    def __len__(self) -> int:
        return len(self.tokens)


def pack(members: list[int], requests: Sequence[Request]) -> Packed:
    """Lay the requests `members`, which have one context, out as one sequence.

    What the choices have in common beyond the context (often a line break or an article) is shared too. The last token
    of each choice is only predicted, never read.
    """
    context = requests[members[0]][1]
    wholes = [context + requests[member][2] for member in members]
    shared = len(context)
    limit = min(len(whole) for whole in wholes) - 1
    while shared < limit and len({whole[shared] for whole in wholes}) == 1:
        shared += 1
    tokens, positions, segments = wholes[0][:shared], list(range(shared)), [0] * shared
    predictions = []
    for segment, whole in enumerate(wholes, start=1):
        offset = len(tokens) - shared
        predictions.append(
            [
                (index - 1 if index - 1 < shared else index - 1 + offset, whole[index])
                for index in range(len(context), len(whole))
            ]
        )
        own = whole[shared:-1]
        tokens = tokens + own
        positions += range(shared, shared + len(own))
        segments += [segment] * len(own)
    return Packed(members, tokens, positions, segments, predictions)


def attention_mask(segments: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Additive mask (batch, 1, length, length) of segments (batch, length): 0 where a token may look, else the minimum.

    A token looks back at the prompt and at its own segment. Padding is a segment of its own at the end, which nobody
    looks at.
    """
    length = segments.shape[1]
    before = torch.ones(length, length, dtype=torch.bool, device=segments.device).tril()
    related = (segments[:, None, :] == 0) | (segments[:, None, :] == segments[:, :, None])
    allowed = (before & related)[:, None]
    return torch.zeros_like(allowed, dtype=dtype).masked_fill_(~allowed, torch.finfo(dtype).min)


def batches_of(groups: list[Packed], batch_size: int) -> Iterator[list[Packed]]:
    """At most `batch_size` groups at once and at most MASK_CELLS, the longest first, so that little is padding."""
    batch: list[Packed] = []
    for group in sorted(groups, key=lambda group: (-len(group), group.tokens)):
        if batch and (len(batch) == batch_size or (len(batch) + 1) * len(batch[0]) ** 2 > MASK_CELLS):
            yield batch
            batch = []
        batch.append(group)
    if batch:
        yield batch


class SharedPromptLM(huggingface.HFLM):  # type: ignore[misc]
    """`HFLM` that computes the prompt of an item once. `batch_size` counts items, not choices."""

    def shares_prompts(self) -> bool:
        """Whether the model's attention takes a 4-D mask in the way that this module was tested with."""
        config = self.model.config
        return config.model_type in ARCHITECTURES and config._attn_implementation in ATTENTION

    def _loglikelihood_tokens(
        self, requests: list[Request], disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[Answer]:
        if not self.shares_prompts() or any(texts is None for texts, _, _ in requests):
            return super()._loglikelihood_tokens(requests, disable_tqdm=disable_tqdm, override_bs=override_bs)
        groups, others = self._group(requests)
        answers: dict[int, Answer] = {}
        # Through the module, as HFLM itself does, so that whoever replaces its progress bar replaces this one.
        bar = huggingface.tqdm(total=len(requests), desc="Running loglikelihood requests", disable=disable_tqdm)
        for batch in batches_of(groups, int(self.batch_size)):
            scored = self._score(batch)
            for index, answer in scored.items():
                self.cache_hook.add_partial("loglikelihood", requests[index][0], answer)
            answers |= scored
            bar.update(len(scored))
        rest = super()._loglikelihood_tokens([requests[index] for index in others], disable_tqdm=True) if others else []
        bar.update(len(rest))
        bar.close()
        answers |= dict(zip(others, rest, strict=True))
        return [answers[index] for index in range(len(requests))]

    def _group(self, requests: list[Request]) -> tuple[list[Packed], list[int]]:
        """Requests with equal context tokens together; the indices of those that need lm-eval's own way apart."""
        window = min(self.max_length, getattr(self.model.config, "sliding_window", None) or self.max_length)
        members: dict[tuple[int, ...], list[int]] = {}
        for index, (_, context, _) in enumerate(requests):
            members.setdefault(tuple(context), []).append(index)
        groups, others = [], []
        for indices in members.values():
            packed = pack(indices, requests)
            if max(packed.positions) < window and len(packed) ** 2 <= MASK_CELLS:
                groups.append(packed)
            else:
                others += indices
        return groups, others

    @torch.inference_mode()
    def _score(self, batch: list[Packed]) -> dict[int, Answer]:
        """The answer of each request of the batch, by its index."""
        model: Any = self.model

        def padded(name: str, value: int) -> torch.Tensor:
            rows = [torch.tensor(getattr(group, name)) for group in batch]
            return pad_sequence(rows, batch_first=True, padding_value=value).to(self.device)

        hidden = model.base_model(
            input_ids=padded("tokens", 0),
            position_ids=padded("positions", 0),
            attention_mask=attention_mask(padded("segments", -1), model.get_input_embeddings().weight.dtype),
            use_cache=False,
        ).last_hidden_state
        # Choices that start behind the same token are predicted at the same place: each place passes the head once.
        places = sorted({(i, index) for i, group in enumerate(batch) for one in group.predictions for index, _ in one})
        row_of = {place: row for row, place in enumerate(places)}
        choices = [(i, choice) for i, group in enumerate(batch) for choice in group.predictions]
        rows = torch.tensor([row_of[i, index] for i, choice in choices for index, _ in choice], device=self.device)
        targets = torch.tensor([token for _, choice in choices for _, token in choice], device=self.device)
        logprobs, greedy = self._predict(hidden[tuple(zip(*places, strict=True))], rows, targets)
        lengths = [len(choice) for _, choice in choices]
        sums = [float(part.sum()) for part in logprobs.split(lengths)]
        exact = [bool(part.all()) for part in greedy.split(lengths)]
        members = [member for group in batch for member in group.members]
        return dict(zip(members, zip(sums, exact, strict=True), strict=True))

    def _predict(
        self, hidden: torch.Tensor, rows: torch.Tensor, targets: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probability of each target in the prediction of its row of `hidden`, and whether it is the likeliest."""
        head = self.model.get_output_embeddings()
        logprobs = torch.empty(len(targets), dtype=torch.float32, device=targets.device)
        greedy = torch.empty(len(targets), dtype=torch.bool, device=targets.device)
        for start in range(0, len(hidden), HEAD_ROWS):
            predicted = head(hidden[start : start + HEAD_ROWS]).float().log_softmax(dim=-1)
            here = (rows >= start) & (rows < start + HEAD_ROWS)
            row, target = rows[here] - start, targets[here]
            logprobs[here] = predicted[row, target]
            greedy[here] = predicted.argmax(dim=-1)[row] == target
        return logprobs, greedy
