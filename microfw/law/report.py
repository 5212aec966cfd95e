"""Text report of the law, at most 100 columns wide."""

from __future__ import annotations

from collections.abc import Callable

from microfw.errors import printable
from microfw.law.data import Law, huge
from microfw.law.measure import StrategyResult
from microfw.profiler.node_count import NodeCount
from microfw.profiler.reports.names import OUTSIDE_LABEL
from microfw.profiler.reports.text import ratio_report, short, shorten, table, whole, wrap_lines

MAX_DIFFERENCE = 1e-6
"""The report explains a relative difference above this."""

QUANTITIES = {"operations": "scalar operations", "rules": "rule calls"}
"""Names of quantities in a table."""

LEGEND = (
    "Rule calls: calls of derivative rules. Losses: forward evaluations. "
    "Scalar ops: in the rules and in repeated forward evaluations, by each op's cost rule; a tangent costs "
    "as much as the gradient of the same input. Seconds: on tensors with the forward evaluations, on scalars "
    "the backward pass only. Peak: memory by tracemalloc in a separate run, on scalars without the graph. "
    "Difference: the largest from backprop, relative to the largest entry of the gradient. ±: up to the end of "
    "the 95 % interval, if the number is extrapolated from a random sample of each layer's parameters."
)
"""Explanation of the columns in the table of strategies."""


def law_report(law: Law) -> str:
    """Return the report of the law on one model."""
    parts = [
        "\n".join(wrap_lines(f"microfw law: {title(law)}")),
        _counts(law),
        _strategies(law),
        ratio_report(law.ratio),
        _layers(law),
    ]
    if law.note:
        parts.append("\n".join(wrap_lines(law.note[0].upper() + law.note[1:] + ".")))
    return printable("\n\n".join(parts))


def title(law: Law) -> str:
    """Return the model, the data, the dtype and the loss, as text."""
    rows = "1 row" if law.rows == 1 else f"{law.rows:,} rows"
    of = f" of {law.name}" if law.name else ""
    return f"{law.model}, on {rows}{of}, in float64, loss {law.loss:.6g}"


def count_rows(law: Law, batch: bool = False) -> list[list[str]]:
    """Return rows of counts: name, in tensors, in scalars, meaning. ``batch``: add a column for a batch, in scalars."""
    columns = [law.count("tensors"), law.count("scalars"), *([law.count("scalars", batch=True)] if batch else [])]
    known = [c for c in columns if c is not None]

    def row(name: str, cell: object, meaning: str) -> list[str]:
        return [name, *("" if c is None else cell(c) for c in columns), meaning]  # type: ignore[operator]

    def optional(name: str) -> Callable[[NodeCount], str]:
        return lambda c: "" if getattr(c, name) is None else whole(getattr(c, name))

    lost = any(c.unreached for c in known)
    return [
        row("N", lambda c: whole(c.N), "nodes: ops; operations on numbers"),
        *([row("  not reached", lambda c: whole(c.unreached), "of these: not used by the loss")] if lost else []),
        row("P", lambda c: whole(c.P), "parameters: trainable arrays; numbers"),
        row("N + P", lambda c: whole(c.N + c.P), ""),
        row("steps", lambda c: whole(c.steps), "of backprop: sum of the next two rows"),
        row("  rules", lambda c: whole(c.rules), "derivative rules called"),
        row("  added", lambda c: whole(c.accumulated), "gradients added into parameters"),
        row("steps / (N + P)", lambda c: f"{c.steps / (c.N + c.P):.3f}", ""),
        row("N x P", lambda c: whole(c.N * c.P), "most visits, each P alone (predicted)"),
        row("E", optional("E"), "edges: inputs that need a gradient"),
        row("operations", optional("operations"), "FLOP, forward and backward"),
    ]


def reuse(law: Law) -> str:
    """Return a sentence on steps against N + P for a batch, if it has more rows than the strategies use."""
    c = law.count("scalars", batch=True)
    if c is None or law.batch <= law.rows:
        return ""
    now, limit = f"{c.steps / (c.N + c.P):.2f}", f"{c.steps / c.N:.2f}"
    more = f" With more rows this approaches {limit}: N grows as the additions do." if now != limit else ""
    return (
        f"With {law.batch} rows, P stays {whole(c.P)}, but each row adds gradients into the parameters that it uses: "
        f"{whole(c.accumulated)} additions. So backprop takes {now} times N + P steps.{more}"
    )


def bound(law: Law) -> str:
    """Return a sentence that compares the bound N x P with the counted cost."""
    scalars = law.count("scalars")
    if scalars is None or len(law.ways) < 5:
        return ""
    chain = law.way("chain rule per parameter")
    spent = chain.rules or 0
    about = ""
    if chain.extrapolated:
        low, high = chain.intervals.get("rules", (spent, spent))
        about = f" (extrapolated, {whole(round(low))} to {whole(round(high))})"
    return (
        "N x P is an upper bound on the visits of the chain rule. The chain rule for each parameter called "
        f"{whole(spent)} rules{about}: "
        f"{spent / (scalars.N * scalars.P):.1%} of N x P, {spent / scalars.steps:,.1f} times the steps of backprop. "
        f"A recursion without an order of nodes follows each of the {huge(law.paths or 0)} paths from the loss to the "
        "parameters, and visits a node once for each path to it; in fully connected layers the number of paths grows "
        "with the product of the widths."
    )


def _counts(law: Law) -> str:
    batch = bool(law.batch_counts) and law.batch != law.rows
    scalars = [f"scalars, {n} row{'s' if n > 1 else ''}" for n in ([law.rows, law.batch] if batch else [law.rows])]
    head = ["", "in tensors", *scalars, "what is counted"]
    lines = ["Counts", table(head, count_rows(law, batch), text=True)]
    return "\n".join([*lines, *wrap_lines(reuse(law)), *wrap_lines(bound(law))])


def _strategies(law: Law) -> str:
    rows: list[list[str]] = []
    graph = ""
    for w in law.ways:
        if w.graph != graph:
            graph = w.graph
            rows.append([f"on the graph of {graph}"] + [""] * 6)
        rows.append(_strategy_row(w))
        if w.extrapolated:
            rows.append([f"    extrapolated from {w.done:,} of {w.of:,}", *_margins(w), "", ""])
    head = ["strategy", "rule calls", "losses", "scalar ops", "seconds", "peak", "difference"]
    lines = [f"Strategies for the same gradient, with a budget of {law.budget:g} s each", table(head, rows)]
    lines += [wrapped for w in law.ways if w.note for wrapped in wrap_lines(f"{w.name}: {w.note}.")]
    different = [w.name for w in law.ways if (w.difference or 0) > MAX_DIFFERENCE]
    if different:
        lines += wrap_lines(
            f"The difference of {', '.join(different)} is above {MAX_DIFFERENCE:.0e}. Either a kink is near, such as "
            "that of ReLU at 0, or a derivative rule is wrong; mf.gradcheck checks the rules."
        )
    lines += wrap_lines(LEGEND)
    return "\n".join(lines)


def margins(w: StrategyResult) -> dict[str, float]:
    """Return how far the interval of each extrapolated number reaches above it.

    Below it, the interval ends at what is counted, if not before.
    """
    return {what: high - getattr(w, what) for what, (_, high) in w.intervals.items()}


def _margins(w: StrategyResult) -> list[str]:
    """Return the margins of rules, losses, operations and seconds."""
    half = margins(w)
    return [
        f"± {whole(round(half['rules']))}" if "rules" in half else "",
        "",
        f"± {short(half['operations'])}" if "operations" in half else "",
        f"± {half['seconds']:.1e}" if "seconds" in half else "",
    ]


def _strategy_row(w: StrategyResult) -> list[str]:
    if w.rules is None:
        return [f"  {w.name}", "not run", *[""] * 5]
    return [
        f"  {w.name}",
        whole(w.rules),
        f"{w.forwards:,}",
        short(w.operations or 0),
        f"{w.seconds:.2e}" if (w.seconds or 0) < 1e-2 else f"{w.seconds:.3f}",
        size(w.peak_bytes or 0),
        f"{w.difference or 0:.0e}" if w.difference else "0",
    ]


def _layers(law: Law) -> str:
    rows = []
    for layer in law.layers:
        both = layer.forward + layer.backward
        rows.append(
            [
                shorten(f"{layer.layer} {layer.kind}".strip() or OUTSIDE_LABEL, 24),
                f"{layer.parameters:,}" if layer.parameters else "",
                f"{layer.forward:,}",
                f"{layer.backward:,}",
                f"{both / layer.used / law.rows:,.2f}" if layer.used else "",
                f"{layer.uses / layer.used / law.rows:,.2f}" if layer.used and layer.uses else "",
            ]
        )
    head = ["layer", "P", "forward ops", "backward ops", "ops per P and row", "uses per P and row"]
    text = "Layers: cost of a parameter, and how often one row uses it\n" + table(head, rows)
    return text


def size(count: int) -> str:
    """Format a number of bytes.

    Examples
    --------
    >>> size(800), size(12_345), size(12_345_678)
    ('0.8 kB', '12.3 kB', '12.3 MB')
    """
    return f"{count / 1e3:,.1f} kB" if count < 1e6 else f"{count / 1e6:,.1f} MB"
