"""Sentences about numbers of a profile that surprise."""

from __future__ import annotations

from microfw.profiler.reports.tables import Line
from microfw.profiler.reports.text import shorten


def remarks(lines: list[Line]) -> list[str]:
    """Return sentences about one step: the largest part of backward first, with what to try.

    Parameters
    ----------
    lines : list of Line
        Layers, the untagged time and the total.
    """
    *layers, untagged, total = lines
    if not layers or not total.backward_ns:
        return []
    top = max(layers, key=lambda line: line.backward_ns)
    share, name = f"{top.share:.0%} of backward", shorten(top.title, 22)
    if untagged.share > top.share:
        text = f"The engine takes {untagged.share:.0%} of backward, {name} {share}: calls cost more than arithmetic; "
        found = [text + "a larger batch does more work for each call."]
    elif top.P or top.own.varies:
        found = [f"{name} takes {share}: give it fewer outputs, or requires_grad_(False)."]
    else:
        found = [f"{name} takes {share} without parameters: make its input or the batch smaller."]
    # Without a node nothing is differentiated: the layer is frozen, and its backward time is 0.
    cheap = [line for line in layers if line.nodes and line.saved_bytes and line.backward_ns < line.forward_ns / 10]
    for line in cheap[:1]:
        found.append(f"{shorten(line.title, 22)}: forward prepares the local derivative; backward reads it.")
    most = max(layers, key=lambda line: line.flops_backward)
    slow = max(layers, key=lambda line: line.backward_ns / (line.flops_backward or 1) * (line.share >= 0.1))
    if slow.backward_ns * most.flops_backward > 3 * most.backward_ns * slow.flops_backward > 0:
        found.append(
            f"{shorten(slow.title, 22)} takes {slow.backward_ns / most.backward_ns:.0%} of the time of "
            f"{shorten(most.title, 22)} with {slow.flops_backward / most.flops_backward:.1%} of its operations: "
            "each NumPy call costs time before its arithmetic begins."
        )
    return found
