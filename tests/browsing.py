"""Chromium on a page, where it is installed, by its protocol over two pipes."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")

_FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe")


class Tab:
    """A page that is open."""

    def __init__(self, asked: int, answered: int):
        """Opens an empty page; file descriptors of the protocol's pipes."""
        self._asked, self._answered = asked, answered
        self._rest = b""
        self._session: str | None = None
        self._number = 0
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        attached = self.ask("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """The answer to a command of the protocol."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method}
        message |= {"params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._asked, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                return answer["result"]

    def value(self, expression: str) -> Any:
        """What JavaScript gives, awaited if it is a promise.

        Raises:
          RuntimeError: it throws.
        """
        answer = self.ask(
            "Runtime.evaluate",
            expression=expression,
            awaitPromise=True,
            returnByValue=True,
        )
        if "exceptionDetails" in answer:
            raise RuntimeError(json.dumps(answer["exceptionDetails"], indent=1))
        return answer["result"].get("value")

    def wait(self, condition: str) -> None:
        """Returns once a condition in JavaScript is true.

        Raises:
          RuntimeError: it has not become true within a minute.
        """
        self.value(f"""new Promise((done, failed) => {{
          const late = performance.now() + 60000;
          const look = () => {{
            if ({condition}) done();
            else if (performance.now() > late) failed(document.body.innerText);
            else setTimeout(look, 5);
          }};
          look();
        }})""")

    def open(self, page: Path) -> None:
        """Goes to a page, whose script may still be at work."""
        self.ask("Page.navigate", url=page.resolve().as_uri())
        self.wait("document.readyState === 'complete'")

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            read = os.read(self._answered, 1 << 20)
            if not read:
                raise EOFError("the browser has ended")
            self._rest += read
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)


@contextlib.contextmanager
def browser() -> Iterator[Tab]:
    """A browser of its own, with an empty page."""
    assert BROWSER is not None
    ask_from, ask_to = os.pipe()
    answer_from, answer_to = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [BROWSER, *_FLAGS, f"--user-data-dir={profile}"]
        # The protocol's pipes are descriptors 3 and 4.
        shell = f'exec "$@" 3<&{ask_from} 4>&{answer_to}'
        process = subprocess.Popen(
            ["bash", "-c", shell, "bash", *command],
            pass_fds=(ask_from, answer_to),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(ask_from)
        os.close(answer_to)
        try:
            yield Tab(ask_to, answer_from)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            os.close(ask_to)
            os.close(answer_from)
