"""A headless Chromium over its debugging pipe, with the standard library alone."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-dev-shm-usage", "--remote-debugging-pipe", "about:blank",
)  # fmt: skip


SMALLEST = """Math.min(...[...document.querySelectorAll("body *")]
    .filter(e => [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()))
    .map(e => parseFloat(getComputedStyle(e).fontSize)))"""
OVERLAPS = """(() => {
    const boxes = [...document.querySelectorAll("img, p, h1, h2, h3, h4, table")]
        .filter(e => !e.closest(".wide, .slider, nav") && e.offsetHeight).map(e => e.getBoundingClientRect());
    let n = 0;
    for (let i = 0; i < boxes.length; i++) for (let j = i + 1; j < boxes.length; j++) {
        const a = boxes[i], b = boxes[j];
        n += a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 1 && b.top < a.bottom - 1;
    }
    return n;
})()"""


class Browser:
    """One page; `send` a command of the DevTools protocol, wait for its answer, keep what is told in between."""

    def __init__(self, write: int, read: int) -> None:
        self._write, self._read = write, read
        self._rest, self._number = b"", 0
        self.events: list[dict[str, Any]] = []
        self._session: str | None = None
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):  # Network would tell of each of thousands of data URIs
            self.send(f"{domain}.enable")

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self._number:
            self.events.append(answer)
        assert "error" not in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    def open(self, page: Path, width: int, *, scripts: bool = True) -> None:
        """Load a file at this width (CSS pixels) and wait until all of it is there."""
        self.send("Emulation.setScriptExecutionDisabled", value=not scripts)
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        self.events.clear()
        self.send("Page.navigate", url=page.as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.events.append(self._next())

    def value(self, script: str) -> Any:
        return self.send("Runtime.evaluate", expression=script, returnByValue=True)["result"].get("value")

    def screenshot(self, path: Path) -> None:
        shot = self.send("Page.captureScreenshot", captureBeyondViewport=True, format="png")
        path.write_bytes(base64.b64decode(shot["data"]))

    def check(self) -> None:
        """Of a report, all of it unfolded: no complaint or overlap, no wider than the window, pictures there, 12 px."""
        self.value("document.querySelectorAll('details').forEach(d => d.open = true)")
        self.value("document.querySelectorAll('.drawn').forEach(d => d.style.contentVisibility = 'visible')")
        assert self.complaints() == []
        assert self.value("document.documentElement.scrollWidth <= innerWidth")
        assert self.value("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
        assert self.value(SMALLEST) >= 12
        assert self.value(OVERLAPS) == 0

    def complaints(self) -> list[dict[str, Any]]:
        """Console messages, exceptions, and what the page's Content-Security-Policy had to stop."""
        told = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")
        return [event for event in self.events if event["method"] in told]

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            more = os.read(self._read, 1 << 20)
            assert more, "Chromium ended"
            self._rest += more
        first, self._rest = self._rest.split(b"\0", 1)
        answer: dict[str, Any] = json.loads(first)
        return answer


@contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """Chromium reads commands from its descriptor 3 and answers on 4."""
    assert CHROMIUM is not None
    to_read, to_write = os.pipe()
    from_read, from_write = os.pipe()
    command = ["bash", "-c", f'exec 3<&{to_read} 4>&{from_write}; exec "$0" "$@"', CHROMIUM,
               f"--user-data-dir={profile}", *FLAGS]  # fmt: skip
    process = subprocess.Popen(
        command, pass_fds=(to_read, from_write), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    os.close(to_read)
    os.close(from_write)
    try:
        yield Browser(to_write, from_read)
    finally:
        process.terminate()
        process.wait()
        os.close(to_write)
        os.close(from_read)
