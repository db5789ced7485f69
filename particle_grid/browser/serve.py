"""A server of pages for browsers on this machine."""

import signal
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from particle_grid.support import lifeline

HOST = "127.0.0.1"  # nobody else can reach it
NAMES = (HOST, "localhost")  # of this machine; pages of other sites may reach it by another name
HTML = "text/html; charset=utf-8"
Answer = Callable[[str, Mapping[str, list[str]]], tuple[str, bytes] | None]


class Server:
    """A context manager that answers the requests of browsers on this machine, in threads of its own.

    Args:
        answer: returns the type and the content of what is at a path with a query, None if there is nothing.
    """

    def __init__(self, answer: Answer) -> None:
        self._server = _Server(answer)

    @property
    def address(self) -> str:
        """Return the address of the path `/`."""
        return f"http://{HOST}:{self._server.server_port}/"

    def wait(self, announce: Callable[[], None]) -> None:
        """Announce the page, and wait until Ctrl-C. Another signal raises KeyboardInterrupt, as in every command."""
        try:
            announce()
            threading.Event().wait()
        except KeyboardInterrupt as interrupt:
            if lifeline.exit_code(interrupt) != 128 + signal.SIGINT:
                raise

    def __enter__(self) -> "Server":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, answer: Answer) -> None:
        super().__init__((HOST, 0), _Handler)
        self.answer = answer


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        known = self.headers.get("Host", "").partition(":")[0] in NAMES
        found = self.server.answer(url.path, parse_qs(url.query)) if known else None
        if found is None:
            self.send_error(404 if known else 403)
            return
        kind, content = found
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing: the terminal shows what the command does."""
