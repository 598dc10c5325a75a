"""Plots as inline SVG with the page's own fonts and colours, the same bytes for the same numbers.

matplotlib is given marker colours, which become CSS variables afterwards: so the plots follow the page into dark mode.
Each plot is about 370 units wide with text of 12 units: legible without zooming on a phone.
"""

import io
import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import quoteattr

import polars as pl

from stages.cards.inputs import MODELS
from stages.cards.scores import Difference, Score

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, MUTED, LINE, ACCENT, PAPER = "#010101", "#020202", "#030303", "#040404", "#050505"
VARIABLES = {INK: "ink", MUTED: "muted", LINE: "line", ACCENT: "accent", PAPER: "paper"}
MARKERS = {
    "base": ("o", PAPER, INK),
    "sft": ("^", ACCENT, ACCENT),
    "align": ("s", ACCENT, ACCENT),
    "quantized": ("D", INK, INK),
}
"""Model → marker, fill, edge: told apart by shape, so that colour is never needed."""
WIDTH = 5.2  # inches of 72 units
STYLE: Any = {
    "svg.fonttype": "none",
    "font.size": 12,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.titlesize": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "text.color": INK,
    "grid.color": LINE,
    "grid.linewidth": 0.8,
    "lines.linewidth": 1.8,
    "legend.frameon": False,
    "legend.fontsize": 12,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}


def draw(name: str, label: str, height: float, fill: Any) -> str:
    """An SVG element: `fill(axes)` draws into it; `label` says in words what it shows."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # the user's own matplotlibrc must not change the page
        matplotlib.rcParams.update(STYLE | {"svg.hashsalt": name})
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        fill(figure.add_subplot())
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    return inline(file.getvalue(), name, label)


def inline(svg: str, name: str, label: str) -> str:
    """matplotlib's file as an element of the page: labelled, no fixed size, no ids but those that are referred to."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    used = set(re.findall(r'(?:url\(#|href="#)([\w-]+)', svg))
    svg = re.sub(r' id="([\w.-]+)"', lambda found: f' id="{name}-{found[1]}"' if found[1] in used else "", svg)
    svg = re.sub(r'(url\(#|href="#)', rf"\g<1>{name}-", svg)
    view = re.search(r'viewBox="[^"]+"', svg)
    head = f'<svg class="plot" {view[0] if view else ""} role="img" aria-label={quoteattr(label)}>'
    svg = head + svg[svg.index(">") + 1 :].replace("xlink:href", "href")
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, f"var(--{variable})")
    return re.sub(r"\s*\n\s*", "\n", svg).strip()


def widen(axes: "Axes", rows: int) -> None:
    """Room above and below the rows of a dot plot, the first one on top."""
    axes.set_ylim(rows - 0.5, -0.5)
    axes.grid(axis="x")
    axes.tick_params(length=0)
    axes.spines["left"].set_visible(False)


def rolling_mean(values: pl.Series) -> pl.Series:
    """A centred mean over a twentieth of the steps, but five at least, for the eye."""
    return values.fill_nan(None).rolling_mean(max(5, len(values) // 20), min_samples=1, center=True)


def plot_shares(mixture: pl.DataFrame) -> str:
    """Planned (open) and realised (filled) share of each source in its kind's training tokens."""

    def fill(axes: "Axes") -> None:
        places = range(mixture.height)
        for place, planned, realised in zip(places, mixture["planned"], mixture["realised"], strict=True):
            axes.plot([planned, realised], [place, place], color=ACCENT, linewidth=1.5, zorder=1)
        axes.plot(mixture["planned"], places, "o", color=PAPER, mec=INK, ms=8, label="planned", zorder=2)
        axes.plot(mixture["realised"], places, "o", color=ACCENT, ms=5, label="realised", zorder=3)
        axes.set_yticks(places, mixture["source"].to_list())
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        axes.set_xlim(left=0)
        widen(axes, mixture.height)
        axes.legend(ncols=2, loc="lower right", bbox_to_anchor=(1, 1))

    label = "Planned and realised share of each source in the training tokens of its kind; the table has the numbers."
    return draw("plot-shares", label, 1.1 + 0.32 * mixture.height, fill)


def plot_loss(curve: pl.DataFrame, heldout: float) -> str:
    """Training loss by step, with the held-out loss after training."""

    def fill(axes: "Axes") -> None:
        axes.plot(curve["step"], curve["loss"], color=ACCENT, alpha=0.35, linewidth=1)
        axes.plot(curve["step"], rolling_mean(curve["loss"]), color=ACCENT, label="training")
        axes.axhline(heldout, color=INK, linestyle="--", linewidth=1.3, label="held out, after training")
        axes.set(xlabel="optimiser step", ylabel="nats per token")
        axes.grid(axis="y")
        axes.legend(loc="upper right")

    losses = curve["loss"].drop_nans()
    ends = f"from {losses[0]:.2f} to {losses[-1]:.2f}" if len(losses) else "without a value"
    label = f"Training loss over {curve.height} steps, {ends}; held-out loss {heldout:.2f}."
    return draw("plot-loss", label, 3.2, fill)


def plot_preference(curve: pl.DataFrame, from_ln_2: bool) -> str:
    """Preference loss by step; where it starts at ln 2, against that line: a policy equal to its reference."""

    def fill(axes: "Axes") -> None:
        axes.plot(curve["step"], curve["loss"], color=ACCENT, alpha=0.35, linewidth=1)
        axes.plot(curve["step"], rolling_mean(curve["loss"]), color=ACCENT, label="training")
        if from_ln_2:
            axes.axhline(math.log(2), color=INK, linestyle=":", linewidth=1.3, label="ln 2: no preference")
        axes.set(xlabel="optimiser step", ylabel="preference loss")
        axes.grid(axis="y")
        axes.legend(loc="best")

    first, last = curve["loss"][0], curve["loss"][-1]
    label = f"Preference loss over {curve.height} steps, from {first:.3f} to {last:.3f}."
    return draw("plot-preference", label, 3.2, fill)


def plot_scores(scores: Sequence[Score]) -> str:
    """The main metric of each task for the four models, with 95 % intervals."""
    tasks = list(dict.fromkeys(score.task for score in scores))

    def fill(axes: "Axes") -> None:
        for rank, (model, title) in enumerate(MODELS.items()):
            marker, face, rim = MARKERS[model]
            own = [score for score in scores if score.model == model]
            places = [tasks.index(score.task) + (rank - 1.5) * 0.19 for score in own]
            axes.errorbar(
                [score.value for score in own],
                places,
                xerr=[score.high - score.value for score in own],
                fmt=marker, mfc=face, mec=rim, ecolor=MUTED, elinewidth=1.3, ms=6, capsize=0, label=title,
            )  # fmt: skip
        axes.set_yticks(range(len(tasks)), tasks)
        axes.set_xlabel("score, with 95 % interval")
        widen(axes, len(tasks))
        axes.legend(ncols=4, loc="lower right", bbox_to_anchor=(1, 1), handletextpad=0.2, columnspacing=1)

    told = "; ".join(f"{score.task} {MODELS[score.model]} {score.value:.3f}" for score in scores)
    return draw("plot-scores", f"Scores of the four models: {told}.", 1.3 + 0.85 * len(tasks), fill)


def plot_differences(differences: Sequence[Difference]) -> str:
    """Difference of each model to base on each task, with 95 % intervals; the line is no difference."""
    tasks = list(dict.fromkeys(each.task for each in differences))
    models = [model for model in MODELS if any(each.model == model for each in differences)]

    def fill(axes: "Axes") -> None:
        axes.axvline(0, color=INK, linewidth=1.2)
        for rank, model in enumerate(models):
            marker, face, rim = MARKERS[model]
            for each in (each for each in differences if each.model == model):
                place = tasks.index(each.task) + (rank - (len(models) - 1) / 2) * 0.22
                axes.plot([each.low, each.high], [place, place], color=MUTED, linewidth=1.3)
                axes.plot(each.value, place, marker, mfc=face, mec=rim, ms=6)
            axes.plot([], [], marker, mfc=face, mec=rim, ms=6, label=MODELS[model])
        axes.set_yticks(range(len(tasks)), tasks)
        axes.set_xlabel("difference to base, with 95 % interval")
        widen(axes, len(tasks))
        axes.legend(ncols=3, loc="lower right", bbox_to_anchor=(1, 1), handletextpad=0.2, columnspacing=1)

    told = "; ".join(f"{each.task} {MODELS[each.model]} {each.value:+.3f}" for each in differences)
    return draw("plot-differences", f"Differences to base: {told}.", 1.3 + 0.85 * len(tasks), fill)
