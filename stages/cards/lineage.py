"""The graph with its counts as inline SVG: one wide, for a desk and paper, and one tall, for a phone.

Both are drawn on a fixed grid; colours and fonts come from the page (classes `node`, `edge`, `gone`).
"""

from dataclasses import dataclass
from xml.sax.saxutils import escape, quoteattr

from stages.cards.inputs import Facts
from stages.cards.wording import count, counted, removals, short_count

NAMED_TASKS = 2  # more do not fit into the tall drawing


@dataclass(frozen=True)
class Stop:
    """A box of the data lane: what leaves it to the next one, and what was taken out in it."""

    name: str
    leaving: str
    unit: str
    gone: list[str]


@dataclass(frozen=True)
class Lanes:
    """Everything the drawing says."""

    stops: list[Stop]
    taps: dict[str, str]
    """Model → what it got from the mixture."""
    heldout: str
    items: str
    final: str


def read_lanes(facts: Facts) -> Lanes:
    steps = removals(facts)
    stops = [Stop(counted(len(facts.sources), "source"), short_count(steps[0]["rows_in"]), "records", [])]
    for step in steps:
        gone = [line.short for line in step["lines"]]
        stops.append(Stop(step["stage"], short_count(step["rows_out"]), "rows", gone))
    metrics = facts.metrics
    heldout = sum(
        part["heldout_rows"] for part in metrics["mix"].values() if isinstance(part, dict) and "heldout_rows" in part
    )
    sizes = {task.name: facts.scores["base"][task.name].get("items", 0) for task in facts.tasks}
    named = ", ".join(f"{task} {count(size)}" for task, size in sizes.items())
    together = f"{count(sum(sizes.values()))} in {counted(len(sizes), 'task')}"
    return Lanes(
        stops=stops,
        taps={
            "sft": f"{count(metrics['sft']['rows_in'])} rows",
            "align": f"{count(metrics['align']['rows_in'])} preference rows",
            "quantized": f"{count(metrics['quantize']['rows_in'])} rows to calibrate",
        },
        heldout=f"{counted(heldout, 'row')} held out",
        items=f"evaluation items: {named if len(sizes) <= NAMED_TASKS else together}",
        final=facts.pipeline.final,
    )


def text(x: float, y: float, content: str, kind: str = "", anchor: str = "middle") -> str:
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" class="{kind}">{escape(content)}</text>'


def node(x: float, y: float, width: float, height: float, name: str, kind: str = "node") -> str:
    box = f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="6"/>'
    return f'<g class="{kind}">{box}{text(x + width / 2, y + height / 2 + 5, name)}</g>'


def edge(marker: str, *points: tuple[float, float], arrow: bool = True) -> str:
    path = "M" + " L".join(f"{x:g} {y:g}" for x, y in points)
    end = f' marker-end="url(#{marker})"' if arrow else ""
    return f'<path class="edge" d="{path}"{end}/>'


def frame(name: str, width: float, height: float, label: str, parts: list[str]) -> str:
    arrow = (
        f'<defs><marker id="{name}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        'orient="auto"><path class="tip" d="M0 0 L8 4 L0 8 z"/></marker></defs>'
    )
    head = (
        f'<svg class="lineage {name}" viewBox="-2 0 {width + 4:g} {height:g}" role="img" aria-label={quoteattr(label)}>'
    )
    return head + arrow + "".join(parts) + "</svg>"


def draw_wide(lanes: Lanes, label: str) -> str:
    """Data from left to right, models below, a line from the mixture to each model that reads it."""
    mark, width, height = "wide", 122, 40
    top = 22 + 17 * max(len(stop.gone) for stop in lanes.stops)
    gap = (1000 - width * len(lanes.stops)) / (len(lanes.stops) - 1)
    middle, parts = top + height / 2, []
    for index, stop in enumerate(lanes.stops):
        x = index * (width + gap)
        parts.append(node(x, top, width, height, stop.name, "node source" if index == 0 else "node"))
        for line, gone in enumerate(reversed(stop.gone)):
            parts.append(text(x + width / 2, top - 11 - 17 * line, gone, "gone"))
        if index < len(lanes.stops) - 1:
            parts.append(edge(mark, (x + width, middle), (x + width + gap, middle)))
            parts.append(text(x + width + gap / 2, middle - 8, stop.leaving, "count"))
            parts.append(text(x + width + gap / 2, middle + 17, stop.unit, "unit"))
    bus, below = top + height + 46, top + height + 106
    last = 1000 - width / 2
    places = {name: index * (1000 - width) / 3 for index, name in enumerate(("base", "sft", "align", "quantized"))}
    centres = {name: x + width / 2 for name, x in places.items()}
    parts.append(edge(mark, (last, top + height), (last, bus), (centres["sft"], bus), arrow=False))
    parts.append(text(last - 12, bus - 14, lanes.heldout, "unit", "end"))
    for name, tap in lanes.taps.items():
        parts.append(edge(mark, (centres[name], bus), (centres[name], below)))
        parts.append(text(centres[name] - 9, bus + 36, tap, "count", "end"))
    for name, x in places.items():
        parts.append(node(x, below, width, height, name, "node model"))
    parts += [
        edge(mark, (places[a] + width, below + 20), (places[b], below + 20)) for a, b in parents(lanes, direct=True)
    ]
    under = below + height
    for a, b in parents(lanes, direct=False):
        parts.append(
            edge(mark, (centres[a], under), (centres[a], under + 20), (centres[b], under + 20), (centres[b], under))
        )
    line = under + 38
    parts.append(edge(mark, (0, line - 8), (0, line), (1000, line), (1000, line - 8), arrow=False))
    parts.append(text(500, line + 21, lanes.items, "count"))
    return frame(mark, 1000, line + 26, label, parts)


def draw_tall(lanes: Lanes, label: str) -> str:
    """Everything from top to bottom; the line from the mixture to the models runs on the left."""
    mark, left, width, height, step = "tall", 26, 126, 36, 70
    parts, y = [], 2.0
    for stop in lanes.stops:
        parts.append(node(left, y, width, height, stop.name, "node source" if not stop.gone else "node"))
        start = y + height / 2 + 5 - 8.5 * (len(stop.gone) - 1)
        parts += [
            text(left + width + 12, start + 17 * line, gone, "gone", "start") for line, gone in enumerate(stop.gone)
        ]
        if stop is not lanes.stops[-1]:
            parts.append(edge(mark, (left + width / 2, y + height), (left + width / 2, y + step)))
            parts.append(text(left + width / 2 + 10, y + height + 22, f"{stop.leaving} {stop.unit}", "count", "start"))
        y += step
    mixture = y - step
    parts.append(text(left + width / 2 + 10, mixture + height + 17, lanes.heldout, "unit", "start"))
    tops = {name: y + index * (step - 8) for index, name in enumerate(("base", "sft", "align", "quantized"))}
    for name, top in tops.items():
        parts.append(node(left, top, width, height, name, "node model"))
        if name in lanes.taps:
            parts.append(edge(mark, (8, top + height / 2), (left, top + height / 2)))
            parts.append(text(left + width + 24, top + height / 2 + 5, lanes.taps[name], "count", "start"))
    bottom = tops["quantized"] + height / 2
    parts.append(edge(mark, (left, mixture + height / 2), (8, mixture + height / 2), (8, bottom), arrow=False))
    centre, right = left + width / 2, left + width
    parts += [edge(mark, (centre, tops[a] + height), (centre, tops[b])) for a, b in parents(lanes, direct=True)]
    for a, b in parents(lanes, direct=False):
        ends = tops[a] + height / 2, tops[b] + height / 2
        parts.append(edge(mark, (right, ends[0]), (right + 14, ends[0]), (right + 14, ends[1]), (right, ends[1])))
    parts.append(text(left, tops["quantized"] + height + 26, lanes.items, "unit", "start"))
    return frame(mark, 360, tops["quantized"] + height + 36, label, parts)


def parents(lanes: Lanes, direct: bool) -> list[tuple[str, str]]:
    """The edges between models: those between neighbours, or those that pass one over."""
    edges = [("base", "sft"), ("sft", "align"), (lanes.final, "quantized")]
    return [pair for pair in edges if (pair == ("sft", "quantized")) != direct]


def describe(lanes: Lanes) -> str:
    """The drawing in words, for who cannot see it."""
    path = "; ".join(f"{stop.name}: {stop.leaving} {stop.unit} go on" for stop in lanes.stops[:-1])
    taps = "; ".join(f"{model} reads {tap}" for model, tap in lanes.taps.items())
    return (
        f"Data flow. {path}; mix: {lanes.heldout}. {taps}. quantized is made of {lanes.final}. All four: {lanes.items}."
    )
