"""A headless browser controlled over a pipe (the Chrome DevTools Protocol), without a driver or a network."""

import base64
import contextlib
import json
import os
import shutil
import subprocess
import time
from pathlib import Path

from particle_grid.support.errors import UserError

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
LONGEST_WAIT = 120  # seconds
OPEN = "window.page && window.page.ready()"


def check_browser() -> None:
    """Raise UserError if there is no browser, before work that would be in vain."""
    if not BROWSER:
        raise UserError("There is no Chromium on the path: install it.")


class NavigatedError(Exception):
    """The page has been replaced by another one."""


class Page:
    """A page in its own browser process. `errors` lists what went wrong in the page's scripts."""

    def __init__(self, address: str, profile: Path, size: tuple[int, int] = (1200, 800), ready: str = OPEN) -> None:
        (read_commands, commands), (answers, write_answers) = os.pipe(), os.pipe()

        def join() -> None:  # the browser reads from 3 and writes to 4
            os.dup2(read_commands, 3)
            os.dup2(write_answers, 4)

        line = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", f"--user-data-dir={profile}"]
        line += [f"--window-size={size[0]},{size[1]}", "--remote-debugging-pipe", "about:blank"]
        self.process = subprocess.Popen(
            line, preexec_fn=join, pass_fds=(3, 4), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(read_commands)
        os.close(write_answers)
        self._out, self._in = os.fdopen(commands, "wb", 0), os.fdopen(answers, "rb")
        self._count = 0
        self._session = None
        self.errors = []
        target = self("Target.createTarget", url="about:blank")["targetId"]
        self._session = self("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self("Runtime.enable")
        self("Page.navigate", url=address)
        self.until(ready)

    def __call__(self, method: str, **params: object) -> dict:
        """Send a command and return its answer."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": params}
        self._out.write(json.dumps(message | ({"sessionId": self._session} if self._session else {})).encode() + b"\0")
        while True:
            answer = json.loads(self._receive())
            if answer.get("method") == "Runtime.exceptionThrown":
                self.errors.append(answer["params"]["exceptionDetails"])
            if answer.get("id") == self._count:
                if "navigated" in answer.get("error", {}).get("message", ""):
                    raise NavigatedError
                assert "error" not in answer, answer
                return answer["result"]

    def _receive(self) -> bytes:
        data = bytearray()
        while not data.endswith(b"\0"):
            byte = self._in.read(1)
            assert byte, "the browser has ended"
            data += byte
        return bytes(data[:-1])

    def run(self, script: str) -> object:
        """Return the value of an expression, or of its promise when it is fulfilled."""
        result = self("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def until(self, condition: str) -> None:
        """Wait for an expression to be true, even if the page is reloaded meanwhile.

        Raises:
            TimeoutError: if it is not true after LONGEST_WAIT.
        """
        end = time.monotonic() + LONGEST_WAIT
        while time.monotonic() < end:
            with contextlib.suppress(NavigatedError):
                if self.run(f"Boolean({condition})"):
                    return
            time.sleep(0.05)
        raise TimeoutError(f"{condition} is not true after {LONGEST_WAIT} s. Errors of the page: {self.errors}")

    def wait(self, seconds: float) -> None:
        self.run(f"new Promise(go => setTimeout(go, {1000 * seconds}))")

    def click(self, x: float, y: float) -> None:
        for kind in ("mousePressed", "mouseReleased"):
            self("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def set_playing(self, playing: bool) -> None:
        """Let the page of the simulator play, or pause it."""
        if self.run("page.state.playing") != playing:
            self.run("document.getElementById('play').click()")

    def key(self, key: str) -> None:
        for kind in ("keyDown", "keyUp"):
            self("Input.dispatchKeyEvent", type=kind, key=key)

    def picture(self) -> bytes:
        """Return a screenshot, as PNG."""
        return base64.b64decode(self("Page.captureScreenshot")["data"])

    def __enter__(self) -> "Page":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self._out.close()
        self._in.close()
