"""Data of the law for the HTML page: plain lists and numbers."""

from __future__ import annotations

from typing import Any

from microfw.law.data import Law
from microfw.law.report import LEGEND, bound, count_rows, margins, title
from microfw.profiler.ratio import verdict

NUMBERS = ("rules", "forwards", "operations", "seconds", "peak_bytes", "difference")


def page_data(law: Law) -> dict[str, Any]:
    """Return counts, rows of strategies and layers, and explanatory sentences."""
    return {
        "title": title(law),
        "counts": count_rows(law),
        "says": bound(law),
        "ways": [
            {"name": w.name, "graph": w.graph, "note": w.note, "done": w.done, "of": w.of, "sampled": w.extrapolated}
            | {name: getattr(w, name) for name in NUMBERS}
            | {"margins": margins(w)}
            for w in law.ways
        ],
        "legend": LEGEND,
        "layers": [
            [
                row.layer,
                row.kind,
                row.parameters,
                row.forward,
                row.backward,
                (row.forward + row.backward) / row.used / law.rows if row.used else None,
                row.uses / row.used / law.rows if row.used and row.uses else None,
            ]
            for row in law.layers
        ],
        "ratio": law.ratio.to_dict() | {"says": verdict(law.ratio)},
        "note": law.note,
    }
