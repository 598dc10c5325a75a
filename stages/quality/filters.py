"""Rows that would teach something bad, each with the rule that it breaks: rows → row_id, reason, detail.

Judged is what a model would learn to write: the assistant's messages of an sft row, the chosen reply of a pair, the
reply of an unpaired row. A row that breaks several rules has the first one as its reason:

- empty: a reply is nothing but signs of replaced personal data; echo: the last reply repeats what was asked;
- too_short, too_long: words of all replies (characters in scripts without spaces); with a tool call none is too short;
- language: the replies are in none of `languages`, by py3langid's naive Bayes model (Lui and Baldwin 2011), which
  comes with the package; what it is less sure of than `language_probability` stays, as short replies do;
- repetition: the rules of Gopher (Rae et al. 2021, table A1) for replies instead of documents: lines of LINE_CHARACTERS
  and more that stand there before, words inside runs of 5 words that stand there before;
- truncated: the last reply has an open code block, or is prose and ends in a letter, comma or dash, in a line of eight
  words or more that is no item of a list: as a reply does that ran into a limit of tokens;
- refusal: an sft row's reply begins with a refusal. English only. In pairs and unpaired rows somebody chose it.

A reply that is there as a bad example (unpaired rows with the label false) is judged by length and language alone.
"""

from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
import polars as pl
from pydantic import Field

from stages.common.errors import InputError
from stages.common.params import Params, PositiveInt, Share
from stages.common.rows import normalise
from stages.common.shingles import TOKEN, hash_ngrams, hash_tokens, offsets_of, split_tokens

REASONS = ("empty", "echo", "too_short", "too_long", "language", "repetition", "truncated", "refusal")
JUDGED: dict[str, Any] = {"row_id": pl.String, "reason": pl.String, "detail": pl.String}
LINE_CHARACTERS = 20  # shorter lines repeat for good reasons: brackets of code, rules of tables
RUN_WORDS = 5
LANGUAGE_CHARACTERS = 1000  # of the replies, enough to tell their language
PLACEHOLDER = r"<[A-Z_]+>|\*{4}"
CUT_OFF = r"^(?:\S+\s){7,}[^\s./@]*[\p{L}\p{M},–—(-]$"
LIST_ITEM = r"^(?:[-*•|#>]|\d+[.)])"
PROSE = r"[.!?]\s|^(?:\S+\s){24}"  # a headline is neither several sentences nor a long one
CODE = r"(?s)```.*?(?:```|$)"
SORRY = r"(?:(?:i['’]?\s?a?m (?:very |so )?sorry|sorry|i apologi[sz]e|unfortunately)\b[,.;:!]?\s*(?:but\s+)?)?"
MACHINE = r"as an? (?:ai|artificial intelligence|language model)\b[^.,]{0,40},?\s*"
UNABLE = r"i(?: can(?:no|['’])t| can not| will not| won['’]t|(?: a|['’])m (?:not able|unable) to| must decline to)"
REFUSED = (
    r"\s+(?:help|assist|comply|fulfil|provide|answer|respond|engage|generate|create|write|discuss|support|do that)"
)
REFUSAL = (
    rf"(?i)^\W*(?:{SORRY}(?:{MACHINE})?{UNABLE}{REFUSED}|{SORRY}{MACHINE}i (?:do not|don['’]t|cannot|can['’]t|am))\b"
)


class Filters(Params):
    """Rows to leave out for their length, language or quality; empty or false: the rule is off."""

    echoes: bool
    """Leave out replies that are empty once personal data was replaced, and replies that repeat what was asked."""
    min_reply_words: PositiveInt | None
    """Fewest words of a row's replies in all (characters in scripts without spaces), if none of them calls a tool."""
    max_reply_words: PositiveInt | None
    """Most words of a row's replies in all."""
    languages: Annotated[list[Annotated[str, Field(pattern="^[a-z]{2,3}$")]], Field(min_length=1)] | None
    """Languages of the replies, as in ISO 639: en, de, zh."""
    language_probability: Annotated[float, Field(gt=0, le=1)]
    """How sure the language must be, in (0, 1], for a row to be left out; 0.8 leaves short replies in peace."""
    max_repeated_lines: Share | None
    """Share of the replies' lines that may stand there before; Gopher has 0.3."""
    max_repeated_words: Share | None
    """Share of the replies' words that may be in a run of 5 words that stands there before; Gopher has 0.15."""
    truncated: bool
    """Leave out last replies that end in the middle of a sentence or of a code block."""
    refusals: bool
    """Leave out sft rows with a reply that begins with a refusal (English)."""


def read_replies(rows: pl.DataFrame) -> pl.DataFrame:
    """row_id, kind, replies (list), calls (a reply calls a tool), text (all replies), last, asked (the user's last
    message), judged (it is to be good)."""
    of_role = pl.element().struct.field("role")
    content = pl.element().struct.field("content")
    learned = pl.when(pl.col("kind") == "sft").then(pl.col("messages")).otherwise(pl.col("chosen"))
    said = learned.list.eval(content.filter((of_role == "assistant") & content.is_not_null()).str.strip_chars())
    calls = learned.list.eval(pl.element().struct.field("tool_calls").is_not_null()).list.any()
    asked = pl.col("messages").list.eval(content.filter(of_role == "user")).list.last().fill_null("")
    return rows.select(
        "row_id", "kind", replies=said, calls=calls, asked=asked, judged=pl.col("label").fill_null(True)
    ).with_columns(text=pl.col("replies").list.join("\n"), last=pl.col("replies").list.last().fill_null(""))


def share_repeated_words(texts: pl.Series) -> pl.Series:
    """Share of each text's words inside a run of RUN_WORDS words that stands earlier in the same text.

    >>> share_repeated_words(pl.Series(["a b c d e f", "a b c d e a b c d e"])).to_list()
    [0.0, 0.5]
    """
    tokens = hash_tokens(split_tokens(texts.str.to_lowercase()))
    runs = hash_ngrams(tokens, RUN_WORDS)
    owners, counts = runs.texts(), tokens.counts()
    order = np.lexsort((np.arange(len(owners)), runs.values, owners))
    again = np.zeros(len(owners), np.bool_)
    again[order[1:]] = (runs.values[order][1:] == runs.values[order][:-1]) & (owners[order][1:] == owners[order][:-1])
    starts = (np.arange(len(owners)) + np.repeat(tokens.offsets[:-1] - runs.offsets[:-1], runs.counts()))[again]
    edges = np.zeros(len(tokens.values) + 1, np.int64)
    np.add.at(edges, starts, 1)
    np.add.at(edges, starts + RUN_WORDS, -1)
    covered = offsets_of(np.sign(np.cumsum(edges[:-1])))
    totals = covered[tokens.offsets[1:]] - covered[tokens.offsets[:-1]]
    return pl.Series(texts.name, totals / np.maximum(counts, 1))


def make_language_finder(wanted: list[str]) -> Callable[[pl.Series], pl.DataFrame]:
    """The function that names the language of each text and how sure it is: language, probability.

    Raises InputError where the model does not know one of the `wanted` languages.
    """
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    model = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    unknown = sorted(set(wanted) - set(model.labels))
    if unknown:
        raise InputError(
            f"params.yaml, filters.languages: {unknown[0]} is not known; known are {', '.join(model.labels)}"
        )

    def name_languages(texts: pl.Series) -> pl.DataFrame:
        prose = texts.str.replace_all(CODE, " ").str.replace_all(PLACEHOLDER, " ").str.slice(0, LANGUAGE_CHARACTERS)
        found = [model.classify(text) for text in prose]
        return pl.DataFrame(
            [(language, float(probability)) for language, probability in found],
            {"language": pl.String, "probability": pl.Float64},
            orient="row",
        )

    return name_languages


def list_rules(params: Filters) -> list[tuple[str, pl.Expr, pl.Expr]]:
    """(reason, whether a row breaks the rule, detail) of the rules in force, over the columns of judge_batch."""
    judged, last, none = pl.col("judged"), pl.col("last"), pl.lit(None, pl.String)
    lines = pl.col("text").str.split("\n").list.eval(pl.element().str.strip_chars())
    long_lines = lines.list.eval(pl.element().filter(pl.element().str.len_chars() >= LINE_CHARACTERS))
    repeated_lines = 1 - long_lines.list.n_unique() / long_lines.list.len()  # of no line NaN, which is not greater
    last_line = last.str.replace_all(r"\n\s*|\s{2,}", "\n").str.split("\n").list.last()
    cut_off = last_line.str.contains(CUT_OFF) & ~last_line.str.contains(LIST_ITEM) & last.str.contains(PROSE)
    empty = pl.col("replies").list.eval(
        pl.element().str.replace_all(PLACEHOLDER, "").str.contains(r"[^\s\p{P}]").not_()
    )
    rules: list[tuple[str, pl.Expr, pl.Expr]] = []
    if params.echoes:
        rules += [("empty", judged & empty.list.any(), none), ("echo", judged & pl.col("echo"), none)]
    words = pl.format("words={}", "words")
    if params.min_reply_words:
        rules.append(("too_short", ~pl.col("calls") & (pl.col("words") < params.min_reply_words), words))
    if params.max_reply_words:
        rules.append(("too_long", pl.col("words") > params.max_reply_words, words))
    if params.languages:
        sure = pl.col("probability") >= params.language_probability
        rules.append(
            ("language", sure & ~pl.col("language").is_in(params.languages), pl.format("language={}", "language"))
        )
    for limit, share, name in (
        (params.max_repeated_lines, repeated_lines, "lines"),
        (params.max_repeated_words, pl.col("repeated_words"), "words"),
    ):
        if limit is not None:
            detail = pl.format(f"repeated_{name}={{}}", (share * 100).round().cast(pl.Int64, strict=False) / 100)
            rules.append(("repetition", judged & (share > limit) & share.is_not_nan(), detail))
    if params.truncated:
        open_block = last.str.count_matches("(?m)^\\s*```") % 2 == 1
        rules.append(("truncated", judged & (cut_off | open_block), none))
    if params.refusals:
        refused = pl.col("replies").list.eval(pl.element().str.contains(REFUSAL)).list.any()
        rules.append(("refusal", (pl.col("kind") == "sft") & refused, none))
    return rules


def make_filter(params: Filters) -> Callable[[pl.DataFrame], pl.DataFrame]:
    """The function that judges a batch of rows: a pure function of the batch, with JUDGED for the rows to leave out."""
    rules, none = list_rules(params), pl.lit(None, pl.String)
    name_languages = make_language_finder(params.languages) if params.languages else None

    def judge_batch(rows: pl.DataFrame) -> pl.DataFrame:
        table = read_replies(rows)
        if params.echoes:
            echo = [
                normalise(last) == normalise(asked) != "" for last, asked in table.select("last", "asked").iter_rows()
            ]
            table = table.with_columns(pl.Series("echo", echo, pl.Boolean))
        if params.min_reply_words or params.max_reply_words:
            table = table.with_columns(words=pl.col("text").str.count_matches(TOKEN))
        if name_languages:
            table = table.hstack(name_languages(table["text"]))
        if params.max_repeated_words is not None:
            table = table.with_columns(share_repeated_words(table["text"]).alias("repeated_words"))
        broken = table.with_columns(
            reason=pl.coalesce(*(pl.when(breaks).then(pl.lit(reason)) for reason, breaks, _ in rules), none),
            detail=pl.coalesce(*(pl.when(breaks).then(detail.fill_null("")) for _, breaks, detail in rules), none),
        )
        return (
            broken.filter(pl.col("reason").is_not_null())
            .select("row_id", "reason", pl.col("detail").replace("", none))
            .cast(JUDGED)  # type: ignore[arg-type]
        )

    return judge_batch
