"""Bars, sliders and tables of the page on N + P."""


def doubling(found):
    """Return a slider for the number of doublings, with nodes and paths on one linear scale."""
    n, nodes, rules, paths = found[3]
    rows = "".join(f"<tr><td>{a}</td><td>{b:,}</td><td>{c:,}</td><td>{d:,}</td></tr>" for a, b, c, d in found)
    return (
        f'<figure class="doubling"><p class="controls" hidden><label>n = <output>{n}</output> '
        f'<input type="range" min="0" max="{len(found) - 1}" value="3" aria-label="number of doublings"></label></p>'
        + bar("nodes, each visited once", rules, 64, "good", str(nodes))
        + bar("paths", paths, 64, "bad", f"{paths:,}")
        + '<p class="says" aria-live="polite"></p><details><summary>As a table</summary>'
        + table("n", "nodes", "visits by backpropagation", "paths", rows=rows)
        + "</details></figure>"
    )


def sliders(grid):
    """Return controls for the net, its counts and bars, and a table of some nets."""
    rows = "".join(
        f"<tr><td>{name}</td><td>{N:,}</td><td>{P:,}</td><td>{steps:,}</td>"
        f"<td>{steps / (N + P):.2f}</td><td>{N * P:,}</td></tr>"
        for name, (N, P, steps) in (
            ("64-32-10, one row", grid["dense 32 1 0"]),
            ("at batch 32", grid["dense 32 32 0"]),
            ("at batch 32, layer 1 frozen", grid["dense 32 32 1"]),
            ("64-8-10, one row", grid["dense 8 1 0"]),
            ("64-64-10, one row", grid["dense 64 1 0"]),
            ("convolution, one row", grid["conv 4 1 0"]),
        )
    )
    widths = sorted({int(key.split()[1]) for key in grid if key.startswith("dense")})
    batches = sorted({int(key.split()[2]) for key in grid})
    N, P, steps = grid["dense 32 32 0"]
    most = max(row[2] for row in grid.values())

    def slider(name, values, value):
        return (
            f'<label>{name} <output>{value}</output> <input type="range" data-slider="{name}" min="0" '
            f'max="{len(values) - 1}" value="{values.index(value)}" data-values="{",".join(map(str, values))}"></label>'
        )

    return (
        f'<figure class="sliders" data-most="{most}"><div class="controls" hidden>'
        '<fieldset><legend>first layer</legend><label><input type="radio" name="kind" value="dense" checked> dense'
        '</label><label><input type="radio" name="kind" value="conv"> convolution</label></fieldset>'
        + slider("width", widths, 32)
        + slider("batch", batches, 32)
        + '<label><input type="checkbox" data-freeze> freeze the first layer</label></div>'
        f'<p class="counters" aria-live="polite">N <b data-count="N">{N:,}</b>, P <b data-count="P">{P:,}</b>, N + P '
        f'<b data-count="sum">{N + P:,}</b>, steps <b data-count="steps">{steps:,}</b>, steps/(N + P) '
        f'<b data-count="ratio">{steps / (N + P):.2f}</b></p>'
        + bar("N + P", N + P, most, "good", f"{N + P:,}")
        + bar("steps", steps, most, "good", f"{steps:,}")
        + bar("N × P", N * P, most, "bad", f"{N * P:,}")
        + '<p class="says"></p>'
        + table("net", "N", "P", "steps", "steps/<wbr>(N + P)", "N × P", rows=rows)
        + "</figure>"
    )


def table(*heads, rows):
    """Return a table that scrolls in its own box if the window is narrow."""
    head = "".join(f"<th>{text}</th>" for text in heads)
    return (
        f'<div class="table-wrapper"><table class="docutils"><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def bar(label, value, of, kind, text):
    """Return a labelled bar on a linear scale; one longer than the scale is cut, with an arrow."""
    width = f"{min(100 * value / of, 100):.3f}%"
    over = " over" if value > of else ""
    return (
        f'<div class="bar {kind}{over}"><span class="label">{label}</span><span class="track"><i style="width:{width}">'
        f"</i></span><b>{text}</b></div>"
    )


def operations(work):
    """Return the operations in matrix products, forward and back, with the one that is missing."""
    (one, two), (back_one, back_two) = work["forward"], work["backward"]
    whole = one + back_one + back_two
    rows = [
        ("forward", [(one, "one", "layer 1"), (two, "two", "layer 2")]),
        (
            "backward",
            [
                (back_one, "one", "layer 1, weight"),
                (back_two / 2, "two", "layer 2, weight"),
                (back_two / 2, "two light", "layer 2, input"),
                (one, "missing", "layer 1, input: missing"),
            ],
        ),
    ]
    bars = "".join(
        f'<div class="bar stack"><span class="label">{label}</span><span class="track">'
        + "".join(
            f'<i class="{kind}" style="width:{100 * n / whole:.2f}%" title="{text}: {n:,.0f} operations"></i>'
            for n, kind, text in parts
        )
        + f"</span><b>{sum(n for n, kind, _ in parts if kind != 'missing'):,.0f}</b></div>"
        for label, parts in rows
    )
    key = "".join(
        f'<li><i class="{kind}"></i>{text}: {n:,.0f}</li>'
        for n, kind, text in [
            (one, "one", "layer 1, a product"),
            (two, "two", "layer 2, a product"),
            (one, "missing", "not needed: gradient of the pixels"),
        ]
    )
    return f'<figure class="operations">{bars}<ul class="key">{key}</ul></figure>'


def checkpoint(found):
    """Return memory and time without and with checkpoints."""
    (memory, less), (fast, slow) = found["MB"], found["ms"]
    return (
        '<figure class="checkpoint"><p class="controls" hidden><label><input type="checkbox"> with checkpoints</label>'
        "</p><div data-with='false'>"
        + bar("memory", memory, memory, "good", f"{memory:.1f} MB")
        + bar("time", fast, slow, "good", f"{fast:.0f} ms")
        + "</div><div data-with='true'><p class='label'>with checkpoints</p>"
        + bar("memory", less, memory, "good", f"{less:.1f} MB")
        + bar("time", slow, slow, "good", f"{slow:.0f} ms")
        + "</div></figure>"
    )


def memory(saved):
    """Return the bytes that are kept after each op, forward and back."""
    names = ["linear", "relu", "linear", "cross_entropy"]
    kept, now = [], 0
    for name, (_, size) in zip(names, saved, strict=True):
        now += size
        kept.append((f"after {name}", now, "up"))
    for name, (_, size) in reversed(list(zip(names, saved, strict=True))):
        now -= size
        kept.append((f"{name} done", now, "down"))
    peak = max(size for _, size, _ in kept)
    bars = ""
    for k, (_, size, way) in enumerate(kept):
        height = 100 * size / peak
        bars += (
            f'<g class="{way}"><rect x="{8 + 53 * k}" y="{118 - height:.1f}" width="44" height="{height:.1f}"/>'
            f'<text x="{30 + 53 * k}" y="{113 - height:.1f}">{size:,}</text></g>'
        )
    label = "; ".join(f"{name}: {size:,} bytes" for name, size, _ in kept)
    return (
        f'<figure><svg class="memory" viewBox="0 0 434 150" role="img" aria-label="Bytes kept. {label}">'
        f'<path class="line" d="M4 118H430"/>{bars}<text x="110" y="140">forward →</text>'
        '<text x="324" y="140">← back</text></svg></figure>'
    )
