"""Figures of the page on N + P: SVG and HTML, complete without a script. The script replays them step by step."""

import json
import re
from html import escape
from math import atan2, degrees

from law_page.walks import four_nodes, number

PLACES = {  # centres of the nodes and parameters
    "four": {"u": (38, 42), "v": (38, 178), "a": (134, 116), "b": (232, 42), "c": (276, 178), "L": (352, 104)},
    "residual": {"u": (38, 42), "h": (142, 42), "v": (142, 178), "f": (246, 120), "y": (352, 42)},
}
WIDTH, HEIGHT = 84, 54
SIGNS = {"multiply": "×", "add": "+", "maximum": "max", "exp": "exp", "divide": "÷", "log": "log", "subtract": "−"}
WORDS = {  # one, several
    "multiply": ("product", "products"),
    "add": ("addition", "additions"),
    "maximum": ("maximum", "maxima"),
    "exp": ("exponential", "exponentials"),
    "divide": ("division", "divisions"),
    "log": ("logarithm", "logarithms"),
    "subtract": ("subtraction", "subtractions"),
}

FORMULAS = {
    "cross_entropy": " For each of n rows 1/n × log(e<sub>label</sub> ÷ (1 e<sub>0</sub> + 1 e<sub>1</sub> + …)), e "
    "the exponentials, summed by a product with ones; then n − 1 additions join the rows, and 0 − the sum is the loss."
}
"""What is counted, where the number of operations does not show it."""


def graph(kind, data, walk):
    """Return a graph with the values, gradients and visits of one strategy."""
    at = PLACES[kind]
    shown = data["walks"][walk]
    total, visits = {data["nodes"][-1][0]: 1.0}, {}
    for event in shown["events"]:
        visits[event["node"]] = visits.get(event["node"], 0) + 1
        total |= {part["to"]: part["total"] for part in event["sends"]}
    total |= shown["found"]
    parts = [_edge(at, *edge) for edge in data["edges"]]
    for name, value in data["parameters"]:
        parts.append(_box(name, "parameter", at[name], name, value, total[name], None))
    for name, text, value in data["nodes"]:
        parts.append(_box(name, "node", at[name], text, value, total[name], visits.get(name, 0)))
    return (
        f'<svg class="graph" viewBox="-6 -2 408 212" role="group" aria-label="Graph: {escape(_sentence(data))}">'
        + "".join(parts)
        + "</svg>"
    )


def picture():
    """Return the graph of four nodes after its backward pass, without controls."""
    return f"<figure>{graph('four', four_nodes(), 'backprop')}</figure>"


def _sentence(data):
    return "; ".join(text for _, text, _ in data["nodes"])


def _edge(at, start, end, slope):
    (x0, y0), (x1, y1) = at[start], at[end]
    x0, x1 = x0 + WIDTH / 2, x1 - WIDTH / 2
    if x1 - x0 < 10:  # steep: leave from the bottom or the top
        x0, x1 = at[start][0], at[end][0]
        y0, y1 = (y0 + HEIGHT / 2, y1 - HEIGHT / 2) if y1 > y0 else (y0 - HEIGHT / 2, y1 + HEIGHT / 2)
    path, angle = f"M{x0:g} {y0:g}L{x1:g} {y1:g}", degrees(atan2(y1 - y0, x1 - x0))
    says = f"Local derivative of {end} by {start}: {number(slope)}. If {start} grows by a little, {end} grows "
    says += "as much." if slope == 1 else f"{number(slope)} times as much."
    return (
        f'<g class="edge" tabindex="0" role="img" data-from="{start}" data-to="{end}" aria-label="{says}">'
        f'<path class="hit" d="{path}"/><path class="line" d="{path}"/>'
        f'<path class="arrow" d="M0 0L-9 -4L-9 4z" transform="translate({x1:g} {y1:g}) rotate({angle:.0f})"/>'
        f'<text class="slope" x="{(x0 + x1) / 2:g}" y="{(y0 + y1) / 2 - 3:g}">{number(slope)}</text></g>'
    )


def _box(name, kind, centre, text, value, gradient, visits):
    x, y = centre
    badge = ""
    corner = (x - WIDTH / 2 + 1, y - HEIGHT / 2 - 3)
    if visits is not None:
        badge = f'<g class="badge"><circle cx="{corner[0]:g}" cy="{corner[1]:g}" r="11"/>'
        badge += f'<text x="{corner[0]:g}" y="{corner[1] + 5:g}" data-visits>{visits}</text></g>'
    return (
        f'<g class="{kind}" data-name="{name}"><rect x="{x - WIDTH / 2:g}" y="{y - HEIGHT / 2:g}" width="{WIDTH}" '
        f'height="{HEIGHT}" rx="{HEIGHT / 2 if kind == "parameter" else 4:g}"/>'
        f'<text class="name" x="{x}" y="{y - 5}">{text}</text>'
        f'<text x="{x}" y="{y + 17}"><tspan class="value" data-value>{number(value)}</tspan>'
        f'<tspan class="gradient" dx="7" data-gradient>{number(gradient)}</tspan></text>{badge}</g>'
    )


def walk(kind, data, strategies, *, guess=False):
    """Return a graph with its controls, counters and log.

    Parameters
    ----------
    kind : {"four", "residual"}
        Which graph.
    data : dict
        Its nodes, edges and visits.
    strategies : dict of str to str
        Strategies to choose from, with their labels; the first one is drawn.
    guess : bool
        Whether to ask for each gradient before it is shown.
    """
    first = next(iter(strategies))
    shown = data["walks"][first]
    tabs = "".join(
        f'<label><input type="radio" name="{kind}-{first}" value="{key}"{" checked" if key == first else ""}> '
        f"{label}</label>"
        for key, label in strategies.items()
    )
    form = (
        '<form class="guess" hidden><label>Guess first: <span data-ask></span> = <input type="text" '
        'inputmode="decimal" size="5" autocomplete="off"></label> <button>Check</button> '
        '<span data-answer aria-live="polite"></span></form>'
    )
    buttons = "".join(
        f'<button type="button" data-do="{do}">{label}</button>'
        for do, label in (("forward", "Forward"), ("back", "Back"), ("step", "Next visit"), ("restart", "Restart"))
    )
    logs = "".join(
        f"<p>{label[:1].upper() + label[1:]}</p><ol>"
        + "".join(f"<li>{event['says']}</li>" for event in data["walks"][key]["events"])
        + "</ol>"
        for key, label in strategies.items()
    )
    N, P = len(data["nodes"]), len(data["parameters"])
    return (
        f'<figure class="walk" data-graph="{kind}" data-strategy="{first}">'
        + (f'<fieldset class="tabs" hidden><legend>Strategy</legend>{tabs}</fieldset>' if len(strategies) > 1 else "")
        + graph(kind, data, first)
        + f'<p class="controls" hidden>{buttons}</p>'
        + '<p class="counters"><span>nodes visited <b data-count="visits">'
        + f'{shown["visits"]}</b></span> + <span>gradients added into parameters <b data-count="added">'
        + f'{shown["added"]}</b></span> = <b data-count="steps">{shown["visits"] + shown["added"]}</b> steps '
        + f"<span>(N = {N}, P = {P})</span></p>"
        + (form if guess else "")
        + '<p class="says" aria-live="polite"></p>'
        + f"<details><summary>Every visit in words</summary>{logs}</details></figure>"
    )


def neuron(found):
    """Return one neuron, closed and opened."""
    nodes = []
    xs = (70, 158, 246)
    for k, x in enumerate(xs):
        nodes.append((x, 92, f"w{k + 1} · x{k + 1}", [(x, 40)]))
        nodes.append((x + 44, 150, "+", [(x, 92)] + ([(xs[k - 1] + 44, 150)] if k else [])))
    nodes.append((366, 150, "tanh", [(xs[2] + 44, 150)]))
    assert (len(nodes), len(xs)) == (found["N"], found["features"])
    wires = "".join(f'<path class="line" d="M{a} {b}L{x} {y}"/>' for x, y, _, sources in nodes for a, b in sources)
    wires += '<path class="line" d="M26 150L114 150"/><path class="line" d="M366 150L420 150"/>'
    wires_in = "".join(f"M{x} 40L215 121" for x in xs)
    ends = [(x, 30, f"x{k + 1}") for k, x in enumerate(xs)] + [(16, 154, "b"), (426, 142, "y")]
    names = "".join(f'<text x="{x}" y="{y}">{text}</text>' for x, y, text in ends)
    boxes = "".join(
        f'<g class="node"><rect x="{x - (31 if "x" in text else 22)}" y="{y - 15}" rx="4" height="30" '
        f'width="{62 if "x" in text else 44}"/><text x="{x}" y="{y + 5}">{text}</text></g>'
        for x, y, text, _ in nodes
    )
    return (
        '<figure class="neuron open"><svg viewBox="0 0 430 190" role="group" aria-label="One neuron with three '
        'inputs: three products, three additions, one tanh">'
        f'<g class="opened"><rect class="hull" x="32" y="60" width="366" height="122" rx="14"/>{wires}{boxes}</g>'
        f'<g class="closed"><path class="line" d="{wires_in}M26 150L215 121L420 150"/>'
        f'<circle cx="215" cy="121" r="42"/><text x="215" y="126">neuron</text></g>{names}</svg>'
        '<p class="controls" hidden><button type="button" aria-expanded="true">Close the neuron</button></p>'
        f'<p class="counters">neurons <b>1</b>, features <b>{found["features"]}</b>, N <b data-count="N">{found["N"]}'
        f"</b>, P <b>{found['P']}</b></p></figure>"
    )


def drawing(svg):
    """Return a drawing of the engine's, cut to its layers so that it stays readable on a phone."""
    layers = re.findall(r'class="layer">.*?<rect x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" height="([\d.]+)"', svg)
    boxes = [tuple(map(float, box)) for box in layers]
    left, top = (min(box[k] for box in boxes) - 4 for k in (0, 1))
    right, bottom = (max(box[k] + box[k + 2] for box in boxes) + 4 for k in (0, 1))
    view = f'viewBox="{left:.0f} {top:.0f} {right - left:.0f} {bottom - top:.0f}"'
    svg = re.sub(r'width="[\d.]+" height="[\d.]+" viewBox="[^"]*"', view, svg, count=1)
    return f'<figure class="drawing">{svg}</figure>'


def zoomed(parts, rows):
    """Return the op nodes of the net; each opens to the scalar nodes of one of its outputs."""
    panels, total = [], 0
    for part in parts:
        one = sum(part["ops"].values())
        total += one
        each = {op: n // part["outputs"] for op, n in part["ops"].items()}
        dots = "".join(f'<i title="{op}">{SIGNS[op]}</i>' for op, n in each.items() for _ in range(n))
        words = ", ".join(f"{n} {WORDS[op][n > 1]}" for op, n in each.items())
        which = f"One of {part['outputs']} outputs" if part["outputs"] > 1 else "The one output"
        panels.append(
            f'<details class="op" name="zoom"><summary><code>{part["op"]}</code> {part["shape"]}: <b>1</b> node in '
            f"tensors; in scalars <b>{one:,}</b>, at batch {rows} <b>{one * rows:,}</b></summary>"
            f"<p>{which} for a row: {words}.{FORMULAS.get(part['op'], '')}</p>"
            f'<div class="dots" aria-hidden="true">{dots}</div></details>'
        )
    sums = f"<p>Together {len(parts)} in tensors; in scalars {total:,}, at batch {rows} {total * rows:,}.</p>"
    return f'<figure class="zoom">{"".join(panels)}{sums}</figure>'


def script_data(**data):
    """Return data for the script, in an element of the page."""
    text = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    return f'<script type="application/json" id="law-page-data">{text}</script>'
