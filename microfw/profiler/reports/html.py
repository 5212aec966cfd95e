"""A session as one page that needs nothing else: no network, no library, no file beside it.

Names that a model's author chose reach the page as JSON alone, in a block that no browser runs, and from there into
text nodes. A content security policy lets exactly one script and one style sheet in, by their hashes.
"""

from __future__ import annotations

import json
from base64 import b64encode
from dataclasses import fields
from hashlib import sha256
from html import escape
from importlib.resources import files
from math import isfinite
from typing import Any

from microfw.profiler.ratio import BOUNDS, WHY, Ratio, verdict
from microfw.profiler.reports.names import OUTSIDE, chain, visible
from microfw.profiler.session import Epoch, PagePart, Row, Session

MOST_ROWS = 20_000
"""Up to here the rows of every epoch are on the page; beyond, only their sums are."""

NUMBERS = [f.name for f in fields(Row) if f.name not in ("layer", "op")]

DEFINITIONS = {
    "N": "Op nodes recorded in one training step; leaves are not among them. In scalars: the scalar operations that "
    "these nodes stand for.",
    "P": "What is trained: the arrays that got a gradient, and in scalars the numbers in them.",
    "N + P": "About how many steps one backward pass takes, since it visits each node and each parameter once.",
    "backward took": "Counted, not computed: derivative rules called plus gradients added into parameters; in scalars "
    "the scalar operations of the backward pass.",
    "N x P": "What visiting the nodes again for every parameter is bounded by. Predicted, not run. "
    "Tensors and scalars are never mixed.",
    "E": "Edges of the graph that a gradient went along: inputs of ops that needed one.",
}


def html(session: Session, law: PagePart | None = None) -> str:
    """Return the page; with what the law found on a model, if that is given."""
    style, script = (_asset(name) for name in ("page.css", "page.js"))
    page = _asset("page.html")
    policy = (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    parts = {
        "POLICY": policy,
        "TITLE": escape(visible(" ".join(filter(None, ("microfw profile:", session.name, session.model))))),
        "STYLE": style,
        "DATA": embedded(view(session) | {"law": law.page_data() if law is not None else None}),
        "SCRIPT": script,
    }
    head, *rest = page.split("<!--@")
    out = [head]
    for part in rest:
        name, _, text = part.partition("-->")
        out += [parts[name], text]
    return "".join(out)


def embedded(data: Any) -> str:
    r"""Return JSON that can stand between script tags.

    Examples
    --------
    >>> embedded("</script>")
    '"\\u003c/script\\u003e"'
    """
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))  # beyond ASCII all is escaped already
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _asset(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + b64encode(sha256(text.encode()).digest()).decode()


def view(session: Session) -> dict[str, Any]:
    """Return what the page shows: plain lists and numbers, a name written out once."""
    total = session.total()
    names: dict[str, int] = {}
    known = {layer.name: layer for layer in session.layers}
    parents: dict[str, str] = {}
    for row in total.rows:
        path = chain(row.layer, known)
        for outer, name in zip(["", *path], path, strict=False):
            names.setdefault(name, len(names))
            parents[name] = outer
    if any(not row.layer for row in total.rows):
        names.setdefault("", len(names))
    sites = {(row.layer, row.op): k for k, row in enumerate(total.rows)}
    ops = list(dict.fromkeys(row.op for row in total.rows))

    def packed(epoch: Epoch) -> list[list[int]]:
        return [[sites[row.layer, row.op], *(getattr(row, name) for name in NUMBERS)] for row in epoch.rows]

    keys = [f.name for f in fields(Epoch) if f.type == "int"]
    metric = next((k for k in (session.epochs[-1].metrics if session.epochs else ()) if k.startswith("val_")), None)
    small = sum(len(epoch.rows) for epoch in session.epochs) <= MOST_ROWS
    trainable = sum(layer.trainable for layer in session.layers)
    return {
        "name": session.name,
        "model": session.model,
        "trainable": trainable,
        "frozen": sum(layer.parameters for layer in session.layers) - trainable,
        "every": session.every,
        "environment": session.environment,
        "overhead": session.overhead,
        "names": list(names),
        "parents": [names.get(parents.get(name, ""), -1) if parents.get(name) else -1 for name in names],
        "kinds": [known[name].kind if name in known else "" for name in names],
        "sizes": [known[name].trainable if name in known else 0 for name in names],
        "weights": [known[name].weights if name in known else 0 for name in names],
        "ops": ops,
        "sites": [[names[row.layer], ops.index(row.op)] for row in total.rows],
        "numbers": NUMBERS,
        "keys": keys,
        "epochs": [[getattr(epoch, key) for key in keys] for epoch in session.epochs],
        "losses": [finite(epoch.loss) for epoch in session.epochs],
        "metric": metric,
        "metrics": [finite(epoch.metrics.get(metric or "")) for epoch in session.epochs],
        "total": [getattr(total, key) for key in keys],
        "rows": [packed(epoch) for epoch in session.epochs] if small else None,
        "all": packed(total),
        "counts": counts(total),
        "ratio": ratio(total.ratio()),
        "ratios": [ratio(epoch.ratio()) for epoch in session.epochs],
        "bounds": BOUNDS,
        "why": WHY,
        "outside": OUTSIDE,
    }


def finite(value: float | None) -> float | None:
    """Return a number that JSON can hold, or None."""
    return value if value is not None and isfinite(value) else None


def counts(e: Epoch) -> list[list[Any]]:
    """Return the counts of one step: the word, in tensors, in scalars, what it means."""
    steps, total = e.observed or 1, e.sum()
    nodes, scalars = round(total.nodes / steps), round(sum(row.flops_forward for row in e.rows if row.nodes) / steps)
    took = round((total.rules + total.accumulated) / steps)
    numbers: dict[str, tuple[int, int | None]] = {
        "N": (nodes, scalars),
        "P": (e.parameter_tensors, e.parameters),
        "N + P": (nodes + e.parameter_tensors, scalars + e.parameters),
        "backward took": (took, round(total.flops_backward / steps)),
        "N x P": (nodes * e.parameter_tensors, scalars * e.parameters),
        "E": (round(total.edges / steps), None),
    }
    return [[word, *numbers[word], text] for word, text in DEFINITIONS.items()]


def ratio(r: Ratio) -> dict[str, Any]:
    """Return backward against forward: the ratios, and whether products are what the law verdict."""
    share = r.predicted / r.products_forward if r.products_forward else None
    return {
        "operations": r.operations,
        "products": r.products,
        "predicted": share,
        "seconds": r.seconds,
        "exact": r.exact and not r.others,
        "says": verdict(r),
    }
