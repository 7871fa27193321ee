"""A real browser: chromium, driven through a pipe of its developer tools."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .waiting import LIMIT

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

KEYS = {"Tab": 9, "Enter": 13, " ": 32}
"""Those with no text of their own, or of which a page may ask more than the text."""


def installed() -> str | None:
    """The path of a browser, if there is one."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """One page of a browser. `requests` are the addresses that it asked for, `blocked` those that
    its policy forbade; `problems` is what its scripts complained of, dialogs among it.
    """

    def __init__(self, read: int, write: int) -> None:
        self._read, self._write = read, write
        self._buffer = b""
        self._count = 0
        self._session: str | None = None
        self._loaded: set[str] = set()
        self._addresses: dict[str, str] = {}
        self.requests: list[str] = []
        self.blocked: list[str] = []
        self.problems: list[str] = []

    def call(self, method: str, **parameters: object) -> dict[str, Any]:
        """Calls a method of the developer tools and returns its result."""
        self._count += 1
        number = self._count
        message: dict[str, object] = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            found = self._next()
            if found.get("id") == number:
                assert "error" not in found, f"{method}: {found['error']}"
                result: dict[str, Any] = found["result"]
                return result

    def _next(self) -> dict[str, Any]:
        """The next message; what is told of the page is taken down."""
        end = time.monotonic() + LIMIT
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], max(0, end - time.monotonic()))
            assert ready, "the browser does not answer"
            data = os.read(self._read, 1 << 20)
            assert data, "the browser has ended"
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        told = message.get("params", {})
        match message.get("method"):
            case "Network.requestWillBeSent":
                self.requests.append(told["request"]["url"])
                self._addresses[told["requestId"]] = told["request"]["url"]
            case "Network.loadingFailed":
                if told.get("blockedReason") == "csp":
                    self.blocked.append(self._addresses[told["requestId"]])
            case "Page.javascriptDialogOpening":
                self.problems.append(f"dialog: {told['message']}")
                self._send("Page.handleJavaScriptDialog", accept=True)
            case "Runtime.exceptionThrown":
                self.problems.append(str(told["exceptionDetails"]))
            case "Log.entryAdded":
                self.problems.append(told["entry"]["text"])
            case "Page.lifecycleEvent" if told["name"] == "load":
                self._loaded.add(told["loaderId"])
        return message

    def _send(self, method: str, **parameters: object) -> None:
        self._count += 1
        message = {"id": self._count, "method": method, "params": parameters}
        os.write(self._write, json.dumps({**message, "sessionId": self._session}).encode() + b"\0")

    def attach(self) -> None:
        """Opens the page and listens to it."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self._session = session
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        self.call("Page.setLifecycleEventsEnabled", enabled=True)
        # As if its window had the focus of a desktop
        self.call("Emulation.setFocusEmulationEnabled", enabled=True)

    def open(self, path: Path) -> None:
        """Loads a file, and forgets what was before."""
        self._load("about:blank")
        self.requests, self.blocked, self.problems = [], [], []
        self._load(path.as_uri())

    def _load(self, address: str) -> None:
        loader = self.call("Page.navigate", url=address)["loaderId"]
        while loader not in self._loaded:
            self._next()

    def run(self, code: str) -> Any:
        """The value of an expression of JavaScript in the page."""
        found = self.call("Runtime.evaluate", expression=code, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def press(self, key: str) -> None:
        """Presses a key as a person does."""
        code = KEYS[key]
        text = {"Enter": "\r", " ": " "}.get(key)
        more = {"text": text} if text else {}
        same = {"key": key, "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown", **same, **more)
        self.call("Input.dispatchKeyEvent", type="keyUp", **same)

    def type(self, text: str) -> None:
        """Types into what has the focus."""
        self.call("Input.insertText", text=text)

    def resize(self, width: int, height: int = 900) -> None:
        """Makes the window this large, in pixels."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=False,
        )  # fmt: skip


@contextmanager
def browser(program: str, profile: Path) -> Iterator[Browser]:
    """A browser that ends with the block; `profile` is an empty folder of its own."""
    its_input, ours_out = os.pipe()
    ours_in, its_output = os.pipe()
    # The browser reads from descriptor 3 and writes to 4, whatever these have become here
    command = 'exec 3<&"$1" 4>&"$2"; shift 2; exec "$@"'
    options = [
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
        "--no-first-run", "--disable-background-networking", "--disable-component-update",
        "--remote-debugging-pipe", f"--user-data-dir={profile}",
    ]  # fmt: skip
    process = subprocess.Popen(
        ["bash", "-c", command, "bash", str(its_input), str(its_output), program, *options],
        pass_fds=(its_input, its_output),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env={**os.environ, "HOME": str(profile)},
    )
    os.close(its_input)
    os.close(its_output)
    try:
        made = Browser(ours_in, ours_out)
        made.attach()
        yield made
    finally:
        # It ends when nobody can speak to it any more
        os.close(ours_out)
        os.close(ours_in)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
