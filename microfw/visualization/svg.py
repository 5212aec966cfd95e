"""Drawing as SVG text, without dependencies or scripts.

Ops are rectangles with their number in a strip at the left; parameters have round ends, other leaves pointed ends, and
data a dashed border. Colours repeat the meaning of shapes. Text has the colour of the surrounding page; a separate file
has a background, light or dark by the system setting.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from itertools import pairwise

from microfw.visualization.layout import Layout, Rect, Wire, place
from microfw.visualization.picture import LeafItem, OpItem, Picture
from microfw.visualization.text import clean, columns, shape, short

EM = 0.61
"""Width of a letter in units of the font size, for the widest of the fonts below."""
FONT = "ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace"
BIG, SMALL = 13.0, 11.0
MARGIN = 16.0
OP_HEIGHT, LEAF_HEIGHT = 42.0, 24.0
MIN_CAPTION = 440.0
"""Minimum width of the caption."""

STYLE = """
.microfw-drawing{font-family:%(font)s;font-size:11px;fill:currentColor}
.microfw-drawing .op rect{fill:#3f7fd0;fill-opacity:.13;stroke:#3f7fd0;stroke-width:1.5}
.microfw-drawing .op .strip{fill-opacity:.3;stroke:none}
.microfw-drawing .name{font-size:13px;font-weight:600}
.microfw-drawing .parameter rect{fill:#c9820a;fill-opacity:.14;stroke:#c9820a;stroke-width:1.3}
.microfw-drawing .leaf path{fill:#1f9463;fill-opacity:.14;stroke:#1f9463;stroke-width:1.3}
.microfw-drawing .data rect{fill:#888;fill-opacity:.07;stroke:#888;stroke-dasharray:3 3}
.microfw-drawing .data text{fill-opacity:.75}
.microfw-drawing .layer rect{fill:#888;fill-opacity:.06;stroke:#888;stroke-opacity:.55}
.microfw-drawing .layer text{font-weight:600;fill-opacity:.8}
.microfw-drawing .wire{fill:none;stroke:#888;stroke-width:1.4}
.microfw-drawing .dashed{stroke-dasharray:3 3}
.microfw-drawing .tip{fill:#888}
""".replace("%(font)s", FONT)

ALONE = """
.microfw-drawing{color:#1c2127}
.microfw-drawing .page{fill:#fff}
@media (prefers-color-scheme:dark){.microfw-drawing{color:#e4e7eb}.microfw-drawing .page{fill:#16191d}}
"""


def svg(picture: Picture, tall: bool, alone: bool) -> str:
    """Return SVG text: ``alone`` for a file, else for a page with its own colours."""
    sizes = {op.id: op_size(op) for op in picture.ops} | {leaf.id: leaf_size(picture, leaf) for leaf in picture.leaves}
    titles = [columns(short(box.title, 44)) * SMALL * EM for box in picture.boxes]
    along = {id: (h, w) if tall else (w, h) for id, (w, h) in sizes.items()}
    found = place(picture, along, titles, tall)
    width, height = (found.dv, found.du) if tall else (found.du, found.dv)
    lines = wrap(picture.caption(), max(width, MIN_CAPTION))
    page = max(width, max(columns(line) for line in lines) * SMALL * EM)
    draw = Pen(picture, tall, MARGIN + (page - width) / 2, MARGIN)
    body = [draw.box(k, found) for k in range(1, len(picture.boxes))]
    body += [draw.wire(wire) for wire in found.wires]
    body += [draw.op(op, found.ops[op.id]) for op in picture.ops]
    body += [draw.leaf(leaf, found.leaves[leaf.id]) for leaf in picture.leaves]
    top = MARGIN + height + 26
    body += [text(MARGIN, top + 16 * k, line, "caption") for k, line in enumerate(lines)]
    w, h = page + 2 * MARGIN, top + 16 * (len(lines) - 1) + MARGIN
    name = f"Graph of one step: {len(picture.ops):,} {picture.unit} nodes"
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="microfw-drawing" role="img" aria-label="{name}" '
        f'width="{w:.0f}" height="{h:.0f}" viewBox="0 0 {w:.0f} {h:.0f}">'
    )
    style = f"<style>{STYLE}{ALONE if alone else ''}</style>"
    ground = [f'<rect class="page" width="{w:.0f}" height="{h:.0f}"/>'] if alone else []
    return "\n".join([head, style, *ground, *body, "</svg>", ""])


def op_size(op: OpItem) -> tuple[float, float]:
    """Return width and height of an op."""
    wide = max(columns(short(op.name, 28)) * BIG, columns(shape(op)) * SMALL) * EM
    return max(strip(op) + wide + 20, 96.0), OP_HEIGHT


def strip(op: OpItem) -> float:
    """Return the width of the strip with the number of an op."""
    return len(f"{op.number}") * BIG * EM + 14


def leaf_size(picture: Picture, leaf: LeafItem) -> tuple[float, float]:
    """Return width and height of a leaf."""
    return columns(leaf_text(picture, leaf)) * SMALL * EM + 28, LEAF_HEIGHT


def leaf_text(picture: Picture, leaf: LeafItem) -> str:
    """Return the text of a leaf."""
    return f"{short(picture.label(leaf), 32)} {shape(leaf)}"


def wrap(content: str, width: float) -> list[str]:
    """Break a text into lines of at most a width."""
    lines = [""]
    for word in content.split(" "):
        if lines[-1] and columns(f"{lines[-1]} {word}") * SMALL * EM > width:
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


def text(x: float, y: float, content: str, kind: str = "", middle: bool = False) -> str:
    """Return a line of text."""
    kind = f' class="{kind}"' if kind else ""
    anchor = ' text-anchor="middle"' if middle else ""
    return f'<text x="{x:.1f}" y="{y:.1f}"{kind}{anchor}>{escape(clean(content))}</text>'


@dataclass
class Pen:
    """Writes the parts of a drawing; converts positions along and across to x and y."""

    picture: Picture
    tall: bool
    x: float
    y: float

    def point(self, u: float, v: float) -> tuple[float, float]:
        """Return x and y of a point."""
        return (self.x + v, self.y + u) if self.tall else (self.x + u, self.y + v)

    def corners(self, rect: Rect) -> tuple[float, float, float, float]:
        """Return left, top, width and height."""
        x, y = self.point(rect.u, rect.v)
        return (x, y, rect.dv, rect.du) if self.tall else (x, y, rect.du, rect.dv)

    def box(self, k: int, found: Layout) -> str:
        """Draw the box of a layer."""
        x, y, w, h = self.corners(found.boxes[k])
        title = self.picture.boxes[k].title
        rect = f'<rect x="{x:.1f}" y="{y:.1f}" width="{w:.1f}" height="{h:.1f}" rx="6"/>'
        return group("layer", title, rect, text(x + 12, y + 15, short(title, 44)))

    def op(self, op: OpItem, rect: Rect) -> str:
        """Draw an op: its number, its name, and the shape of its output."""
        x, y, w, h = self.corners(rect)
        n = strip(op)
        layer = self.picture.layer(op)
        tip = (
            f"{op.name}{f' in {layer}' if layer else ''}: output {shape(op)}; backward visits it as number {op.number}"
        )
        tip += f"; {op.saved:,} bytes saved for backward" if op.saved else ""
        middle = x + n + (w - n) / 2
        return group(
            "op",
            tip,
            f'<rect class="strip" x="{x:.1f}" y="{y:.1f}" width="{n:.1f}" height="{h:.1f}"/>',
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{w:.1f}" height="{h:.1f}"/>',
            text(x + n / 2, y + h / 2 + 4.5, str(op.number), "name number", middle=True),
            text(middle, y + 18, short(op.name, 28), "name", middle=True),
            text(middle, y + 33, shape(op), middle=True),
        )

    def leaf(self, leaf: LeafItem, rect: Rect) -> str:
        """Draw a leaf."""
        x, y, w, h = self.corners(rect)
        if leaf.kind == "leaf":
            outline = (
                f'<path d="M{x:.1f} {y + h / 2:.1f}l10 {-h / 2}h{w - 20:.1f}l10 {h / 2}l-10 {h / 2}h{20 - w:.1f}z"/>'
            )
        else:
            round_ = h / 2 if leaf.kind == "parameter" else 0
            outline = f'<rect x="{x:.1f}" y="{y:.1f}" width="{w:.1f}" height="{h:.1f}" rx="{round_}"/>'
        what = {"parameter": "parameter", "leaf": "leaf that gets a gradient", "data": "data, saved for backward"}
        tip = f"{leaf.name}: {what[leaf.kind]}, {shape(leaf)}"
        return group(leaf.kind, tip, outline, text(x + w / 2, y + 16, leaf_text(self.picture, leaf), middle=True))

    def wire(self, wire: Wire) -> str:
        """Draw a line, and its arrow."""
        points = [self.point(*p) for p in wire.points]  # markers for arrows would need ids, which clash in a notebook
        down = self.tall != wire.sideways
        x, y = points[-1]
        tip = ""
        if wire.arrow:
            points[-1] = (x, y - 6) if down else (x - 6, y)
            tip = f'<path class="tip" d="M{x:.1f} {y:.1f}' + ("l-4 -8h8z" if down else "l-8 -4v8z") + '"/>'
        d = f"M{points[0][0]:.1f} {points[0][1]:.1f}"
        for (x0, y0), (x1, y1) in pairwise(points):
            if abs(x0 - x1) < 0.05 or abs(y0 - y1) < 0.05:
                d += f"L{x1:.1f} {y1:.1f}"
            elif down:
                middle = (y0 + y1) / 2
                d += f"C{x0:.1f} {middle:.1f} {x1:.1f} {middle:.1f} {x1:.1f} {y1:.1f}"
            else:
                middle = (x0 + x1) / 2
                d += f"C{middle:.1f} {y0:.1f} {middle:.1f} {y1:.1f} {x1:.1f} {y1:.1f}"
        dashed = "" if wire.arrow or not wire.sideways else " dashed"
        return f'<path class="wire{dashed}" d="{d}"/>{tip}'


def group(kind: str, tip: str, *parts: str) -> str:
    """Return a group of parts with a tooltip."""
    return f'<g class="{kind}"><title>{escape(clean(tip))}</title>{"".join(parts)}</g>'
