"""Headless Chromium that tests speak to through a pipe (Chrome DevTools protocol): pages opened, expressions evaluated in them."""

import contextlib
import itertools
import json
import os
import shutil
import subprocess
import time

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update"
SECONDS = 20  # that an answer, or a page, may take


class Browser:
    """A browser with one page.

    complaints: what the page has written to its console, and its faults.
    """

    def __init__(self, profile):
        self.complaints, self._numbers, self._rest = [], itertools.count(1), b""
        there, self._to = os.pipe()
        self._from, back = os.pipe()
        command = [CHROMIUM, *FLAGS.split(), "--disable-sync", "--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank"]
        script = f'exec 3<&{there} 4>&{back}; exec "$@"'  # the browser reads from 3 and writes to 4
        quiet = subprocess.DEVNULL
        self._process = subprocess.Popen(["bash", "-c", script, "-", *command], pass_fds=(there, back), stdout=quiet, stderr=quiet)
        os.close(there)
        os.close(back)
        target = self._call("Target.createTarget", None, url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", None, targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **values) -> dict:
        """The answer to a command for the page."""
        return self._call(method, self._session, **values)

    def _call(self, method: str, session: str | None, **values) -> dict:
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": values, **({"sessionId": session} if session else {})}
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while (found := self._next()).get("id") != number:
            if found.get("method") in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"):
                self.complaints.append(json.dumps(found["params"]))
        assert "error" not in found, found
        return found["result"]

    def _next(self) -> dict:
        """The next message of the browser."""
        while b"\0" not in self._rest:
            part = os.read(self._from, 2**20)
            assert part, "the browser has ended"
            self._rest += part
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)

    def open(self, address: str, width: int, height: int = 900, dark: bool = False) -> None:
        """Opens a page in a window of a size."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", features=features)
        self.call("Page.navigate", url=address)
        self.until("document.readyState === 'complete'")

    def value(self, expression: str):
        """The value of an expression in the page."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def click(self, x: float, y: float) -> None:
        """Presses the left button at a place of the window, px."""
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def until(self, expression: str) -> None:
        """Waits until an expression is true."""
        deadline = time.monotonic() + SECONDS
        while not self.value(expression):
            assert time.monotonic() < deadline, f"never true: {expression}; {self.complaints}"
            time.sleep(0.05)

    def close(self) -> None:
        """Ends the browser."""
        with contextlib.suppress(OSError):
            os.write(self._to, b'{"id": 0, "method": "Browser.close"}\0')
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._to)
        os.close(self._from)
