"""The law as one self-contained HTML page, and as an HTML fragment for notebooks.

Names chosen by the author of a model are escaped in the text, and put into text nodes by the script. A content security
policy allows exactly one script and one style sheet, by their hashes.
"""

from __future__ import annotations

from base64 import b64encode
from dataclasses import asdict
from hashlib import sha256
from html import escape
from importlib.resources import files

from microfw.law.data import Law
from microfw.law.measure import StrategyResult
from microfw.law.report import LEGEND, bound, count_rows, reuse, title
from microfw.law.walk import MAX_NODES, Walk
from microfw.profiler.ratio import verdict
from microfw.profiler.reports.html import embedded
from microfw.profiler.reports.names import visible
from microfw.profiler.reports.text import whole
from microfw.visualization.svg import STYLE

MEANINGS = {
    "forward": "Forward computes the value of each node, in this order. It computes no derivative.",
    "backward": "Backprop visits each node once, in reverse order: its derivative rule gets a gradient only when all "
    "contributions are added. A gradient of a parameter is added where a node uses the parameter.",
    "per parameter": "The same engine, started again for each parameter: it visits all nodes between that parameter "
    "and the loss, and visits most of them again for the next parameter.",
    "paths": "Without an order, each contribution is passed on alone: one visit to a node for each path to it.",
}
"""What each replay shows."""

STYLES = """
.microfw-law{font:14px/1.5 system-ui,sans-serif;max-width:62rem}
.microfw-law table{border-collapse:collapse;font-variant-numeric:tabular-nums}
.microfw-law td,.microfw-law th{padding:.15rem .6rem;text-align:right;border:0}
.microfw-law td:first-child,.microfw-law td:last-child{text-align:left}
"""
"""Styles of the fragment: each rule is for its own elements only."""


def page(law: Law) -> str:
    """Return the page."""
    style, script = _asset("page.css") + STYLE, _asset("page.js")
    policy = f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; base-uri 'none'"
    name = text(f"N + P: {law.name or law.model}")
    walk = law.walk
    data = {"ops": walk.ops, "names": walk.names, "replays": [asdict(r) for r in walk.replays]} if walk else None
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="color-scheme" content="light dark">',
        f"<title>{name}</title><style>{style}</style></head><body><main>",
        f'<p class="quiet">microfw law</p><h1>{name}</h1><p class="quiet">{text(title(law))}</p>',
        f"<p>{text(summary(law))}</p>",
        _walk(walk) if walk else f'<p class="quiet">The graph has more than {MAX_NODES} nodes and is not drawn.</p>',
        f"<h2>Counts</h2>{_counts(law)}",
        *(f"<p>{text(sentence)}</p>" for sentence in (reuse(law), bound(law)) if sentence),
        f"<p>{text(verdict(law.ratio))}</p>" if law.ratio.others else "",
        f"<h2>Five strategies, one gradient</h2>{_strategies(law)}<p class='quiet'>{text(LEGEND)}</p>",
        f"<p>{text(law.note)}</p>" if law.note else "",
        "</main>",
        f'<script type="application/json" id="data">{embedded(data)}</script>' if walk else "",
        f"<script>{script}</script>" if walk else "",
        "</body></html>",
    ]
    return "\n".join(filter(None, parts))


def notebook(law: Law) -> str:
    """Return a fragment without a script: the result, the drawing and the counts."""
    # an image: of an SVG in the text, an untrusted notebook would show loose words
    drawing = _image(law.walk.image) if law.walk else ""
    return (
        f'<div class="microfw-law"><style>{STYLES}</style><p><b>{text(title(law))}</b></p>'
        f"<p>{text(summary(law))}</p>{drawing}{_counts(law)}"
        "<p>The page with the walk: <code>.show()</code>; all numbers: <code>print(...)</code>.</p></div>"
    )


def summary(law: Law) -> str:
    """Return the result in one sentence."""
    c = law.count("scalars") or law.count("tensors")
    assert c is not None
    unit = f"in {c.kind}, on {law.rows} row{'s' if law.rows > 1 else ''}"
    return (
        f"One backward pass gave all {whole(c.P)} derivatives in {whole(c.steps)} steps: it called {whole(c.rules)} "
        f"derivative rules and added {whole(c.accumulated)} gradients ({unit}). N + P is {whole(c.N + c.P)}; starting "
        f"over for each parameter takes up to N x P = {whole(c.N * c.P)} visits."
    )


def text(content: str) -> str:
    """Return text for HTML: escaped, with invisible characters made visible."""
    return escape(visible(content.replace("N x P", "N × P")))


def _asset(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _hash(content: str) -> str:
    return "sha256-" + b64encode(sha256(content.encode()).digest()).decode()


def _image(svg: str) -> str:
    """Return a drawing that scrolls if it is wide."""
    data = b64encode(svg.encode()).decode()
    source = f"data:image/svg+xml;base64,{data}"
    return f'<div style="overflow-x:auto"><img src="{source}" alt="Graph of one step" style="max-width:none"></div>'


def _drawing(svg: str) -> str:
    """Return a drawing without its styles, which the page has."""
    return svg.replace(f"<style>{STYLE}</style>", "").replace(' style="overflow-x:auto"', ' class="scroll"')


def _walk(walk: Walk) -> str:
    unit = {
        "scalars": "Each node is one operation on numbers.",
        "tensors": "Each node is an op on arrays and stands for many operations on numbers: when it is visited, the "
        "text says for how many.",
    }[walk.kind]
    tabs = "".join(
        f'<button type="button" class="tab" data-replay="{k}">{text(r.name)}</button>'
        for k, r in enumerate(walk.replays)
    )
    totals = "".join(
        f"<dt>{r.name}: {whole(r.visits)} visits, {whole(r.added)} gradients added</dt><dd>{MEANINGS[r.name]}</dd>"
        for r in walk.replays
    )
    detail = f"<h3>{text(walk.detail)}</h3>{_drawing(walk.detail_svg)}" if walk.detail else ""
    return f"""<h2>Walk through the graph</h2><p>{unit}</p>
<div class="walk">
<div class="controls" hidden><div role="group" aria-label="What to replay">{tabs}</div>
<div role="group" aria-label="Position"><button type="button" id="back">back</button>
<button type="button" id="step">step</button><button type="button" id="play">play</button>
<input type="range" id="position" min="0" value="0" aria-label="Events so far"></div>
<p class="counters"><b id="visits">0</b> visits <b id="added">0</b> gradients added <b id="again">0</b> visits of a node
that was visited before</p><p id="now" aria-live="polite"></p><p class="quiet" id="more"></p></div>
<div id="graph">{_drawing(walk.svg)}</div></div>
<dl>{totals}</dl>{detail}"""


def _counts(law: Law) -> str:
    batch = bool(law.batch_counts) and law.batch != law.rows
    rows = count_rows(law, batch)
    heads = ["", "in tensors", *(f"scalars, rows: {n}" for n in ([law.rows, law.batch] if batch else [law.rows])), ""]
    head = "".join(f"<th>{h}</th>" for h in heads)
    body = "".join("<tr>" + "".join(f"<td>{text(c)}</td>" for c in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _strategies(law: Law) -> str:
    charts = []
    for graph, quantity, what in (("tensors", "operations", "scalar operations"), ("scalars", "rules", "rule calls")):
        ways = [w for w in law.ways if w.graph == graph]
        if ways:
            most = max(getattr(w, quantity) or 0 for w in ways) or 1
            bars = "".join(_bar(w, getattr(w, quantity), most) for w in ways)
            charts.append(f"<h3>On the graph of {graph}: {what}, on a linear scale</h3><div class='bars'>{bars}</div>")
    return "".join(charts)


def _bar(way: StrategyResult, value: int | None, most: int) -> str:
    if value is None:
        return f"<span>{text(way.name)}</span><span>{text(way.note or 'not run')}</span>"
    width = max(100 * value / most, 0.15)
    about = " (extrapolated)" if way.extrapolated else ""
    kind = "ours" if way.name == "backprop" else "other"
    return (
        f'<span>{text(way.name)}</span><span><svg height="14" width="100%" aria-hidden="true"><rect class="{kind}" '
        f'width="{width:.2f}%" height="14"/></svg>{whole(value)}{about}</span>'
    )
