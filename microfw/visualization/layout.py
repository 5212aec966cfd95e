"""Layout of a drawing: boxes from the inside out, rows by longest path, long edges in lanes next to the rows.

Values flow along *u*; *v* is across: down and right in a tall drawing, right and down in a wide one. Each box is laid
out separately, as a small graph of ops, leaves and inner boxes. Lines cross the border of a box at ports, which the
layout of the outer box connects. Boxes never overlap, and no function is recursive.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from microfw.visualization.box_layout import LEAF_GAP, LEAF_SPACING, BoxLayout, Point
from microfw.visualization.picture import LeafItem, Picture
from microfw.visualization.rows import Item, Key

Size = tuple[float, float]


@dataclass
class Rect:
    """A rectangle: position and size, along and across."""

    u: float
    v: float
    du: float
    dv: float


@dataclass
class Wire:
    """A line through points. At an op it ends in an arrow, at a border without one."""

    points: list[Point]
    source: int
    arrow: bool
    sideways: bool = False  # from a leaf next to its op


@dataclass
class Layout:
    """Positions of the parts of a picture, by id or index, and the size of the drawing."""

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
        The picture.
    sizes : dict
        Size of each op and leaf, along and across, by id.
    titles : list of float
        Width of the title of each box.
    tall : bool
        Whether values flow downward. Titles are then at the border where values enter a box.
    """
    attached: dict[int, list[LeafItem]] = {op.id: [] for op in picture.ops}
    layouts = [BoxLayout(titles[k] if k else 0.0, tall, len(picture.ops)) for k in range(len(picture.boxes))]
    homes = [op.box for op in picture.ops]
    for leaf in picture.leaves:
        alone = len(leaf.users) == 1
        if alone and leaf.kind == "leaf":  # in a row above, if the op has no other input
            alone = min(picture.ops[leaf.users[0]].inputs) < len(picture.ops)
        if alone:
            attached[leaf.users[0]].append(leaf)
        homes.append(0 if leaf.kind == "leaf" else common(picture, [homes[k] for k in leaf.users]))
        if not alone:
            du, dv = sizes[leaf.id]
            first = leaf.users[0] - 0.5 if leaf.users else 0.0
            layouts[homes[-1]].items["leaf", leaf.id] = Item(du, dv, first, outs={leaf.id: dv / 2})
    for op in picture.ops:
        du, dv = sizes[op.id]
        along = sum(sizes[leaf.id][0] + LEAF_SPACING for leaf in attached[op.id]) - LEAF_SPACING
        across = max((sizes[leaf.id][1] + LEAF_GAP for leaf in attached[op.id]), default=0.0)
        cell = Item(max(du, along), across + dv, op.id, outs={op.id: across + dv / 2}, body=(du, dv))
        layouts[op.box].items["op", op.id] = cell
    connect(picture, homes, {leaf.id for group in attached.values() for leaf in group}, layouts)
    for k in range(len(layouts) - 1, 0, -1):  # inner boxes first: they come after outer ones
        box_layout = layouts[k]
        box_layout.arrange()
        first = min(item.first for item in box_layout.items.values())
        item = Item(box_layout.du, box_layout.dv, first, ins=dict(box_layout.ins), outs=dict(box_layout.outs))
        layouts[picture.boxes[k].parent or 0].items["box", k] = item
    layouts[0].arrange()
    return gather(picture, layouts, sizes, attached)


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


def connect(picture: Picture, homes: list[int], attached: set[int], layouts: list[BoxLayout]) -> None:
    """Cut each edge at the borders that it crosses, and add the segments to the boxes."""
    for op in picture.ops:
        for k, source in enumerate(op.inputs):
            if source in attached:
                continue
            a, b = homes[source], op.box
            tail: Key = ("op" if source < len(picture.ops) else "leaf", source)
            head: Key = ("op", op.id)
            port = k
            top = common(picture, (a, b))
            while b != top:
                layouts[b].wires[None, source, head, port] = None
                head, port, b = ("box", b), source, picture.boxes[b].parent or 0
            while a != top:
                layouts[a].wires[tail, source, None, source] = None
                tail, a = ("box", a), picture.boxes[a].parent or 0
            layouts[top].wires[tail, source, head, port] = None


def gather(
    picture: Picture, layouts: list[BoxLayout], sizes: dict[int, Size], attached: dict[int, list[LeafItem]]
) -> Layout:
    """Convert positions in boxes to positions in the drawing."""
    found = Layout(layouts[0].du, layouts[0].dv)
    found.boxes[0] = Rect(0.0, 0.0, found.du, found.dv)
    for k, box_layout in enumerate(layouts):
        u, v = found.boxes[k].u, found.boxes[k].v
        for (kind, id), item in box_layout.items.items():
            at = Rect(u + item.u, v + item.v, item.du, item.dv)
            if kind == "box":
                found.boxes[id] = at
            elif kind == "leaf":
                found.leaves[id] = at
            else:
                du, dv = item.body
                found.ops[id] = body = Rect(at.u + (at.du - du) / 2, at.v + at.dv - dv, du, dv)
                satellites(found, body, attached[id], sizes)
        for (_, source, head, _), points in box_layout.routes():
            wire = Wire([(u + du, v + dv) for du, dv in points], source, head is not None and head[0] == "op")
            found.wires.append(wire)
    return found


def satellites(found: Layout, body: Rect, leaves: list[LeafItem], sizes: dict[int, Size]) -> None:
    """Place the leaves that only one op uses in a row next to the op."""
    along = sum(sizes[leaf.id][0] + LEAF_SPACING for leaf in leaves) - LEAF_SPACING
    u = body.u + (body.du - along) / 2
    for k, leaf in enumerate(leaves):
        du, dv = sizes[leaf.id]
        found.leaves[leaf.id] = Rect(u, body.v - LEAF_GAP - dv, du, dv)
        end = body.u + body.du * (k + 1) / (len(leaves) + 1)
        if abs(end - u - du / 2) < 1:
            end = u + du / 2
        wire = Wire([(u + du / 2, body.v - LEAF_GAP), (end, body.v)], leaf.id, leaf.kind != "data", sideways=True)
        found.wires.append(wire)
        u += du + LEAF_SPACING
