"""Text of a drawing: safe short labels, the list for a terminal, and DOT for Graphviz."""

from __future__ import annotations

from textwrap import wrap
from unicodedata import combining, east_asian_width

from microfw.visualization.picture import LeafItem, OpItem, Picture

WIDTH = 100
"""Columns of a terminal, as in reports."""


def clean(text: str) -> str:
    r"""Replace all characters that do not print, such as line ends and NUL.

    Examples
    --------
    >>> clean("weight\n\0")
    'weight��'
    """
    return "".join(c if c.isprintable() else "\ufffd" for c in text)


def columns(text: str) -> int:
    """Return the number of columns of a text in a font of fixed width.

    Examples
    --------
    >>> columns("loss"), columns("損失")
    (4, 4)
    """
    return sum(0 if combining(c) else 2 if east_asian_width(c) in "WF" else 1 for c in text)


def short(text: str, width: int) -> str:
    """Return a clean text of at most ``width`` columns, with … in the middle if it was longer.

    Examples
    --------
    >>> short("encoder.layers.11.attention.weight", 20)
    'encoder.la…on.weight'
    """
    text = clean(text)
    if columns(text) <= width:
        return text
    head, tail = "", ""
    for c in text:
        if columns(head + c) > width // 2:
            break
        head += c
    for c in reversed(text):
        if columns(c + tail) > width - width // 2 - 1:
            break
        tail = c + tail
    return f"{head}…{tail}"


def shape(item: OpItem | LeafItem) -> str:
    """Return a shape as text, "scalar" for a single number."""
    return str(item.shape) if item.shape else "scalar"


def terminal(picture: Picture) -> str:
    """Return the list of ops as backward visits them, under their layers, each with its inputs."""
    rows: list[tuple[str, str]] = []
    opened: list[int] = []
    for op in reversed(picture.ops):
        around: list[int] = []
        box: int | None = op.box
        while box:
            around.insert(0, box)
            box = picture.boxes[box].parent
        same = 0
        while same < min(len(opened), len(around)) and opened[same] == around[same]:
            same += 1
        rows += [("  " * k + short(picture.boxes[around[k]].title, 60), "") for k in range(same, len(around))]
        opened = around
        rows.append(("  " * len(around) + f"{op.number} {short(op.name, 40)} {shape(op)}", used(picture, op)))
    width = min(max((columns(left) for left, right in rows if right), default=0), 60)
    lines = [f"{left}{' ' * (width - columns(left))}  {right}" if right else left for left, right in rows]
    lines += [f"{leaf.kind} {short(leaf.name, 60)} {shape(leaf)}" for leaf in picture.leaves if not leaf.users]
    return "\n".join([*lines, *wrap(picture.caption(), WIDTH)])


def used(picture: Picture, op: OpItem) -> str:
    """Return the inputs of an op as text: numbers of ops, names of leaves."""
    n = len(picture.ops)
    parts = []
    for source in op.inputs:
        if source < n:
            parts.append(str(picture.ops[source].number))
        else:
            leaf = picture.leaves[source - n]
            name = f"{short(picture.label(leaf), 40)} {shape(leaf)}"
            parts.append(f"[{name}]" if leaf.kind == "data" else name)
    return "<- " + ", ".join(parts)


def quoted(*lines: str) -> str:
    """Return lines as one string of the DOT language."""
    return '"' + "\\n".join(clean(line).replace("\\", "\\\\").replace('"', '\\"') for line in lines) + '"'


def dot(picture: Picture, tall: bool) -> str:
    """Return DOT for Graphviz. Ops are named n1, n2, … by their numbers, leaves a1, a2, …."""
    out = ["digraph microfw {", f"  rankdir={'TB' if tall else 'LR'};", f"  label={quoted(picture.caption())};"]
    out.append('  node [fontname="monospace", fontsize=11]; edge [arrowsize=0.7]; graph [fontname="sans-serif"];')
    inside: dict[int, list[int]] = {}
    for k, box in enumerate(picture.boxes[1:], 1):
        inside.setdefault(box.parent or 0, []).append(k)
    members: dict[int, list[OpItem]] = {}
    for op in picture.ops:
        members.setdefault(op.box, []).append(op)
    # a stack and no recursion: modules may be nested deeper than Python allows calls
    stack: list[tuple[int, bool]] = [(0, False)]
    while stack:
        k, ended = stack.pop()
        indent = "  " * (picture.boxes[k].depth + 1)
        if ended:
            out.append(indent[2:] + "}")
            continue
        if k:
            out.append(f"{indent[2:]}subgraph cluster_{k} {{")
            out.append(f"{indent}label={quoted(picture.boxes[k].title)}; labeljust=l; style=rounded; color=gray;")
            stack.append((k, True))
        for op in members.get(k, []):
            out.append(f"{indent}n{op.number} [shape=box, label={quoted(f'{op.number} {op.name}', shape(op))}];")
        stack += [(inner, False) for inner in reversed(inside.get(k, []))]
    kinds = {"parameter": "shape=ellipse", "leaf": "shape=hexagon", "data": "shape=plaintext, fontcolor=gray40"}
    n = len(picture.ops)
    for leaf in picture.leaves:
        out.append(f"  a{leaf.id - n + 1} [{kinds[leaf.kind]}, label={quoted(leaf.name, shape(leaf))}];")
    for op in picture.ops:
        for source in op.inputs:
            data = source >= n and picture.leaves[source - n].kind == "data"
            tail = f"n{picture.ops[source].number}" if source < n else f"a{source - n + 1}"
            out.append(f"  {tail} -> n{op.number}{' [style=dotted, arrowhead=none]' if data else ''};")
    return "\n".join([*out, "}", ""])
