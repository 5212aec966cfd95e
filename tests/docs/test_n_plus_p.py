"""The page on N + P: its numbers are the engine's, and its controls work by mouse and keyboard."""

from __future__ import annotations

import html
import json
import re
import sys

import numpy as np
import pytest

import microfw as mf
from microfw import nn
from tests.helpers import browser
from tests.helpers.paths import ROOT

DOCS = ROOT / "docs"
CONF = """
import sys
sys.path[:0] = [{root!r}, {docs!r}]
project, root_doc, html_theme = "microfw", "n_plus_p", "furo"
extensions = ["myst_parser", "law_page"]
html_static_path = [{static!r}]
suppress_warnings = ["myst.xref_missing", "ref.term", "ref.doc"]
"""


@pytest.fixture(scope="module")
def walks():
    sys.path.insert(0, str(DOCS))
    from law_page import walks

    yield walks
    sys.path.remove(str(DOCS))


def test_visits_are_those_of_the_engine(walks):
    data = walks.four_nodes()
    counted, each, paths = walks.law_of(walks.FourNodes())
    story = data["walks"]
    assert [event["node"] for event in story["backprop"]["events"]] == ["L", "c", "b", "a"]
    assert story["backprop"]["visits"] == counted.rules == 4
    assert story["backprop"]["added"] == counted.accumulated == 3
    assert story["each"]["visits"] == each == counted.N * counted.P
    assert story["paths"]["visits"] == paths
    assert {node for event in story["each"]["events"] if event["again"] for node in event["node"]} == set("Lcba")
    for walk in story.values():
        assert walk["found"] == {"u": 52.0, "v": 30.0}


def test_bugs_give_wrong_gradients(walks):
    data = walks.residual()
    found = {name: walk["found"]["u"] for name, walk in data["walks"].items()}
    assert found == {"right": 4.5, "assigned": 1.5, "hasty": 3.0}
    assert [event["node"] for event in data["walks"]["right"]["events"]] == ["y", "f", "h"]
    assert data["walks"]["right"]["events"][2]["g"] == 1 + 0.5


def test_doublings_and_the_neuron(walks):
    assert walks.doublings((1, 5, 40)) == [[1, 1, 1, 2], [5, 5, 5, 32], [40, 40, 40, 2**40]]
    assert walks.neuron() == {"N": 7, "P": 4, "ops": {"multiply": 3, "add": 3, "tanh": 1}, "features": 3}


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Return the page, built alone."""
    pytest.importorskip("myst_parser")
    pytest.importorskip("furo")
    from sphinx.cmd.build import build_main

    folder = tmp_path_factory.mktemp("docs")
    (folder / "conf.py").write_text(CONF.format(root=str(ROOT), docs=str(DOCS), static=str(DOCS / "_static")))
    text = (DOCS / "n_plus_p.md").read_text(encoding="utf-8")
    text = re.sub(r"\{ref\}`(.*?)\s*<.*?>`", r"\1", text, flags=re.S)  # links to pages that are not built here
    (folder / "n_plus_p.md").write_text(text, encoding="utf-8")
    assert build_main(["-q", "-b", "html", str(folder), str(folder / "html")]) == 0
    return folder / "html" / "n_plus_p.html"


@pytest.fixture(scope="module")
def data(page):
    text = page.read_text(encoding="utf-8")
    return json.loads(re.search(r'id="law-page-data">(.*?)</script>', text).group(1))


@pytest.fixture(scope="module")
def chromium():
    if browser.find() is None:
        pytest.skip("Chromium is not installed")
    opened = browser.Browser()
    yield opened
    opened.close()


def show(chromium, page, width=1280, dark=False):
    """Open the page without animations."""
    chromium.open(page, width=width, dark=dark)
    features = [
        {"name": "prefers-reduced-motion", "value": "reduce"},
        {"name": "prefers-color-scheme", "value": "dark" if dark else "light"},
    ]
    chromium.call("Emulation.setEmulatedMedia", media="", features=features)
    chromium.run("document.documentElement.style.scrollBehavior = 'auto'")  # the theme scrolls slowly


def text(chromium, selector):
    return chromium.run(f"document.querySelector({json.dumps(selector)}).textContent")


def counters(chromium, figure):
    return [int(text(chromium, f"{figure} [data-count={name}]")) for name in ("visits", "added", "steps")]


WALK = "figure[data-strategy=backprop]"
EACH = "figure[data-strategy=each]"
BRANCH = "figure[data-graph=residual]"

slow = pytest.mark.slow


@slow
def test_numbers_in_the_text_are_counted(page, data):
    source = page.read_text(encoding="utf-8")
    shown = html.unescape(re.sub(r"<[^>]+>", "", source))
    train, _ = mf.data.load("digits", rng=0)
    net = nn.Sequential(nn.Dense(64, 32, rng=0), nn.ReLU(), nn.Dense(32, 10, rng=1))
    law = mf.profiler.law(net, nn.CrossEntropyLoss(), train.X, train.y, rows=2, budget=0.01)
    c = law.count("scalars")
    assert data["grid"]["dense 32 2 0"] == [c.N, c.P, c.steps]
    N, P, steps = data["grid"]["dense 32 1 0"]
    assert (N, P, steps) == (c.N // 2, c.P, c.N // 2 + c.P)
    assert data["grid"]["dense 32 32 0"] == [32 * N, P, 32 * N + 32 * P]
    for count in (N, P, N * P, 32 * N, 32 * steps):
        assert f"{count:,}" in shown
    assert f"rises from 1.00 at one row to {32 * steps / (32 * N + P):.2f}" in " ".join(shown.split())
    assert len(data["grid"]) <= 60


@slow
def test_the_page_is_small_and_short(page):
    source = page.read_text(encoding="utf-8")
    static = [page.parent / "_static" / name for name in ("n_plus_p.js", "n_plus_p.css")]
    assert len(source.encode()) + sum(path.stat().st_size for path in static) < 300_000
    article = re.search(r"<article.*?</article>", source, re.S).group()
    prose = re.sub(r"<(figure|script|svg)\b.*?</\1>|<pre>.*?</pre>", "", article, flags=re.S)
    assert len(re.sub(r"<[^>]+>", " ", prose).split()) <= 2000


@slow
def test_the_walk_by_mouse(chromium, page):
    show(chromium, page)
    assert chromium.complaints == []
    assert [url for url in chromium.requests if not url.startswith(("file:", "data:"))] == []
    assert counters(chromium, WALK) == [0, 0, 0]
    chromium.click(f"{WALK} [data-do=forward]")
    assert text(chromium, f"{WALK} [data-name=L] [data-value]") == "56"
    assert text(chromium, f"{WALK} [data-name=L] [data-gradient]") == ""
    chromium.click(f"{WALK} [data-do=step]")
    chromium.click(f"{WALK} [data-do=step]")
    assert counters(chromium, WALK) == [2, 0, 2]
    assert text(chromium, f"{WALK} .says").startswith(
        "Visit c, with g(c) = 1: pass 1 × 8 to a; 1 × 6 to b, now 1 + 6 = 7."
    )
    chromium.click(f"{WALK} [data-do=back]")
    assert counters(chromium, WALK) == [4, 3, 7]
    assert text(chromium, f"{WALK} [data-name=u] [data-gradient]") == "52"
    chromium.click(f"{WALK} [data-do=restart]")
    assert counters(chromium, WALK) == [0, 0, 0]
    assert chromium.complaints == []


@slow
def test_the_walk_plays_by_itself_unless_motion_is_unwanted(chromium, page):
    chromium.open(page)
    chromium.run(f"document.querySelector('{WALK} [data-do=back]').click()")
    assert counters(chromium, WALK) == [1, 0, 1]
    wait = "new Promise(r => {const t = setInterval(() => {if (%s) {clearInterval(t); r(true)}}, 50)})"
    assert chromium.run(wait % f"document.querySelector('{WALK} [data-count=steps]').textContent === '7'")


@slow
def test_the_walk_by_keyboard(chromium, page):
    show(chromium, page)
    chromium.run(f"document.querySelector('{WALK} [data-do=forward]').focus()")
    chromium.key("Enter")
    chromium.run(f"document.querySelector('{WALK} .guess input').focus()")
    for typed, answer in (("3", "Not yet"), ("1", "Right")):
        chromium.run(f"document.querySelector('{WALK} .guess input').value = ''")
        chromium.call("Input.insertText", text=typed)
        chromium.key("Enter")
        assert text(chromium, f"{WALK} [data-answer]").startswith(answer)
    chromium.run(f"document.querySelector('{WALK} [data-do=step]').focus()")
    for _ in range(4):
        chromium.key(" ")
    assert counters(chromium, WALK) == [4, 3, 7]
    assert chromium.run("document.activeElement.dataset.do") == "restart"
    chromium.run(f"document.querySelector('{WALK} .edge').focus()")
    assert "Local derivative of a by u: 3." in text(chromium, f"{WALK} .says")
    chromium.key("Tab")
    assert "Local derivative of a by v: 2." in text(chromium, f"{WALK} .says")
    assert chromium.complaints == []


@slow
def test_each_strategy_has_its_counts(chromium, page, data):
    show(chromium, page)
    for figure, graph in ((EACH, "four"), (BRANCH, "residual")):
        options = chromium.run(f"[...document.querySelectorAll('{figure} .tabs input')].map(e => e.value)")
        chromium.run(f"document.querySelector('{figure} .tabs input').focus()")
        for k, name in enumerate(options):
            if k:
                chromium.key("ArrowRight")
            chromium.run(f"document.querySelector('{figure} [data-do=back]').click()")
            story = data[graph]["walks"][name]
            assert counters(chromium, figure) == [story["visits"], story["added"], story["visits"] + story["added"]]
            shown = text(chromium, f"{figure} [data-name=u] [data-gradient]")
            assert float(shown) == story["found"]["u"]
            visits = chromium.run(f"[...document.querySelectorAll('{figure} [data-visits]')].map(e => +e.textContent)")
            assert sum(visits) == story["visits"]
            chromium.run(f"document.querySelector('{figure} .tabs input:checked').focus()")
    chromium.click(f"{EACH} .tabs input")
    chromium.click(f"{EACH} [data-do=back]")
    assert "computed before!" in text(chromium, f"{EACH} .says")


@slow
def test_the_neuron_opens(chromium, page):
    show(chromium, page)
    shown = "getComputedStyle(document.querySelector('.neuron .opened')).display"
    assert (chromium.run(shown), text(chromium, ".neuron [data-count=N]")) == ("none", "?")
    chromium.click(".neuron svg")
    assert (chromium.run(shown), text(chromium, ".neuron [data-count=N]")) == ("inline", "7")
    chromium.run("document.querySelector('.neuron button').focus()")
    chromium.key("Enter")
    assert chromium.run(shown) == "none"


@slow
def test_sliders_show_what_was_counted(chromium, page, data):
    show(chromium, page)
    names = ("N", "P", "sum", "steps")
    read = "[...document.querySelectorAll('.sliders [data-count]')].map(e => e.textContent)"
    for key, (N, P, steps) in data["grid"].items():
        kind, width, batch, freeze = key.split()
        chromium.run(
            f"for (const s of document.querySelectorAll('.sliders [data-slider]')) {{const k = s.dataset.values.split(',')"
            f".indexOf(s.dataset.slider === 'width' ? '{width}' : '{batch}'); if (k >= 0) s.value = k}}"
            f"document.querySelector('.sliders [value={kind}]').checked = true;"
            f"document.querySelector('.sliders [data-freeze]').checked = {freeze};"
            "document.querySelector('.sliders').dispatchEvent(new Event('input'))"
        )
        shown = chromium.run(read)
        assert [int(x.replace(",", "")) for x in shown[: len(names)]] == [N, P, N + P, steps]
        assert shown[-1] == f"{steps / (N + P):.2f}"
    show(chromium, page)
    chromium.run("document.querySelector('[data-slider=batch]').focus()")
    chromium.key("Home")
    assert chromium.run(read)[-1] == "1.00"
    chromium.key("End")
    assert chromium.run(read)[-1] == "1.48"
    assert re.search(r"the bar of N × P is \d+ m long", text(chromium, ".sliders .says"))
    chromium.click(".sliders [data-freeze]")
    N, P, steps = data["grid"]["dense 32 32 1"]
    assert chromium.run(read)[:2] == [f"{N:,}", f"{P:,}"]
    chromium.run("document.querySelector('.doubling input').focus()")
    chromium.key("End")
    assert text(chromium, ".doubling .bad b") == f"{2**40:,}"
    assert "km long" in text(chromium, ".doubling .says")
    chromium.click(".checkpoint input")
    assert chromium.run("[...document.querySelectorAll('.checkpoint [data-with]')].map(e => e.hidden)") == [True, False]
    assert chromium.complaints == []


@slow
def test_an_op_of_the_drawing_opens(chromium, page):
    show(chromium, page)
    opened = "[...document.querySelectorAll('.zoom details')].map(e => e.open)"
    chromium.click(".drawing .op")
    assert chromium.run(opened) == [True, False, False, False]
    chromium.run("document.querySelectorAll('.drawing .op')[3].focus()")
    chromium.key("Enter")
    assert chromium.run(opened) == [False, False, False, True]
    dots = "[...document.querySelectorAll('.zoom details')].map(e => e.querySelectorAll('.dots i').length)"
    assert chromium.run(dots) == [128, 1, 64, 33]


@slow
@pytest.mark.parametrize("width", [360, 768, 1280])
def test_nothing_is_wider_than_the_window(chromium, page, width):
    show(chromium, page, width)
    chromium.run("document.querySelectorAll('article details').forEach(e => (e.open = true))")
    assert chromium.run("document.documentElement.scrollWidth") <= width
    wide = (
        "[...document.querySelectorAll('figure')].filter(e => e.scrollWidth > e.clientWidth + 1).map(e => e.className)"
    )
    assert chromium.run(wide) == []
    if width == 1280:
        code = "[...document.querySelectorAll('pre')].filter(e => e.scrollWidth > e.clientWidth + 1).map(e => [e.textContent, e.scrollWidth, e.clientWidth])"
        assert chromium.run(code) == []


def contrast(one, other):
    """Return the contrast ratio of two colours, by the Web Content Accessibility Guidelines."""

    def luminance(colour):
        c = np.array([int(x) for x in re.findall(r"\d+", colour)[:3]]) / 255
        return float(np.where(c <= 0.03928, c / 12.92, ((c + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722])

    low, high = sorted(luminance(colour) for colour in (one, other))
    return (high + 0.05) / (low + 0.05)


@slow
def test_colours_follow_the_system_and_the_switch(chromium, page):
    colours = (
        "[getComputedStyle(document.body).backgroundColor, ...['.value', '.gradient'].map(s => "
        "getComputedStyle(document.querySelector('article p ' + s)).color)]"
    )
    found = {}
    for dark in (False, True):
        show(chromium, page, dark=dark)
        found[dark] = chromium.run(colours)
        for colour in found[dark][1:]:
            assert contrast(found[dark][0], colour) > 4.5
        chromium.run(f"document.body.dataset.theme = '{'light' if dark else 'dark'}'")
        assert chromium.run(colours) != found[dark]
        chromium.run(f"document.body.dataset.theme = '{'dark' if dark else 'light'}'")
        assert chromium.run(colours) == found[dark]
    assert found[False] != found[True]
    chromium.emulate(dark=True, media="print")
    assert chromium.run(colours)[1:] == found[False][1:]
    chromium.run("document.body.dataset.theme = 'dark'")
    assert chromium.run(colours)[1:] == found[False][1:]


@slow
def test_print_shows_every_figure_at_its_end(chromium, page):
    show(chromium, page)
    chromium.run("dispatchEvent(new Event('beforeprint'))")
    assert counters(chromium, WALK) == [4, 3, 7]
    assert chromium.run("document.querySelectorAll('article details:not([open])').length") == 0
    chromium.emulate(media="print")
    assert chromium.run("getComputedStyle(document.querySelector('.walk .controls')).display") == "none"
    chromium.run("dispatchEvent(new Event('afterprint'))")
    assert counters(chromium, WALK) == [0, 0, 0]


@slow
def test_it_reads_without_a_script(chromium, page):
    chromium.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        chromium.open(page)
        shown = page.read_text(encoding="utf-8")
        document = chromium.call("DOM.getDocument", depth=-1)["root"]["nodeId"]
        found = chromium.call("DOM.querySelectorAll", nodeId=document, selector=".controls, .guess, .tabs")["nodeIds"]
        assert len(found) > 8
        for node in found:
            with pytest.raises(RuntimeError, match="box model"):
                chromium.call("DOM.getBoxModel", nodeId=node)
        walk = chromium.call("DOM.querySelector", nodeId=document, selector=f"{WALK} svg")["nodeId"]
        assert chromium.call("DOM.getBoxModel", nodeId=walk)["model"]["height"] > 100
    finally:
        chromium.call("Emulation.setScriptExecutionDisabled", value=False)
    steps = [int(n) for n in re.findall(r'data-count="steps">(\d+)<', shown)]
    assert steps == [7, 11, 5]
