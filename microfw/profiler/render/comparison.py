"""A comparison as text and as Markdown."""

from __future__ import annotations

from microfw.errors import printable
from microfw.profiler.compare import Change, Comparison, Count
from microfw.profiler.render.markdown import code
from microfw.profiler.render.names import OUTSIDE
from microfw.profiler.report import _wrap, microseconds, shorten, table, whole

MOST = 30


def comparison(found: Comparison) -> str:
    """Return text of at most 100 columns: the verdict first, then what it rests on."""
    unit = "µs a step" if found.alternated else "share of a step"
    head = ["layer", "", "a", "b", "change", "interval", "verdict"]
    shown = sorted(found.changes, key=lambda c: (not c.real, -max(c.a, c.b)))[:MOST]
    rows = [[shorten(_whose(c.layer), 28), c.phase, *_numbers(found, c)] for c in shown]
    parts = [
        "\n".join(_wrap(f"microfw compare: a = {shorten(found.a, 40)}, b = {shorten(found.b, 40)}")),
        "\n".join(line for text in _verdict(found) for line in _wrap(text)),
    ]
    if found.counts:
        cells = [
            [shorten(_whose(c.layer), 28), c.what, _count(c.a), _count(c.b), _percent(c.change)]
            for c in found.counts[:MOST]
        ]
        parts.append("Counts that differ, in one step (exact)\n" + table(["layer", "", "a", "b", "change"], cells))
    more = f"; the {MOST} largest of {len(found.changes)}" if len(found.changes) > MOST else ""
    parts.append(f"Time ({unit}{more})\n" + table(head, rows, text=True))
    parts.append(_epochs(found))
    return printable("\n\n".join(parts))


def markdown(found: Comparison) -> str:
    """Return the verdict and what really differs, the rest folded away."""
    unit = "µs a step" if found.alternated else "share of a step"
    lines = ["### Backward cost compared", "", *(f"- {text}" for text in _verdict(found, code)), ""]
    if found.counts:
        lines += ["| layer | count | a | b | change |", "| --- | --- | ---: | ---: | ---: |"]
        for c in found.counts:
            lines.append(f"| {_marked(c.layer)} | {c.what} | {_count(c.a)} | {_count(c.b)} | {_percent(c.change)} |")
        lines.append("")
    lines += [f"<details><summary>Times, {unit}</summary>", "", "| layer |  | a | b | change | interval | verdict |"]
    lines.append("| --- | --- | ---: | ---: | ---: | ---: | --- |")
    lines += [f"| {_marked(c.layer)} | {c.phase} | {' | '.join(_numbers(found, c))} |" for c in found.changes]
    return "\n".join([*lines, "", "</details>"]) + "\n"


def _verdict(found: Comparison, name: object = None) -> list[str]:
    say = code if name is code else lambda text: shorten(text, 40)
    texts = []
    real = [c for c in found.changes if c.real]
    for c in sorted(real, key=lambda c: -abs(c.change)):
        whose = f"{say(c.layer)} {c.phase}" if c.layer else f"all of {c.phase}"
        what = ("slower" if c.change > 0 else "faster") if found.alternated else "of a step"
        if found.alternated:
            texts.append(f"Real: {whose} is {abs(c.change):.1%} {what}.")
        else:
            texts.append(f"Real: {whose} takes {c.b:.1%} {what}, before {c.a:.1%} ({_percent(c.change)}).")
    if not real and found.rounds < found.needed:
        texts.append(
            f"Times: nothing can be called real with {found.rounds} epochs; {len(found.changes)} comparisons take "
            f"{found.needed}."
        )
    elif not real:
        texts.append("Times: no real difference.")
    texts.append(
        f"Counts: {len(found.counts)} differ." if found.counts else "Counts: N, P, steps, operations and bytes agree."
    )
    for which, layers in (("a", found.only_a), ("b", found.only_b)):
        if layers:
            more = f" and {len(layers) - 12} more" if len(layers) > 12 else ""
            texts.append(f"Only in {which}: {', '.join(say(layer or OUTSIDE) for layer in layers[:12])}{more}.")
    how = (
        "seconds of alternated runs, round against round"
        if found.alternated
        else "shares of a step, since seconds drift between runs (microfw compare --rerun compares seconds)"
    )
    texts.append(
        f"Compared: {how}; bootstrap intervals of the medians at {found.confidence:.0%} for all "
        f"{len(found.changes)} together; a change counts from {found.least:.0%} on."
    )
    return texts


def _numbers(found: Comparison, c: Change) -> list[str]:
    write = microseconds if found.alternated else "{:.1%}".format
    verdict = ("more" if c.change > 0 else "less") if c.real else "within noise"
    return [write(c.a), write(c.b), _percent(c.change), f"{_percent(c.low)} to {_percent(c.high)}", verdict]


def _epochs(found: Comparison) -> str:
    what = "Rounds" if found.alternated else "Epochs (seconds drift between runs: to look at, not to judge by)"
    picked = found.epochs if len(found.epochs) <= 12 else [*found.epochs[:6], *found.epochs[-6:]]
    rows = [[str(n), microseconds(a), microseconds(b), _percent(b / a - 1 if a else 0)] for n, a, b in picked]
    if len(picked) < len(found.epochs):
        rows.insert(6, ["…", "", "", ""])
    return f"{what}\n" + table(["epoch", "backward a, µs a step", "b", "change"], rows)


def _whose(layer: str) -> str:
    return layer or "(the whole step)" if layer != "(outside)" else OUTSIDE


def _marked(layer: str) -> str:
    return code(_whose(layer)) if layer else "the whole step"


def _percent(change: float) -> str:
    return "new" if change == float("inf") else f"{change:+.1%}"


def _count(value: float) -> str:
    return whole(int(value)) if value == int(value) else f"{value:,.1f}"


def worst(found: list[Change | Count]) -> str:
    """Say in a line what grew too much."""
    texts = [
        f"{shorten(_whose(c.layer), 40)} {c.phase if isinstance(c, Change) else c.what} {_percent(c.change)}"
        for c in found[:5]
    ]
    return ", ".join(texts) + (f" and {len(found) - 5} more" if len(found) > 5 else "")
