"""A page in a frame of a notebook, in a real browser: it runs, is readable in dark themes, and leaves the notebook alone."""

from __future__ import annotations

import numpy as np
import pytest

import microfw as mf
from microfw import nn
from tests.helpers import browser, sessions

pytestmark = [pytest.mark.slow, pytest.mark.skipif(browser.find() is None, reason="Chromium is not installed")]

NOTEBOOK = """<!doctype html><meta charset="utf-8"><style>body {{ background: {background}; color: {ink}; font: 14px serif }}</style>
<h1 id="title">notebook</h1><table id="layers"><tr><td>mine</td></tr></table>{frames}"""
STYLE = """[...document.querySelectorAll('body, h1, table, td')].map(e => ['color', 'backgroundColor', 'font', 'margin',
  'padding', 'border', 'display', 'width'].map(k => getComputedStyle(e)[k]))"""
CONTRAST = """(() => {
  const light = c => c.match(/[\\d.]+/g).slice(0, 3).reduce((sum, v, k) => sum + [.2126, .7152, .0722][k] * (v / 255) ** 2.2, 0);
  const style = getComputedStyle(document.body), [a, b] = [light(style.color), light(style.backgroundColor)].sort((x, y) => x - y);
  return (b + .05) / (a + .05);
})()"""


@pytest.fixture(scope="module")
def chromium():
    opened = browser.Browser()
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def frames():
    model = nn.Sequential(nn.Dense(3, 2, rng=0))
    found = mf.profiler.law(model, nn.CrossEntropyLoss(), np.ones((1, 3)), np.zeros(1, int), budget=0.01)
    return sessions.profiled("residual").show()._repr_html_(), found.show()._repr_html_()


def inside(chromium):
    """Return a function that runs a script, for each frame of the page."""
    targets = chromium.call("Target.getTargets", session="")["targetInfos"]
    frames = [t["targetId"] for t in targets if t["type"] == "iframe"]
    opened = [chromium.call("Target.attachToTarget", targetId=t, flatten=True, session="")["sessionId"] for t in frames]

    def run(session, script):
        return chromium.call("Runtime.evaluate", session, expression=script, returnByValue=True)["result"].get("value")

    return [lambda script, session=session: run(session, script) for session in opened]


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize(("background", "ink"), [("#fff", "#000"), ("#111", "#eee")])
def test_a_page_runs_in_its_frame_and_is_readable(chromium, frames, tmp_path, background, ink, dark):
    path = tmp_path / "notebook.html"
    path.write_text(NOTEBOOK.format(background=background, ink=ink, frames=""), encoding="utf-8")
    chromium.open(path, dark=dark)
    alone = chromium.run(STYLE)
    path.write_text(NOTEBOOK.format(background=background, ink=ink, frames="".join(frames)), encoding="utf-8")
    chromium.open(path, dark=dark)
    assert chromium.run(STYLE) == alone
    assert chromium.run("document.documentElement.scrollWidth") <= 1200
    assert chromium.complaints == [] and chromium.requests == [path.as_uri()]
    assert len(inside(chromium)) == 2
    for run in inside(chromium):
        assert run("window.origin") == "null"
        assert run("document.querySelectorAll('svg').length") > 0 and run("document.querySelector('h1').textContent")
        assert run(CONTRAST) > 7
        assert run("(() => { try { return parent.document.title } catch (e) { return e.name } })()") == "SecurityError"
