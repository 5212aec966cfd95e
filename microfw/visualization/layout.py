"""Where everything goes: boxes of layers from the inside out, rows by longest path, long edges in lanes beside them.

Values flow along *u*, and *v* runs across: down and right in a tall drawing, right and down in a wide one. Each
box is laid out on its own, as a small graph of ops, leaves and smaller boxes. What flows in or out crosses its
border at a port, to which the box around it leads. So boxes never overlap, and nothing here is recursive.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from microfw.visualization.box_layout import BESIDE, STACK, Level, Point
from microfw.visualization.picture import LeafItem, Picture
from microfw.visualization.rows import Item, Key

Size = tuple[float, float]


@dataclass
class Rect:
    """A rectangle: where it begins and how far it goes, along and across."""

    u: float
    v: float
    du: float
    dv: float


@dataclass
class Wire:
    """A line through points that ends in an arrow at an op, or at a border without one."""

    points: list[Point]
    source: int
    arrow: bool
    sideways: bool = False  # from a leaf that stands beside its op


@dataclass
class Layout:
    """The places of a picture's parts, each by its id or index, and the size of the whole."""

    du: float = 0.0
    dv: float = 0.0
    ops: dict[int, Rect] = field(default_factory=dict)
    leaves: dict[int, Rect] = field(default_factory=dict)
    boxes: dict[int, Rect] = field(default_factory=dict)
    wires: list[Wire] = field(default_factory=list)


def place(picture: Picture, sizes: dict[int, Size], titles: list[float], tall: bool) -> Layout:
    """Lay out a picture.

    Parameters
    ----------
    picture : Picture
        What to lay out.
    sizes : dict
        Of each op and leaf, along and across, by id.
    titles : list of float
        The width of each box's title.
    tall : bool
        Whether values flow downward, so that titles stand where they enter a box.
    """
    beside: dict[int, list[LeafItem]] = {op.id: [] for op in picture.ops}
    levels = [Level(titles[k] if k else 0.0, tall, len(picture.ops)) for k in range(len(picture.boxes))]
    homes = [op.box for op in picture.ops]
    for leaf in picture.leaves:
        alone = len(leaf.users) == 1
        if alone and leaf.kind == "leaf":  # on top, where it is all that comes in
            alone = min(picture.ops[leaf.users[0]].inputs) < len(picture.ops)
        if alone:
            beside[leaf.users[0]].append(leaf)
        homes.append(0 if leaf.kind == "leaf" else common(picture, [homes[k] for k in leaf.users]))
        if not alone:
            du, dv = sizes[leaf.id]
            first = leaf.users[0] - 0.5 if leaf.users else 0.0
            levels[homes[-1]].items["leaf", leaf.id] = Item(du, dv, first, outs={leaf.id: dv / 2})
    for op in picture.ops:
        du, dv = sizes[op.id]
        along = sum(sizes[leaf.id][0] + STACK for leaf in beside[op.id]) - STACK
        across = max((sizes[leaf.id][1] + BESIDE for leaf in beside[op.id]), default=0.0)
        cell = Item(max(du, along), across + dv, op.id, outs={op.id: across + dv / 2}, body=(du, dv))
        levels[op.box].items["op", op.id] = cell
    connect(picture, homes, {leaf.id for group in beside.values() for leaf in group}, levels)
    for k in range(len(levels) - 1, 0, -1):  # boxes come after those around them
        level = levels[k]
        level.arrange()
        first = min(item.first for item in level.items.values())
        item = Item(level.du, level.dv, first, ins=dict(level.ins), outs=dict(level.outs))
        levels[picture.boxes[k].parent or 0].items["box", k] = item
    levels[0].arrange()
    return gather(picture, levels, sizes, beside)


def common(picture: Picture, boxes: Iterable[int]) -> int:
    """Return the innermost box around all of these."""
    first, *rest = dict.fromkeys(boxes) or [0]
    for other in rest:
        while first != other:
            if picture.boxes[first].depth >= picture.boxes[other].depth:
                first = picture.boxes[first].parent or 0
            else:
                other = picture.boxes[other].parent or 0
    return first


def connect(picture: Picture, homes: list[int], beside: set[int], levels: list[Level]) -> None:
    """Cut each edge at the borders that it crosses, and give each box its stretch."""
    for op in picture.ops:
        for k, source in enumerate(op.inputs):
            if source in beside:
                continue
            a, b = homes[source], op.box
            tail: Key = ("op" if source < len(picture.ops) else "leaf", source)
            head: Key = ("op", op.id)
            port = k
            top = common(picture, (a, b))
            while b != top:
                levels[b].wires[None, source, head, port] = None
                head, port, b = ("box", b), source, picture.boxes[b].parent or 0
            while a != top:
                levels[a].wires[tail, source, None, source] = None
                tail, a = ("box", a), picture.boxes[a].parent or 0
            levels[top].wires[tail, source, head, port] = None


def gather(picture: Picture, levels: list[Level], sizes: dict[int, Size], beside: dict[int, list[LeafItem]]) -> Layout:
    """Move everything from its place in a box to its place in the drawing."""
    found = Layout(levels[0].du, levels[0].dv)
    found.boxes[0] = Rect(0.0, 0.0, found.du, found.dv)
    for k, level in enumerate(levels):
        u, v = found.boxes[k].u, found.boxes[k].v
        for (kind, id), item in level.items.items():
            at = Rect(u + item.u, v + item.v, item.du, item.dv)
            if kind == "box":
                found.boxes[id] = at
            elif kind == "leaf":
                found.leaves[id] = at
            else:
                du, dv = item.body
                found.ops[id] = body = Rect(at.u + (at.du - du) / 2, at.v + at.dv - dv, du, dv)
                satellites(found, body, beside[id], sizes)
        for (_, source, head, _), points in level.routes():
            wire = Wire([(u + du, v + dv) for du, dv in points], source, head is not None and head[0] == "op")
            found.wires.append(wire)
    return found


def satellites(found: Layout, body: Rect, leaves: list[LeafItem], sizes: dict[int, Size]) -> None:
    """Place the leaves that only one op uses in a row beside it."""
    along = sum(sizes[leaf.id][0] + STACK for leaf in leaves) - STACK
    u = body.u + (body.du - along) / 2
    for k, leaf in enumerate(leaves):
        du, dv = sizes[leaf.id]
        found.leaves[leaf.id] = Rect(u, body.v - BESIDE - dv, du, dv)
        end = body.u + body.du * (k + 1) / (len(leaves) + 1)
        if abs(end - u - du / 2) < 1:
            end = u + du / 2
        wire = Wire([(u + du / 2, body.v - BESIDE), (end, body.v)], leaf.id, leaf.kind != "data", sideways=True)
        found.wires.append(wire)
        u += du + STACK
