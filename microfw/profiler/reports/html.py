"""Session as one self-contained HTML page, without network, library or other files.

Names chosen by the author of a model are only in a JSON block that no browser runs; the script puts them into text
nodes. A content security policy allows exactly one script and one style sheet, by their hashes.
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

from microfw.errors import ArgumentError
from microfw.profiler.ratio import BOUNDS, WHY, Ratio, verdict
from microfw.profiler.reports.counts import counts
from microfw.profiler.reports.first_look import median_epoch
from microfw.profiler.reports.full import overhead_text
from microfw.profiler.reports.names import OUTSIDE_LABEL, chain, parameter_counts, visible
from microfw.profiler.reports.remarks import remarks
from microfw.profiler.reports.tables import step_lines
from microfw.profiler.session import Epoch, Layer, PagePart, Row, Session

MAX_ROWS = 20_000
"""Maximum number of rows in a file. If the epochs have more, the page has only their sum."""

NUMBERS = [f.name for f in fields(Row) if f.name not in ("layer", "op")]


def html(session: Session, law: PagePart | None = None, max_rows: int = MAX_ROWS) -> str:
    """Return the page, with the result of the law if given. With more than ``max_rows`` it has only the sum."""
    if law is not None and not hasattr(law, "page_data"):
        raise ArgumentError("Session.html", "what mf.profiler.law returns", type(law).__name__)
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
        "DATA": embedded(view(session, max_rows) | {"law": law.page_data() if law is not None else None}),
        "SCRIPT": script,
    }
    head, *rest = page.split("<!--@")
    out = [head]
    for part in rest:
        name, _, text = part.partition("-->")
        out += [parts[name], text]
    return "".join(out)


def embedded(data: Any) -> str:
    r"""Return JSON that is safe between script tags.

    Examples
    --------
    >>> embedded("</script>")
    '"\\u003c/script\\u003e"'
    """
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))  # json.dumps escapes everything beyond ASCII
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _asset(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + b64encode(sha256(text.encode()).digest()).decode()


def view(session: Session, max_rows: int = MAX_ROWS) -> dict[str, Any]:
    """Return the data of the page: plain lists and numbers, with each name once."""
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

    def listed(epoch: Epoch) -> list[list[Any]]:
        return [[name, *count] for name, count in counts(epoch).items()]

    typical = median_epoch(session) if session.epochs else total
    own = [known.get(name, Layer(name, "")).steady() for name in names]
    keys = [f.name for f in fields(Epoch) if f.type == "int"]
    last = next((e.metrics for e in reversed(session.epochs) if e.metrics), {})  # an interrupted epoch has none
    metric = next((name for name in last if name.startswith("val_")), None)
    small = sum(len(epoch.rows) for epoch in session.epochs) <= max_rows
    trained, frozen = parameter_counts(session)
    of_all = listed(total)
    return {
        "name": session.name,
        "model": session.model,
        "trainable": trained,
        "frozen": frozen,
        "every": session.every,
        "environment": session.environment,
        "overhead": overhead_text(session.overhead) if session.overhead else "",
        "notes": total.notes,
        "names": list(names),
        "parents": [names[parents[name]] if parents.get(name) else -1 for name in names],
        "kinds": [layer.shown_kind for layer in own],
        "sizes": [layer.trainable for layer in own],
        "used": [layer.used or layer.trainable for layer in own],
        "weights": [layer.weights for layer in own],
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
        "counts": of_all,
        "epoch_counts": [unless(of_all, listed(epoch)) for epoch in session.epochs] if small else None,
        "remarks": remarks(step_lines(session, typical)),
        "typical": typical.epoch,
        "ratio": ratio(total.ratio()),
        "ratios": [ratio(epoch.ratio()) for epoch in session.epochs],
        "bounds": BOUNDS,
        "why": WHY,
        "outside": OUTSIDE_LABEL,
    }


def unless(same: Any, value: Any) -> Any:
    """Return a value, or None if it equals another one: a page of many epochs stays small."""
    return None if value == same else value


def finite(value: float | None) -> float | None:
    """Return a finite number, or None."""
    return value if value is not None and isfinite(value) else None


def ratio(r: Ratio) -> dict[str, Any]:
    """Return the ratios of backward to forward, and whether products match the formula."""
    share = r.predicted / r.products_forward if r.products_forward else None
    return {
        "operations": r.operations,
        "products": r.products,
        "predicted": share,
        "seconds": r.seconds,
        "exact": r.exact and not r.others,
        "says": verdict(r),
    }
