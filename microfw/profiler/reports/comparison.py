"""Reports of a comparison: text, Markdown, HTML, a frame."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from microfw.errors import ArgumentError, printable
from microfw.profiler.change import NO_LAYER
from microfw.profiler.comparison import Change, Comparison, CountChange
from microfw.profiler.noise import DRIFT, MIN_UNCHANGED
from microfw.profiler.reports.markdown import code
from microfw.profiler.reports.names import OUTSIDE_LABEL
from microfw.profiler.reports.text import microseconds, short, shorten, table, whole, wrap_lines
from microfw.serialization.output import encode
from microfw.visualization.html_table import MAX_ROWS as HTML_ROWS, html_table

MAX_ROWS = 30

WIDEST = 110
"""An interval with zero in it is not shown if its ends differ by more than this factor, as -90% and +1000% do."""

OTHER_STEPS = "sampling explains, since other steps were observed: these are not judged"

HUGE = 10
"""Larger changes are only said to be larger."""

STYLE = "body{font:15px/1.5 system-ui,sans-serif;margin:1em}td,th{text-align:left;padding:.1em .8em}"


def comparison(found: Comparison) -> str:
    """Return text of at most 100 columns: first the verdict, then the numbers."""
    head = ["layer", "", "a", "b", "change", "interval", "verdict"]
    shown = _sorted(found)[:MAX_ROWS]
    rows = [[shorten(_label(found, c.layer), 28), c.phase, *_numbers(c)] for c in shown]
    parts = [
        "\n".join(wrap_lines(f"microfw compare: a = {shorten(found.a, 40)}, b = {shorten(found.b, 40)}")),
        "\n".join(line for text in _verdict(found) for line in wrap_lines(text)),
    ]
    if found.counts:
        cells = [[shorten(layer, 28), *rest] for layer, *rest in _count_rows(found)[:MAX_ROWS]]
        title = _count_title(found, MAX_ROWS)
        parts.append(f"{title}\n" + table(["layer", "", "a", "b", "change"], cells))
    parts.append("\n".join([*wrap_lines(_caption(found, MAX_ROWS)), table(head, rows, text=True)]))
    parts.append(_epochs(found))
    return printable("\n\n".join(parts))


def markdown(found: Comparison) -> str:
    """Return Markdown: the verdict and the differing counts, with the times folded."""
    lines = ["### Backward cost compared", "", *(f"- {text}" for text in _verdict(found, code)), ""]
    if found.counts:
        lines += ["| layer | count | a | b | change |", "| --- | --- | ---: | ---: | ---: |"]
        for c, (_, *cells) in zip(found.counts, _count_rows(found), strict=True):
            lines.append(f"| {_marked(found, c.layer)} | {' | '.join(cells)} |")
        lines.append("")
    head = "| layer |  | a | b | change | interval | verdict |"
    lines += [f"<details><summary>{_caption(found)}</summary>", "", head]
    lines.append("| --- | --- | ---: | ---: | ---: | ---: | --- |")
    lines += [f"| {_marked(found, c.layer)} | {c.phase} | {' | '.join(_numbers(c))} |" for c in _sorted(found)]
    return "\n".join([*lines, "", "</details>"]) + "\n"


def notebook(found: Comparison) -> str:
    """Return an HTML fragment: the verdict, the differing counts folded, and a table of times."""
    rows = [[_label(found, c.layer), c.phase, *_numbers(c)] for c in _sorted(found)[:HTML_ROWS]]
    head = ["layer", "phase", "a", "b", "change", "interval", "verdict"]
    names = f"a = {shorten(found.a, 40)}, b = {shorten(found.b, 40)}"
    parts = [f"<p>{escape(printable(text))}</p>" for text in (names, *_verdict(found))]
    if found.counts:
        counts = html_table(["layer", "count", "a", "b", "change"], _count_rows(found))
        parts.append(f"<details><summary>{_count_title(found)}: {len(found.counts)}</summary>{counts}</details>")
    return "".join(parts) + html_table(head, rows, _caption(found, HTML_ROWS))


def page(found: Comparison) -> str:
    """Return a page with the HTML of a notebook."""
    title = escape(printable(f"microfw compare: {found.a}, {found.b}"))
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{STYLE}</style>'
    return f"{head}<body><h1>{title}</h1>{notebook(found)}</body></html>\n"


def content(found: Comparison, path: str) -> bytes:
    """Return the bytes of a file; the suffix selects the format."""
    for ends, text in ((".html", page), (".htm", page), (".md", markdown), (".txt", comparison)):
        if path.lower().endswith(ends):
            return encode(text(found))
    raise ArgumentError("Comparison.save", "a name that ends in .html, .md or .txt", repr(path))


def to_frame(found: Comparison) -> Any:
    """Return a pandas DataFrame with one row for each time and each count that differs."""
    try:
        import pandas as pd
    except ImportError:
        raise ArgumentError("Comparison.to_frame", "pandas", "none installed", "pip install pandas") from None
    names = ("layer", "what", "a", "b", "change", "low", "high", "real")
    rows: list[Change | CountChange] = [*_sorted(found), *found.counts]
    columns = {name: [getattr(c, name, c.change) for c in rows] for name in names}
    frame = pd.DataFrame(columns)
    frame.insert(1, "kind", [found.kinds.get(c.layer, "") for c in rows])
    frame.insert(3, "unit", ["ns" if isinstance(c, Change) else "count" for c in rows])
    return frame


def _sorted(found: Comparison) -> list[Change]:
    """Return the whole step, then real changes, then the others, each by time."""
    return sorted(found.changes, key=lambda c: (c.phase != "step", not c.real, -max(c.a, c.b)))


def _count_rows(found: Comparison) -> list[list[str]]:
    return [[_label(found, c.layer), c.what, _count(c.a), _count(c.b), _percent(c.change)] for c in found.counts]


def _count_title(found: Comparison, most: int = 0) -> str:
    how = "exact" if all(c.real for c in found.counts) else "mean of the observed steps"
    return f"Counts that differ, in one step ({how}{_first(most, found.counts)})"


def _first(most: int, rows: Sequence[object]) -> str:
    """Return how many rows are shown, if not all are."""
    return f"; the first {most} of {len(rows)}" if 0 < most < len(rows) else ""


def _caption(found: Comparison, most: int = 0) -> str:
    unit = "b corrected for drift" if found.corrected else "b not corrected for drift"
    if found.alternated:
        unit = "a: median of the rounds, change: median of the rounds' own changes, b: a with this change"
    return f"Time (µs a step; {unit}{_first(most, found.changes)})"


def _verdict(found: Comparison, name: object = None) -> list[str]:
    """Return sentences: the whole step, then real changes, then how the runs were compared."""
    show = code if name is code else lambda text: shorten(text, 40)
    whole, *rest = found.changes
    if _is_unknown(whole):
        texts = [f"The whole step: {_percent(whole.change)} measured; whether it is real cannot be told."]
    else:
        texts = [f"The whole step: {_percent(whole.change)}, {_interval(whole)}: {_word(whole)}."]
    real = [c for c in rest if c.real]
    for c in sorted(real, key=lambda c: -abs(c.b - c.a)):
        whose = f"{show(_label(found, c.layer))} {c.phase}" if c.layer or c.one_sided else f"all of {c.phase}"
        if c.one_sided:
            text = (
                f"is new: {microseconds(c.b)} µs a step" if c.b else f"is gone: it took {microseconds(c.a)} µs a step"
            )
            texts.append(f"Real: {whose} {text}.")
        else:
            word = "slower" if c.change > 0 else "faster"
            how = f"is {abs(c.change):.1%} {word}" if c.change < HUGE else f"takes {_percent(c.change)} as long"
            indirect = c.layer and found.counts and c.layer not in {count.layer for count in found.counts}
            texts.append(f"Real: {whose} {how}{', though its counts agree' if indirect else ''}.")
    if not found.sampled_alike:
        texts.append(
            f"Times are not judged: a with every={found.every[0]} and b with every={found.every[1]} observed other "
            "steps. Profile both runs with the same every."
        )
    elif found.rounds < found.needed:
        texts.append(
            f"Times: {found.rounds} {'rounds' if found.alternated else 'epochs'} are too few for valid intervals; "
            f"{len(found.changes)} comparisons need "
            f"{found.needed}."
        )
    else:
        if not real and not whole.real:
            texts.append("Times: no real difference.")
        sizes = [found.smallest(c) for c in rest if c.layer and not c.one_sided]
        best, worst = (_size(end(sizes)) if sizes else "" for end in (min, max))
        layers = f"; of a layer's forward or backward, {best}" if sizes else ""
        layers += f" to {worst}, depending on the layer" if worst != best else ""
        whole_step = _size(found.smallest(whole))
        texts.append(f"Smallest change that can be detected with this noise: {whole_step} of the whole step{layers}.")
    unknown = sum(not c.real for c in found.counts)
    more = f", {unknown} of them by no more than {OTHER_STEPS}" if unknown else ""
    texts.append(
        f"Counts per step: {len(found.counts)} differ{more}."
        if found.counts
        else "Counts per step: N, P, backward steps, operations and bytes agree; updates have no counts."
    )
    if found.steps[0] != found.steps[1]:
        texts.append(f"Observed steps differ: {found.steps[0]:,} in a, {found.steps[1]:,} in b.")
    shares = zip(found.replayed, found.total_steps, "ab", strict=True)
    replayed = [f"{k / (n or 1):.0%} in {name}" for k, n, name in shares]
    if any(found.replayed):
        texts.append(
            f"Replayed steps: {', '.join(replayed)}. A longer fit replays more of its steps, which take less time."
        )
    for which, layers_alone in (("a", found.only_a), ("b", found.only_b)):
        if layers_alone:
            more = f" and {len(layers_alone) - 12} more" if len(layers_alone) > 12 else ""
            texts.append(
                f"Only in {which}: {', '.join(show(_label(found, layer)) for layer in layers_alone[:12])}{more}."
            )
    if found.only_a and found.only_b and all(c.layer for c in found.counts):
        texts.append("Counts of the whole step agree: these may be the same layers under other names.")
    if found.alternated:
        how = "seconds of alternated runs: median of the rounds' own changes, with the interval of their order"
    else:
        how = "lower quartiles of the epochs"
    if not found.alternated and found.sampled_alike:
        how += (
            f". {_drift(found)} Only alternated runs show a change of all layers alike: "
            "mf.profiler.alternate(run_a, run_b), or microfw compare --rerun"
        )
    texts.append(
        f"Compared: {how}. Confidence: {found.confidence:.0%} for all {len(found.changes)} comparisons together. "
        f"Smallest real change: {found.min_change:.0%}."
    )
    return texts


def _drift(found: Comparison) -> str:
    """Return how times of runs that were not alternated are corrected."""
    if found.corrected:
        return (
            f"Seconds drift between runs: layers whose counts agree differ by {_percent(found.drift)} in b. All times "
            "are corrected for this drift, and all intervals include the spread of these layers."
        )
    why = (
        f"layers whose counts agree take only {found.unchanged:.0%} of the time of all layers"
        if found.unchanged < MIN_UNCHANGED
        else "the times of layers whose counts agree differ too much"
    )
    return (
        f"Seconds drift between runs, and this drift cannot be told from the change: {why}. Times are not corrected; "
        f"all intervals allow for a drift by a factor of {DRIFT}."
    )


def _is_unknown(c: Change) -> bool:
    """Return True if an interval includes zero and is too wide to mean anything."""
    return not c.one_sided and c.low <= 0 <= c.high and 1 + c.high > WIDEST * (1 + c.low)


def _word(c: Change) -> str:
    if _is_unknown(c):
        return "unknown"
    if not c.real:
        return "unknown" if c.one_sided else "within noise"
    return ("new" if c.b else "gone") if c.one_sided else "more" if c.change > 0 else "less"


def _interval(c: Change) -> str:
    if c.one_sided:
        return ""
    if _is_unknown(c):
        return "cannot be told"
    return f"{_percent(c.low)} or more" if c.high > HUGE else f"{_percent(c.low)} to {_percent(c.high)}"


def _size(change: float) -> str:
    return f"{change:.0%}" if change <= HUGE else f"more than {HUGE} times"


def _numbers(c: Change) -> list[str]:
    return [microseconds(c.a), microseconds(c.b), _percent(c.change), _interval(c), _word(c)]


def _epochs(found: Comparison) -> str:
    name = "round" if found.alternated else "epoch"
    title = (
        "Rounds: the shortest backward of the epochs of each"
        if found.alternated
        else ("Epochs (seconds drift between runs: not for conclusions)")
    )
    picked = found.epochs if len(found.epochs) <= 12 else [*found.epochs[:6], *found.epochs[-6:]]
    rows = [[str(n), microseconds(a), microseconds(b), _percent(b / a - 1) if a else ""] for n, a, b in picked]
    if len(picked) < len(found.epochs):
        rows.insert(6, ["…", "", "", ""])
    return f"{title}\n" + table([name, "backward a, µs a step", "b", "change"], rows)


def _label(found: Comparison, layer: str) -> str:
    """Return a layer's name and type."""
    if layer == NO_LAYER:
        return OUTSIDE_LABEL
    return f"{layer} {found.kinds.get(layer, '')}".strip() if layer else "(the whole step)"


def _marked(found: Comparison, layer: str) -> str:
    return code(_label(found, layer)) if layer else "the whole step"


def _percent(change: float) -> str:
    if change >= HUGE:
        return "new" if change == float("inf") else f"{short(1 + change)} times"
    return f"{change:+.1%}".replace("-0.0%", "+0.0%")


def _count(value: float) -> str:
    return whole(int(value)) if value == int(value) else f"{value:,.1f}"


def worst(found: Comparison, changes: list[Change | CountChange]) -> str:
    """Return one line with the changes above the limit."""
    texts = [f"{shorten(_label(found, c.layer), 40)} {c.what} {_percent(c.change)}" for c in changes[:5]]
    return ", ".join(texts) + (f" and {len(changes) - 5} more" if len(changes) > 5 else "")
