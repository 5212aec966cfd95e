"""One box of a drawing: where its items and the lines between them run."""

from __future__ import annotations

from collections.abc import Iterator

from microfw.visualization.rows import APART, Item, Key, Stretch, order, rank, spread

Point = tuple[float, float]

BESIDE = 26.0
"""Between an op and the leaves beside it."""
STACK = 6.0
"""Between those leaves."""
LANE = 16.0
"""Between a lane and what it passes."""
PAD = 12.0
"""Between a box's border and what is in it, across."""
TITLE = 22.0
"""The height of a box's title."""


class Level:
    """A box: items in rows, and the stretches of edges that run in it."""

    def __init__(self, title: float, tall: bool, ops: int) -> None:
        self.title = title
        self.tall = tall
        self.ops = ops  # values below this are ops', the others leaves'
        self.items: dict[Key, Item] = {}
        self.wires: dict[Stretch, None] = {}
        self.ins: dict[int, float] = {}
        self.outs: dict[int, float] = {}
        self.lanes: dict[tuple[Key | None, int], float] = {}
        self.rows: list[list[Key]] = []
        self.du = self.dv = 0.0

    def arrange(self) -> None:
        """Place everything, once all items have their sizes."""
        self.rows = order(rank(self.items, self.wires), self.items, self.wires)
        self.space_ports()
        self.align()
        self.route()
        self.stack()
        self.frame()

    def ends(self, wire: Stretch) -> tuple[int, int]:
        """Return the rows that a stretch runs between: -1 is the near border, the number of rows the far one."""
        tail, _, head, _ = wire
        return (-1 if tail is None else self.items[tail].row, len(self.rows) if head is None else self.items[head].row)

    # Across

    def space_ports(self) -> None:
        """Spread the lines into an op over its border, in the order of where they come from."""
        place = {key: k for row in self.rows for k, key in enumerate(row)}
        coming: dict[Key, list[tuple[bool, int, int, Key | None]]] = {}
        for wire in self.wires:
            tail, value, head, port = wire
            if head is not None:
                a, b = self.ends(wire)
                far = b - a > 1 or (tail is None and value >= self.ops)
                coming.setdefault(head, []).append((far, -1 if tail is None else place[tail], port, tail))
        self.mains: dict[Key, Key | None] = {}
        for head, ports in coming.items():
            ports.sort(key=lambda port: port[:3])
            near = [k for k, port in enumerate(ports) if not port[0]]
            depth = [self.items[tail].depth if (tail := ports[k][3]) is not None else -1 for k in near]
            if len(near) > 1 and depth.count(max(depth)) == 1:  # the longest way stays straight
                first = float(near[depth.index(max(depth))])
                self.mains[head] = ports[int(first)][3]
            else:  # lines from the row above meet around the middle, lanes come in beside them
                first = max(len(near) - 1, 0) / 2
            if head[0] == "op":
                item = self.items[head]
                half = item.body[1] / 2
                step = min(18.0, (half - 8) / max(len(ports) - 1 - first, first, 1))
                for k, (_, _, port, _) in enumerate(ports):
                    item.ins[port] = item.dv - half + (k - first) * step

    def align(self) -> None:
        """Move items across so that lines are straight where they can be, rows keeping their order."""
        near: dict[Key, list[tuple[Key, float, int]]] = {key: [] for key in self.items}
        for wire in self.wires:
            tail, value, head, port = wire
            if tail is not None and head is not None:
                a, b = self.ends(wire)
                shift = self.items[tail].outs[value] - self.items[head].ins[port]
                if b == a + 1:
                    if self.mains.get(head, tail) == tail:
                        near[head].append((tail, shift, -1))
                    near[tail].append((head, -shift, 1))
        for row in self.rows:
            v = -sum(self.items[key].dv + APART for key in row) / 2
            for key in row:
                self.items[key].v = v
                v += self.items[key].dv + APART
        for side in (-1, 1, -1, 1, -1):
            for row in self.rows[::-side]:
                wishes = []
                for key in row:
                    found = [self.items[other].v + shift for other, shift, at in near[key] if at == side]
                    wishes.append(sum(found) / len(found) if found else self.items[key].v)
                spread(row, wishes, self.items)

    def route(self) -> None:
        """Give each value that passes a row a lane beside it, the short ones nearest; then place the ports."""
        edge = [max(self.items[key].v + self.items[key].dv for key in row) for row in self.rows]
        reach: dict[tuple[Key | None, int], list[int]] = {}
        for wire in self.wires:
            a, b = self.ends(wire)
            if b - a > 1:
                span = reach.setdefault((wire[0], wire[1]), [a + 1, b])
                span[1] = max(span[1], b)
        for net, (a, b) in sorted(reach.items(), key=lambda pair: pair[1][1] - pair[1][0]):
            self.lanes[net] = lane = max(edge[a:b]) + LANE
            edge[a:b] = [lane] * (b - a)
        for wire in self.wires:
            tail, value, head, port = wire
            a, b = self.ends(wire)
            lane = self.lanes.get((tail, value), 0.0)
            if tail is None and (b == 0 or value not in self.ins):
                if b > 0:
                    self.ins[value] = lane
                elif head is not None and (value not in self.ins or self.ins[value] == lane):
                    self.ins[value] = self.items[head].v + self.items[head].ins[port]
            if head is None and tail is not None:
                self.outs[value] = lane if b - a > 1 else self.items[tail].v + self.items[tail].outs[value]

    def across(self, wire: Stretch) -> list[float]:
        """Return where a stretch is, across: at its beginning, in its lane if it has one, and at its end."""
        tail, value, head, port = wire
        a, b = self.ends(wire)
        start = self.ins[value] if tail is None else self.items[tail].v + self.items[tail].outs[value]
        end = self.outs[value] if head is None else self.items[head].v + self.items[head].ins[port]
        return [start, self.lanes[tail, value], end] if b - a > 1 else [start, end]

    # Along

    def stack(self) -> None:
        """Place the rows one after the other, further apart where lines have far to go across."""
        bends = [-1.0] * (len(self.rows) + 1)  # in the gap before each row, and after the last; -1: no line
        for wire in self.wires:
            a, b = self.ends(wire)
            vs = self.across(wire)
            bends[a + 1] = max(bends[a + 1], abs(vs[1] - vs[0]))
            bends[b] = max(bends[b], abs(vs[-1] - vs[-2]))
        gaps = []
        for k, bend in enumerate(bends):
            border = k in (0, len(self.rows))
            gaps.append((10.0 if border else 16.0) if bend < 0 else (18.0 if border else 26.0))
            gaps[-1] += 8 + min(50.0, 0.07 * bend) if bend > 0.5 else 0.0
        if self.tall:
            gaps[0] += TITLE if self.title else 0.0
        else:
            short = self.title + 2 * PAD - sum(gaps) - sum(max(self.items[k].du for k in row) for row in self.rows)
            gaps[0] += max(short, 0.0) / 2
            gaps[-1] += max(short, 0.0) / 2
        self.tops, self.bottoms = [], [TITLE if self.tall and self.title else 0.0]
        u = 0.0
        for row, gap in zip(self.rows, gaps, strict=False):
            u += gap
            deep = max(self.items[key].du for key in row)
            for key in row:
                self.items[key].u = u + (deep - self.items[key].du) / 2
            self.tops.append(u)
            u += deep
            self.bottoms.append(u)
        self.du = u + gaps[-1]
        self.tops.append(self.du)

    def frame(self) -> None:
        """Draw the border: room for the title, which no line may enter through."""
        low = min([item.v for item in self.items.values()] + list(self.ins.values()))
        high = max([item.v + item.dv for item in self.items.values()] + list(self.lanes.values()))
        shift = (PAD if self.title else 0.0) - low
        if self.title and self.tall and self.ins:
            shift = max(shift, PAD + self.title + 8 - min(self.ins.values()))
        if not self.tall and self.title:
            shift += TITLE - PAD / 2
        self.dv = high + shift + (PAD if self.title else 0.0)
        if self.tall:
            self.dv = max(self.dv, self.title + 2 * PAD)
        for item in self.items.values():
            item.v += shift
        for places in (self.ins, self.outs):
            places.update({value: v + shift for value, v in places.items()})
        self.lanes = {net: v + shift for net, v in self.lanes.items()}

    def routes(self) -> Iterator[tuple[Stretch, list[Point]]]:
        """Yield each stretch with the points it goes through: straight past rows, bending in the gaps."""
        for wire in self.wires:
            tail, _, head, _ = wire
            a, b = self.ends(wire)
            vs = self.across(wire)
            start = 0.0 if tail is None else self.border(tail, 1)
            end = self.du if head is None else self.border(head, -1)
            us = [start, self.bottoms[a + 1]]
            vs = [vs[0], *(v for v in vs for _ in (0, 1)), vs[-1]][1:-1]
            if b - a > 1:
                us += [self.tops[a + 1], self.bottoms[b]]
            us += [self.tops[b], end]
            yield wire, list(zip(us, vs, strict=True))

    def border(self, key: Key, side: int) -> float:
        """Return where an item's near (-1) or far (1) border is, along."""
        item = self.items[key]
        half = (item.body[0] if key[0] == "op" else item.du) / 2
        return item.u + item.du / 2 + side * half
