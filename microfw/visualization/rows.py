"""Rows of a box: row, order and position of each item."""

from __future__ import annotations

from bisect import bisect_right, insort
from dataclasses import dataclass, field
from itertools import pairwise

Key = tuple[str, int]
"""Kind ("op", "leaf" or "box") and id of an item."""
Segment = tuple[Key | None, int, Key | None, int]
"""Source item (None: outside), id of the value, target item (None: outside), port."""

ITEM_GAP = 22.0
"""Gap between neighbours in a row."""


@dataclass
class Item:
    """An item of a box. Ports are distances across, from the edge of the item."""

    du: float
    dv: float
    first: float  # items are in this order; values flow from lower to higher
    ins: dict[int, float] = field(default_factory=dict)
    outs: dict[int, float] = field(default_factory=dict)
    body: tuple[float, float] = (0.0, 0.0)  # size of the op itself, at the far end of the item
    depth: int = 0  # length of the longest path to it
    row: int = 0
    u: float = 0.0
    v: float = 0.0


Items = dict[Key, Item]
Wires = dict[Segment, None]


def rank(items: Items, wires: Wires) -> list[list[Key]]:
    """Put each item one row below the lowest item that it uses, or lower if that makes lines shorter.

    A lower item has a shorter output line, and longer lines from items that it alone uses. Lines that other items use
    too do not change.
    """
    keys = sorted(items, key=lambda key: items[key].first)
    users: dict[Key, set[Key]] = {key: set() for key in keys}
    ends: dict[tuple[Key | None, int], set[Key | None]] = {}
    used: dict[Key, set[tuple[Key | None, int]]] = {key: set() for key in keys}
    for tail, value, head, _ in wires:
        ends.setdefault((tail, value), set()).add(head)
        if head is not None:
            used[head].add((tail, value))
            if tail is not None:
                users[tail].add(head)
    for key in keys:
        for user in users[key]:
            items[user].row = max(items[user].row, items[key].row + 1)
    for item in items.values():
        item.depth = item.row
    for key in reversed(keys):
        if users[key] and sum(len(ends[net]) == 1 for net in used[key]) <= 1:
            items[key].row = min(items[user].row for user in users[key]) - 1
    numbers = {row: k for k, row in enumerate(sorted({item.row for item in items.values()}))}
    rows: list[list[Key]] = [[] for _ in numbers]
    for key in keys:
        items[key].row = numbers[items[key].row]
        rows[items[key].row].append(key)
    return rows


def order(rows: list[list[Key]], items: Items, wires: Wires) -> list[list[Key]]:
    """Order the items of rows for few crossings: sort by mean position of neighbours, keep the best of 6 sweeps."""
    above: dict[Key, list[Key]] = {key: [] for key in items}
    below: dict[Key, list[Key]] = {key: [] for key in items}
    for tail, _, head, _ in wires:
        if tail is not None and head is not None and items[head].row == items[tail].row + 1:
            above[head].append(tail)
            below[tail].append(head)
    if all(len(row) == 1 for row in rows):
        return rows

    def sweep(listed: list[list[Key]], near: dict[Key, list[Key]]) -> None:
        positions: dict[Key, float] = {}
        for row in listed:
            middle = {key: [positions[n] for n in near[key]] for key in row}
            width = max(len(row) - 1, 1)
            wish = {key: sum(m) / len(m) if m else k / width for k, (key, m) in enumerate(middle.items())}
            row.sort(key=wish.__getitem__)
            positions |= {key: (k + 0.5) / len(row) for k, key in enumerate(row)}

    # a sweep may make it worse: the best order is kept
    best, fewest = [list(row) for row in rows], crossings(rows, below)
    for n in range(6):
        if not fewest:
            break
        sweep(rows[:: -1 if n % 2 else 1], below if n % 2 else above)
        count = crossings(rows, below)
        if count < fewest:
            best, fewest = [list(row) for row in rows], count
    return best


def crossings(rows: list[list[Key]], below: dict[Key, list[Key]]) -> int:
    """Return the number of crossings of lines between neighbouring rows."""
    count = 0
    for row, following in pairwise(rows):
        position = {key: k for k, key in enumerate(following)}
        passed: list[int] = []
        for key in row:
            ends = sorted(position[head] for head in below[key])
            # lines that began earlier and end later cross this one; a sorted list finds them in log(n)
            count += sum(len(passed) - bisect_right(passed, end) for end in ends)
            for end in ends:
                insort(passed, end)
    return count


def spread(row: list[Key], wishes: list[float], items: Items) -> None:
    """Place the items of a row near their desired positions without overlap: least squares, by pooling neighbours.

    Items on the longest path have the largest weight.
    """
    pools: list[tuple[float, float, int]] = []  # sums of: desired position minus offset in the row; weights; items
    offset = 0.0
    offsets = []
    for key, wish in zip(row, wishes, strict=True):
        offsets.append(offset)
        item = items[key]
        weight = 20.0 if item.depth == item.row else 1.0
        total, count = weight * (wish - offset), 1
        while pools and pools[-1][0] / pools[-1][1] >= total / weight:
            more, heavier, n = pools.pop()
            total, weight, count = total + more, weight + heavier, count + n
        pools.append((total, weight, count))
        offset += item.dv + ITEM_GAP
    k = 0
    for total, weight, count in pools:
        for key in row[k : k + count]:
            items[key].v = total / weight + offsets[k]
            k += 1
