"""Layout of one box of a drawing: positions of items, routes of lines."""

from __future__ import annotations

from collections.abc import Iterator

from microfw.visualization.rows import ITEM_GAP, Item, Key, Segment, order, rank, spread

Point = tuple[float, float]

LEAF_GAP = 26.0
"""Gap between an op and its own leaves."""
LEAF_SPACING = 6.0
"""Gap between these leaves."""
LANE_GAP = 16.0
"""Gap between a lane and the items that it passes."""
PADDING = 12.0
"""Gap between the border of a box and its items, across."""
TITLE_HEIGHT = 22.0
"""Height of the title of a box."""


class BoxLayout:
    """Layout of one box: items in rows, and the segments of edges inside the box."""

    def __init__(self, title: float, tall: bool, ops: int) -> None:
        self.title = title
        self.tall = tall
        self.ops = ops  # values below this belong to ops, others to leaves
        self.items: dict[Key, Item] = {}
        self.wires: dict[Segment, None] = {}
        self.ins: dict[int, float] = {}
        self.outs: dict[int, float] = {}
        self.lanes: dict[tuple[Key | None, int], float] = {}
        self.rows: list[list[Key]] = []
        self.du = self.dv = 0.0

    def arrange(self) -> None:
        """Compute all positions. Call it when all items have their sizes."""
        self.rows = order(rank(self.items, self.wires), self.items, self.wires)
        self.space_ports()
        self.align()
        self.route()
        self.stack()
        self.frame()

    def ends(self, wire: Segment) -> tuple[int, int]:
        """Return first and last row of a segment: -1 is the near border, the number of rows is the far border."""
        tail, _, head, _ = wire
        return (-1 if tail is None else self.items[tail].row, len(self.rows) if head is None else self.items[head].row)

    # Across

    def space_ports(self) -> None:
        """Distribute the lines into an op over its border, in the order of their sources."""
        positions = {key: k for row in self.rows for k, key in enumerate(row)}
        incoming: dict[Key, list[tuple[bool, int, int, Key | None]]] = {}
        for wire in self.wires:
            tail, value, head, port = wire
            if head is not None:
                a, b = self.ends(wire)
                far = b - a > 1 or (tail is None and value >= self.ops)
                incoming.setdefault(head, []).append((far, -1 if tail is None else positions[tail], port, tail))
        self.mains: dict[Key, Key | None] = {}
        for head, ports in incoming.items():
            ports.sort(key=lambda port: port[:3])
            near = [k for k, port in enumerate(ports) if not port[0]]
            depth = [self.items[tail].depth if (tail := ports[k][3]) is not None else -1 for k in near]
            if len(near) > 1 and depth.count(max(depth)) == 1:  # the longest path stays straight
                first = float(near[depth.index(max(depth))])
                self.mains[head] = ports[int(first)][3]
            else:  # lines from the row above meet around the middle, lanes next to them
                first = max(len(near) - 1, 0) / 2
            if head[0] == "op":
                item = self.items[head]
                half = item.body[1] / 2
                step = min(18.0, (half - 8) / max(len(ports) - 1 - first, first, 1))
                for k, (_, _, port, _) in enumerate(ports):
                    item.ins[port] = item.dv - half + (k - first) * step

    def align(self) -> None:
        """Move items across to straighten lines; the order of items in a row is kept."""
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
            v = -sum(self.items[key].dv + ITEM_GAP for key in row) / 2
            for key in row:
                self.items[key].v = v
                v += self.items[key].dv + ITEM_GAP
        for side in (-1, 1, -1, 1, -1):
            for row in self.rows[::-side]:  # from the side whose neighbours are already placed
                wishes = []
                for key in row:
                    found = [self.items[other].v + shift for other, shift, at in near[key] if at == side]
                    wishes.append(sum(found) / len(found) if found else self.items[key].v)
                spread(row, wishes, self.items)

    def route(self) -> None:
        """Assign a lane next to the rows to each value that passes rows, short lanes nearest; then place the ports."""
        edge = [max(self.items[key].v + self.items[key].dv for key in row) for row in self.rows]
        reach: dict[tuple[Key | None, int], list[int]] = {}
        for wire in self.wires:
            a, b = self.ends(wire)
            if b - a > 1:
                span = reach.setdefault((wire[0], wire[1]), [a + 1, b])
                span[1] = max(span[1], b)
        # short lanes first, so that they lie inside of long ones and do not cross them
        for net, (a, b) in sorted(reach.items(), key=lambda pair: pair[1][1] - pair[1][0]):
            self.lanes[net] = lane = max(edge[a:b]) + LANE_GAP
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

    def across(self, wire: Segment) -> list[float]:
        """Return the positions of a segment, across: start, lane if any, end."""
        tail, value, head, port = wire
        a, b = self.ends(wire)
        start = self.ins[value] if tail is None else self.items[tail].v + self.items[tail].outs[value]
        end = self.outs[value] if head is None else self.items[head].v + self.items[head].ins[port]
        return [start, self.lanes[tail, value], end] if b - a > 1 else [start, end]

    # Along

    def stack(self) -> None:
        """Place the rows one after the other, with larger gaps for lines that go far across."""
        bends = [-1.0] * (
            len(self.rows) + 1
        )  # largest bend in the gap before each row, and after the last; -1: no line
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
            gaps[0] += TITLE_HEIGHT if self.title else 0.0
        else:
            missing = (
                self.title + 2 * PADDING - sum(gaps) - sum(max(self.items[k].du for k in row) for row in self.rows)
            )
            gaps[0] += max(missing, 0.0) / 2
            gaps[-1] += max(missing, 0.0) / 2
        self.tops, self.bottoms = [], [TITLE_HEIGHT if self.tall and self.title else 0.0]
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
        """Compute the border, with space for the title, which no line crosses."""
        low = min([item.v for item in self.items.values()] + list(self.ins.values()))
        high = max([item.v + item.dv for item in self.items.values()] + list(self.lanes.values()))
        shift = (PADDING if self.title else 0.0) - low
        if self.title and self.tall and self.ins:
            shift = max(shift, PADDING + self.title + 8 - min(self.ins.values()))
        if not self.tall and self.title:
            shift += TITLE_HEIGHT - PADDING / 2
        self.dv = high + shift + (PADDING if self.title else 0.0)
        if self.tall:
            self.dv = max(self.dv, self.title + 2 * PADDING)
        for item in self.items.values():
            item.v += shift
        for ports in (self.ins, self.outs):
            ports.update({value: v + shift for value, v in ports.items()})
        self.lanes = {net: v + shift for net, v in self.lanes.items()}

    def routes(self) -> Iterator[tuple[Segment, list[Point]]]:
        """Yield each segment with its points: straight past rows, bends in the gaps."""
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
        """Return the near (-1) or far (1) border of an item, along."""
        item = self.items[key]
        half = (item.body[0] if key[0] == "op" else item.du) / 2
        return item.u + item.du / 2 + side * half
