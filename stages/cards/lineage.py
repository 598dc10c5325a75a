"""The graph with its counts as inline SVG: one wide, for a desk and paper, and one tall, for a phone.

Both are drawn on a fixed grid; colours and fonts come from the page (classes `node`, `edge`, `gone`).
"""

from dataclasses import dataclass
from xml.sax.saxutils import escape, quoteattr

from stages.cards.digests import list_outputs
from stages.cards.inputs import Facts
from stages.cards.removals import removals
from stages.cards.tables import READER
from stages.cards.wording import count, counted, megabytes, short_count

MODEL_NAMES = ("base", "sft", "align", "quantized")


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
    taps: dict[str, list[str]]
    """Model → what it got from the mixture, line by line."""
    sizes: dict[str, str]
    """Model → size of its folder, which goes to the next one."""
    items: str
    """What all four models were asked."""
    dirty: str
    final: str


def describe_taps(facts: Facts) -> dict[str, list[str]]:
    """What goes from the mixture to each model, and in how many steps of the optimiser it was read."""
    metrics, taps = facts.metrics, {}
    for kind, model in READER.items():
        heldout = metrics["mix"].get(kind, {}).get("heldout_rows", 0)
        what = "row" if kind == "sft" else "pair"
        taps[model] = [
            f"{counted(metrics[model]['rows_in'], what)}, {counted(metrics[model]['steps'], 'step')}",
            f"{count(heldout)} held out",
        ]
    calibration = metrics["quantize"]["rows_in"]
    taps["quantized"] = [] if facts.generated else [f"{counted(calibration, 'row')} to calibrate"]
    return taps


def read_lanes(facts: Facts) -> Lanes:
    steps = removals(facts)
    stops = [Stop(counted(len(facts.sources), "source"), short_count(steps[0]["rows_in"]), "records", [])]
    for step in steps:
        gone = [line.short for line in step["lines"]]
        stops.append(Stop(step["stage"], short_count(step["rows_out"]), "rows", gone))
    outputs = list_outputs(facts.lock)
    asked = facts.items["base"]
    return Lanes(
        stops=stops,
        taps=describe_taps(facts),
        sizes={model: megabytes(outputs[f"models/{model}"].size) for model in MODEL_NAMES},
        items=f"{counted(asked.height, 'item')} each",
        dirty=f"{count(int(asked['dirty'].sum()))} of them dirty",
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
    bus, below = top + height + 30, top + height + 106
    last = 1000 - width / 2
    places = {name: index * (1000 - width) / 3 for index, name in enumerate(MODEL_NAMES)}
    centres = {name: x + width / 2 for name, x in places.items()}
    parts.append(edge(mark, (last, top + height), (last, bus), (centres["sft"], bus), arrow=False))
    for name, tap in lanes.taps.items():
        if tap:
            parts.append(edge(mark, (centres[name], bus), (centres[name], below)))
        parts += [text(centres[name] - 9, bus + 28 + 19 * line, told, "count", "end") for line, told in enumerate(tap)]
    for name, x in places.items():
        parts.append(node(x, below, width, height, name, "node model"))
    for a, b in parents(lanes, direct=True):
        parts.append(edge(mark, (places[a] + width, below + 20), (places[b], below + 20)))
        parts.append(text((places[a] + width + places[b]) / 2, below + 13, lanes.sizes[a], "count"))
    under = below + height
    for a, b in parents(lanes, direct=False):
        parts.append(
            edge(mark, (centres[a], under), (centres[a], under + 20), (centres[b], under + 20), (centres[b], under))
        )
        parts.append(text((centres[a] + centres[b]) / 2, under + 15, lanes.sizes[a], "count"))
    line = under + 38
    parts.append(edge(mark, (0, line - 8), (0, line), (1000, line), (1000, line - 8), arrow=False))
    parts.append(edge(mark, (500, line), (500, line + 34)))
    parts.append(text(510, line + 20, lanes.items, "count", "start"))
    parts.append(text(490, line + 20, lanes.dirty, "unit", "end"))
    parts.append(node(500 - width / 2, line + 34, width, height, "eval"))
    return frame(mark, 1000, line + 36 + height, label, parts)


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
    tops = {name: y + index * (step + 6) for index, name in enumerate(MODEL_NAMES)}
    for name, top in tops.items():
        parts.append(node(left, top, width, height, name, "node model"))
        for line, told in enumerate(tap := lanes.taps.get(name, [])):
            place = top + height / 2 + 5 + 17 * line - 8.5 * (len(tap) - 1)
            parts.append(text(left + width + 24, place, told, "count", "start"))
        if tap:
            parts.append(edge(mark, (8, top + height / 2), (left, top + height / 2)))
    lowest = max(tops[name] for name, tap in lanes.taps.items() if tap) + height / 2
    parts.append(edge(mark, (left, mixture + height / 2), (8, mixture + height / 2), (8, lowest), arrow=False))
    centre, right = left + width / 2, left + width
    for a, b in parents(lanes, direct=True):
        parts.append(edge(mark, (centre, tops[a] + height), (centre, tops[b])))
        parts.append(text(centre + 10, tops[a] + height + 24, lanes.sizes[a], "count", "start"))
    for a, b in parents(lanes, direct=False):
        ends = tops[a] + height / 2, tops[b] + height / 2
        parts.append(edge(mark, (right, ends[0]), (right + 14, ends[0]), (right + 14, ends[1]), (right, ends[1])))
        parts.append(text(right + 20, ends[1] - 24, lanes.sizes[a], "count", "start"))
    judged, edge_right = tops["quantized"] + step + 6, 354.0
    bracket = (edge_right - 6, tops["base"] + 2), (edge_right, tops["base"] + 2), (edge_right, judged + height / 2)
    parts.append(edge(mark, *bracket, (right, judged + height / 2)))
    foot = tops["quantized"] + height - 2
    parts.append(edge(mark, (edge_right - 6, foot), (edge_right, foot), arrow=False))
    parts.append(node(left, judged, width, height, "eval"))
    parts.append(text(edge_right - 8, judged + height / 2 - 7, lanes.items, "count", "end"))
    parts.append(text(edge_right - 8, judged + height / 2 + 18, lanes.dirty, "unit", "end"))
    return frame(mark, 360, judged + height + 8, label, parts)


def parents(lanes: Lanes, direct: bool) -> list[tuple[str, str]]:
    """The edges between models: those between neighbours, or those that pass one over."""
    edges = [("base", "sft"), ("sft", "align"), (lanes.final, "quantized")]
    return [pair for pair in edges if (pair == ("sft", "quantized")) != direct]


def describe(lanes: Lanes) -> str:
    """The drawing in words, for who cannot see it."""
    path = "; ".join(
        f"{stop.name}: {', '.join([*stop.gone, f'{stop.leaving} {stop.unit} go on'])}" for stop in lanes.stops[:-1]
    )
    mixed = f"mix: {', '.join(lanes.stops[-1].gone)}, {lanes.stops[-1].leaving} {lanes.stops[-1].unit} taken"
    taps = "; ".join(f"{model} reads {', '.join(tap)}" for model, tap in lanes.taps.items() if tap)
    chain = "; ".join(f"{a} ({lanes.sizes[a]}) to {b}" for direct in (True, False) for a, b in parents(lanes, direct))
    return f"Data flow. {path}; {mixed}. {taps}. Models: {chain}. All four are asked {lanes.items}; {lanes.dirty}."
