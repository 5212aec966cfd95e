"""A headless Chromium, spoken to over a pipe by the DevTools protocol; the standard library alone."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--hide-scrollbars", "--remote-debugging-pipe",
]  # fmt: skip


CODES = {"Tab": 9, "Enter": 13, "Escape": 27, " ": 32, "End": 35, "Home": 36}
CODES |= {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}

LAUNCH = """
import fcntl, os, sys
ends = [fcntl.fcntl(int(n), fcntl.F_DUPFD, 10) for n in sys.argv[1:3]]
for n, end in zip((3, 4), ends):
    os.dup2(end, n)
os.execvp(sys.argv[3], sys.argv[3:])
"""
"""Moves the ends of the pipes to where the browser expects them, and becomes the browser."""


def find() -> str | None:
    """Return where Chromium is, or None."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Browser:
    """One browser with one page at a time. What the page did is in `events`."""

    def __init__(self) -> None:
        self.profile = tempfile.mkdtemp(prefix="microfw-chromium-")
        hear, say = os.pipe(), os.pipe()  # the browser reads from 3 and writes to 4
        command = [sys.executable, "-c", LAUNCH, str(hear[0]), str(say[1]), find() or "chromium", *FLAGS]
        self.process = subprocess.Popen(
            [*command, f"--user-data-dir={self.profile}", "about:blank"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, pass_fds=(hear[0], say[1]),
        )  # fmt: skip
        os.close(hear[0])
        os.close(say[1])
        self.out, self.into = hear[1], say[0]
        self.buffer = b""
        self.number = 0
        self.events: list[dict] = []
        try:
            target = self.call("Target.createTarget", url="about:blank", session="")["targetId"]
            self.session = self.call("Target.attachToTarget", targetId=target, flatten=True, session="")["sessionId"]
            for domain in ("Page", "Runtime", "Log", "Network"):
                self.call(f"{domain}.enable")
        except BaseException:
            self.close()
            raise

    def call(self, method: str, session: str | None = None, **params):
        """Send a command and return its result."""
        self.number += 1
        session = self.session if session is None else session
        message = {"id": self.number, "method": method, "params": params} | ({"sessionId": session} if session else {})
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self.out, data) :]
        while True:
            answer = self._hear()
            if answer.get("id") == self.number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            self.events.append(answer)

    def _hear(self, seconds: float = 60):
        end = time.monotonic() + seconds
        while b"\0" not in self.buffer:
            if not select.select([self.into], [], [], max(end - time.monotonic(), 0))[0]:
                raise TimeoutError("Chromium says nothing")
            data = os.read(self.into, 1 << 20)
            if not data:
                raise RuntimeError("Chromium has ended")
            self.buffer += data
        line, _, self.buffer = self.buffer.partition(b"\0")
        return json.loads(line)

    def open(self, path, width=1200, height=900, dark=False, media="") -> None:
        """Load a file (or an address), and wait until it is there."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500
        )
        self.emulate(dark, media)
        self.events.clear()
        self.call("Page.navigate", url="about:blank")  # a new fragment alone would load nothing
        self._loaded()
        self.events.clear()
        self.call("Page.navigate", url=path if isinstance(path, str) else Path(path).absolute().as_uri())
        self._loaded()

    def _loaded(self) -> None:
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._hear())

    def emulate(self, dark=False, media="") -> None:
        """Set the colour scheme and the medium."""
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", media=media, features=features)

    def run(self, script: str):
        """Return what a script says in the page."""
        done = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in done:
            raise RuntimeError(done["exceptionDetails"])
        return done["result"].get("value")

    def key(self, name: str) -> None:
        """Press a key."""
        text = {"Enter": {"text": "\r"}, " ": {"text": " "}}.get(name, {})
        code = CODES.get(name, 0)  # without it the browser's own controls ignore the key
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=name, code=name, windowsVirtualKeyCode=code, **text)

    def click(self, selector: str) -> None:
        """Press and release the mouse in the middle of an element."""
        box = self.run(
            f"(() => {{const e = document.querySelector({json.dumps(selector)}); e.scrollIntoView({{block: 'center', behavior: 'instant'}});"
            "const b = e.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]})()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left", clickCount=1)

    def move(self, x: float, y: float) -> None:
        """Move the mouse."""
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def picture(self, path) -> None:
        """Save what the whole page looks like."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], 8000), "scale": 1}
        data = self.call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)["data"]
        Path(path).write_bytes(base64.b64decode(data))

    @property
    def requests(self) -> list[str]:
        """Every address that was asked for since `open`."""
        self.run("0")
        return [e["params"]["request"]["url"] for e in self.events if e.get("method") == "Network.requestWillBeSent"]

    @property
    def complaints(self) -> list[str]:
        """What went wrong or to the console since `open`."""
        self.run("0")
        kinds = (
            "Runtime.consoleAPICalled",
            "Runtime.exceptionThrown",
            "Log.entryAdded",
            "Page.javascriptDialogOpening",
        )
        return [json.dumps(e["params"])[:500] for e in self.events if e.get("method") in kinds]

    def close(self) -> None:
        """End the browser."""
        try:
            self.call("Browser.close", session="")
            self.process.wait(20)
        except (OSError, RuntimeError, TimeoutError, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait()
        os.close(self.out)
        os.close(self.into)
        shutil.rmtree(self.profile, ignore_errors=True)
