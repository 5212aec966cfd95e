"""Sphinx extension: the page `n_plus_p`, whose numbers come from runs of the engine during the build.

The page is Markdown with Jinja expressions; `facts` computes what they name. An unknown name is an error.
"""

import contextlib
import io

from law_page import charts, figures, runs, walks

PAGE = "n_plus_p"

START = """\
import microfw as mf
from microfw import nn

train, _ = mf.data.load("digits", rng=0)
net = nn.Sequential(nn.Dense(64, 32, rng=0), nn.ReLU(), nn.Dense(32, 10, rng=1))
loss = nn.CrossEntropyLoss()


def count(model, batch=32):
    law = mf.profiler.law(model, loss, train.X, train.y, batch=batch, budget=0.1)
    for kind in ("tensors", "scalars"):
        for rows, c in ((1, law.count(kind)), (batch, law.count(kind, batch=True))):
            print(f"{kind}, batch {rows}: N {c.N:,}, P {c.P:,}, steps {c.steps:,}")
    return law
"""


class Proofs:
    """Runs code blocks of the page in one namespace, and shows each with what it prints."""

    def __init__(self):
        self.names = {}

    def __call__(self, code):
        """Run a block; return it with its output as Markdown."""
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, PAGE, "exec"), self.names)
        output = f"\n```text\n{printed.getvalue().rstrip()}\n```\n" if printed.getvalue() else ""
        return f"```python\n{code.strip()}\n```\n{output}"


def facts():
    """Run everything that the page quotes."""
    net = {
        "one": runs.counts(runs.dense(), 1),
        "batch": runs.counts(runs.dense(), runs.BATCH),
        "two batches": runs.counts(runs.dense(), 2),
        "first frozen": runs.counts(runs.frozen(runs.dense(), 0), 1),
        "last frozen": runs.counts(runs.frozen(runs.dense(), 2), 1),
        "conv": runs.counts(runs.convolutional(), 1, images=True),
    }
    zoom = runs.zoom()
    assert sum(sum(part["ops"].values()) for part in zoom) == net["one"]["N"] == runs.check_pencil()
    four, residual = walks.four_nodes(), walks.residual()
    grid, doublings = runs.grid(), walks.doublings()
    return {
        "net": net,
        "zoom": zoom,
        "four": four,
        "residual": residual,
        "neuron": walks.neuron(),
        "doublings": doublings,
        "grid": grid,
        "others": runs.others(net),
        "work": runs.products(),
        "times": runs.times(),
        "small_checkpoint": runs.checkpoints(rows=runs.BATCH),
        "checkpoint": runs.checkpoints(),
        "conv": runs.uses_and_costs(),
        "batch": runs.BATCH,
        "drawing": drawing(),
        "data": figures.script_data(four=four, residual=residual, doublings=doublings, grid=grid),
    }


def drawing():
    """Return the drawing of the net in SVG."""
    import microfw as mf

    model = runs.dense()
    return mf.draw(runs.LOSS(model(runs.data(runs.BATCH)[0]), runs.data(runs.BATCH)[1]), model).svg


def render(text):
    """Return the Markdown of the page with its numbers and figures."""
    import jinja2  # comes with Sphinx; tests of the figures run without it

    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True, autoescape=False)
    environment.filters["n"] = lambda x: f"{x:,.0f}"
    environment.filters["percent"] = lambda x: f"{x:.1%}" if x < 0.1 else f"{x:.0%}"
    environment.filters["fixed"] = lambda x, digits=2: f"{x:,.{digits}f}"
    environment.filters["seconds"] = lambda s: f"{s:.2g} s" if s >= 0.1 else f"{s * 1e3:.2g} ms"
    proofs = Proofs()
    return environment.from_string(text).render(facts(), figure=figures, chart=charts, prove=proofs, start=START)


def read(app, docname, source):
    """Fill in the page, and the picture of the index, when Sphinx reads them."""
    if docname == PAGE:
        source[0] = render(source[0])
    elif docname == "index":
        source[0] = source[0].replace("{{ figure.picture() }}", figures.picture())


def add_files(app, pagename, templatename, context, doctree):
    """Add the style to the pages with figures, and the script to the page."""
    if pagename in (PAGE, "index"):
        app.add_css_file("n_plus_p.css")
    if pagename == PAGE:
        app.add_js_file("n_plus_p.js", loading_method="defer")


def setup(app):
    """Connect to the build."""
    app.connect("source-read", read)
    app.connect("html-page-context", add_files)
    return {"version": "1", "parallel_read_safe": True}
