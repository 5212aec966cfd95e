"""Text and Markdown reports of a comparison."""

from __future__ import annotations

from html import escape

from microfw.errors import printable
from microfw.profiler.comparison import Change, Comparison, CountChange
from microfw.profiler.reports.markdown import code
from microfw.profiler.reports.names import OUTSIDE
from microfw.profiler.reports.text import microseconds, shorten, table, whole, wrap_lines
from microfw.visualization.html_table import html_table

MAX_ROWS = 30


def comparison(found: Comparison) -> str:
    """Return text of at most 100 columns: first the verdict, then the numbers."""
    unit = _unit(found)
    head = ["layer", "", "a", "b", "change", "interval", "verdict"]
    shown = sorted(found.changes, key=lambda c: (c.phase != "step", not c.real, -max(c.a, c.b)))[:MAX_ROWS]
    rows = [[shorten(_label(c.layer), 28), c.phase, *_numbers(c)] for c in shown]
    parts = [
        "\n".join(wrap_lines(f"microfw compare: a = {shorten(found.a, 40)}, b = {shorten(found.b, 40)}")),
        "\n".join(line for text in _verdict(found) for line in wrap_lines(text)),
    ]
    if found.counts:
        cells = [
            [shorten(_label(c.layer), 28), c.what, _count(c.a), _count(c.b), _percent(c.change)]
            for c in found.counts[:MAX_ROWS]
        ]
        parts.append("Counts that differ, in one step (exact)\n" + table(["layer", "", "a", "b", "change"], cells))
    more = f"; the {MAX_ROWS} largest of {len(found.changes)}" if len(found.changes) > MAX_ROWS else ""
    parts.append(f"Time ({unit}{more})\n" + table(head, rows, text=True))
    parts.append(_epochs(found))
    return printable("\n\n".join(parts))


def markdown(found: Comparison) -> str:
    """Return Markdown: the verdict and the differing counts, with the times folded."""
    unit = _unit(found)
    lines = ["### Backward cost compared", "", *(f"- {text}" for text in _verdict(found, code)), ""]
    if found.counts:
        lines += ["| layer | count | a | b | change |", "| --- | --- | ---: | ---: | ---: |"]
        for c in found.counts:
            lines.append(f"| {_marked(c.layer)} | {c.what} | {_count(c.a)} | {_count(c.b)} | {_percent(c.change)} |")
        lines.append("")
    lines += [f"<details><summary>Times, {unit}</summary>", "", "| layer |  | a | b | change | interval | verdict |"]
    lines.append("| --- | --- | ---: | ---: | ---: | ---: | --- |")
    lines += [f"| {_marked(c.layer)} | {c.phase} | {' | '.join(_numbers(c))} |" for c in found.changes]
    return "\n".join([*lines, "", "</details>"]) + "\n"


def notebook(found: Comparison) -> str:
    """Return an HTML fragment: the verdict, and a table of times."""
    rows = [[_label(c.layer), c.phase, *_numbers(c)] for c in found.changes]
    times = html_table(["layer", "phase", "a", "b", "change", "interval", "verdict"], rows, f"Time, {_unit(found)}")
    return "".join(f"<p>{escape(printable(text))}</p>" for text in _verdict(found)) + times


def _unit(found: Comparison) -> str:
    return "µs a step" if found.alternated else "µs a step, b corrected for drift"


def _verdict(found: Comparison, name: object = None) -> list[str]:
    """Return sentences: the whole step, then real changes, then how the runs were compared."""
    show = code if name is code else lambda text: shorten(text, 40)
    whole, *rest = found.changes
    texts = [
        f"The whole step: {_percent(whole.change)}, {_percent(whole.low)} to {_percent(whole.high)}: {_word(whole)}."
    ]
    real = [c for c in rest if c.real]
    for c in sorted(real, key=lambda c: -abs(c.b - c.a)):
        whose = f"{show(_label(c.layer))} {c.phase}" if c.layer or c.one_sided else f"all of {c.phase}"
        if c.one_sided:
            text = (
                f"is new: {microseconds(c.b)} µs a step" if c.b else f"is gone: it took {microseconds(c.a)} µs a step"
            )
            texts.append(f"Real: {whose} {text}.")
        else:
            texts.append(f"Real: {whose} is {abs(c.change):.1%} {'slower' if c.change > 0 else 'faster'}.")
    if found.rounds < found.needed:
        texts.append(
            f"Times: {found.rounds} {'rounds' if found.alternated else 'epochs'} are too few for valid intervals; "
            f"{len(found.changes)} comparisons need "
            f"{found.needed}."
        )
    else:
        if not real and not whole.real:
            texts.append("Times: no real difference.")
        sizes = [found.smallest(c) for c in rest if c.layer and not c.one_sided]
        layers = f"; of a layer's forward or backward, {min(sizes):.0%} to {max(sizes):.0%}" if sizes else ""
        texts.append(
            f"Smallest change that can be detected with this noise: {found.smallest(whole):.0%} of the whole "
            f"step{layers}."
        )
    texts.append(
        f"Counts per step: {len(found.counts)} differ."
        if found.counts
        else "Counts per step: N, P, steps, operations and bytes agree."
    )
    if found.steps[0] != found.steps[1]:
        texts.append(f"Observed steps differ: {found.steps[0]:,} in a, {found.steps[1]:,} in b.")
    for which, layers_alone in (("a", found.only_a), ("b", found.only_b)):
        if layers_alone:
            more = f" and {len(layers_alone) - 12} more" if len(layers_alone) > 12 else ""
            texts.append(f"Only in {which}: {', '.join(show(_label(layer)) for layer in layers_alone[:12])}{more}.")
    if found.alternated:
        how = "seconds of alternated runs: median of the rounds, with the interval of their order"
    else:
        how = (
            f"lower quartiles of the epochs. Seconds drift between runs: unchanged layers differ by "
            f"{_percent(found.drift)} in b. All times are corrected for this drift, and all intervals include the "
            "spread of these layers. Only alternated runs show a change of all layers alike (microfw compare --rerun)"
        )
    texts.append(
        f"Compared: {how}. Confidence: {found.confidence:.0%} for all {len(found.changes)} comparisons together. "
        f"Smallest real change: {found.min_change:.0%}."
    )
    return texts


def _word(c: Change) -> str:
    if not c.real:
        return "within noise"
    return ("new" if c.b else "gone") if c.one_sided else "more" if c.change > 0 else "less"


def _numbers(c: Change) -> list[str]:
    interval = "" if c.one_sided else f"{_percent(c.low)} to {_percent(c.high)}"
    return [microseconds(c.a), microseconds(c.b), _percent(c.change), interval, _word(c)]


def _epochs(found: Comparison) -> str:
    what = "Rounds" if found.alternated else "Epochs (seconds drift between runs: not for conclusions)"
    picked = found.epochs if len(found.epochs) <= 12 else [*found.epochs[:6], *found.epochs[-6:]]
    rows = [[str(n), microseconds(a), microseconds(b), _percent(b / a - 1 if a else 0)] for n, a, b in picked]
    if len(picked) < len(found.epochs):
        rows.insert(6, ["…", "", "", ""])
    return f"{what}\n" + table(["epoch", "backward a, µs a step", "b", "change"], rows)


def _label(layer: str) -> str:
    return layer or "(the whole step)" if layer != "(outside)" else OUTSIDE


def _marked(layer: str) -> str:
    return code(_label(layer)) if layer else "the whole step"


def _percent(change: float) -> str:
    return "new" if change == float("inf") else f"{change:+.1%}"


def _count(value: float) -> str:
    return whole(int(value)) if value == int(value) else f"{value:,.1f}"


def worst(found: list[Change | CountChange]) -> str:
    """Return one line with the changes above the limit."""
    texts = [
        f"{shorten(_label(c.layer), 40)} {c.phase if isinstance(c, Change) else c.what} {_percent(c.change)}"
        for c in found[:5]
    ]
    return ", ".join(texts) + (f" and {len(found) - 5} more" if len(found) > 5 else "")
