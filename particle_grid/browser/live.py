"""A run shown in a browser on this machine while it trains: the page, with the policies of the run as it learns them.

The worlds run in the browser, so a run only copies its weights, and only if a page asks for them or a moment is due
that the page can go back to.
"""

import copy
import json
import threading
from collections.abc import Mapping
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from time import perf_counter
from urllib.parse import parse_qs, urlsplit

from torch import Tensor

from particle_grid.browser.contents import Contents, Player
from particle_grid.browser.networks import Described
from particle_grid.browser.page import joined
from particle_grid.env import ACTIONS
from particle_grid.learn.policy import Policy
from particle_grid.settings.run_config import RunConfig

HOST = "127.0.0.1"  # nobody else can reach it
NAMES = (HOST, "localhost")  # of this machine; pages of other sites may reach it by another name
MOMENTS = 20  # policies of a whole run that are kept, at equal distances
PAUSE = 4.0  # seconds between two copies of the latest policy, at least
LIGHT = {"speed": 0, "size": 1}  # numbers of a speed and a size at which the page takes a tenth of a processor core
LATEST = "latest"  # name of the player
NORMALISED = "env/normalised_score"
SCORES = (NORMALISED, "env/score", "env/score_1", "env/score_2")  # scalars, of which those of the first kind are shown


class Live:
    """A context manager that serves the page of a run, and a logger that tells it how the run proceeds.

    Args:
        config: of the run.
        policy: that learns.
        step: agent-steps done already.

    Raises:
        UserError: for a policy that the module cannot compute.
    """

    def __init__(self, config: RunConfig, policy: Policy, step: int) -> None:
        self.total = config.trainer.total_steps
        self.steps = step
        self._policy = policy
        self._described = Described(copy.deepcopy(policy).cpu())
        self._describing = threading.Lock()
        self._changing = threading.Lock()  # held for moments only, since training waits for it
        self._scores: list[tuple[int, dict[str, float]]] = []
        self._weights: dict[int, dict[str, Tensor]] = {}
        self._moments: list[int] = []
        self._latest = step
        self._taken = -PAUSE  # time at which the latest weights were copied
        self._asked = False
        self._page = self._joined(config).encode()
        self._keep(step, moment=True)
        self._server = _Server(self)

    def _joined(self, config: RunConfig) -> str:
        """Return the page as it is before training."""
        first = f"at{self.steps}"
        players = [Player(name, name, config, self._described.policy) for name in (LATEST, first)]
        contents = Contents()
        contents.add({action: replace(config, action=action) for action in ACTIONS}, players)
        run = {"name": config.name, "action": config.action, "first": self.steps, "total": self.total}
        usual = {"left": f"{config.action}:{first}", "right": f"{config.action}:{LATEST}", **LIGHT}
        return joined(contents, ["live.js"], {"run": run, "usual": usual})

    @property
    def address(self) -> str:
        """Return the address of the page."""
        return f"http://{HOST}:{self._server.server_port}/"

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """Note the score of an iteration, and copy the policy if it is due."""
        self.steps = step
        known = {name: scalars[name] for name in SCORES if name in scalars}
        shown = {NORMALISED: known[NORMALISED]} if NORMALISED in known else known
        with self._changing:
            if shown:
                self._scores.append((step, shown))
            asked = self._asked and perf_counter() - self._taken >= PAUSE
        moment = (step - self._moments[-1]) * MOMENTS >= self.total
        if moment or asked or step >= self.total:
            self._keep(step, moment)

    def _keep(self, step: int, moment: bool) -> None:
        """Copy the policy, and forget the one before unless the page can go back to it."""
        weights = {name: x.detach().to("cpu", copy=True) for name, x in self._policy.state_dict().items()}
        with self._changing:
            if self._latest not in self._moments:
                self._weights.pop(self._latest, None)
            self._weights[step] = weights
            self._moments += [step] if moment else []
            self._latest = step
            self._asked = False
            self._taken = perf_counter()

    def answer(self, path: str, query: Mapping[str, list[str]]) -> tuple[str, bytes] | None:
        """Return the type and the content of what is at an address, None if there is nothing."""
        number = query.get("step", ["0"])[0]
        step = int(number) if number.isdecimal() else -1
        if path == "/":
            return "text/html; charset=utf-8", self._page
        found = {"/news": self._news, "/policy": self._description}.get(path, lambda _: None)(step)
        return ("application/json", json.dumps(found, separators=(",", ":")).encode()) if found else None

    def _news(self, step: int) -> dict[str, object]:
        """Return how the run proceeds, with the scores after a step."""
        with self._changing:
            self._asked = True
            scores = [each for each in self._scores if each[0] > step]
            return {"steps": self.steps, "scores": scores, "moments": list(self._moments), "latest": self._latest}

    def _description(self, step: int) -> dict[str, object] | None:
        """Return the policy after a step, None if it has not been kept."""
        with self._changing:
            weights = self._weights.get(step)
        if weights is None:
            return None
        with self._describing:
            self._described.policy.load_state_dict(weights)
            return self._described.description()

    def __enter__(self) -> "Live":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, live: Live) -> None:
        super().__init__((HOST, 0), _Handler)
        self.live = live


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        if self.headers.get("Host", "").partition(":")[0] not in NAMES:
            self.send_error(403)
            return
        url = urlsplit(self.path)
        found = self.server.live.answer(url.path, parse_qs(url.query))
        if found is None:
            self.send_error(404)
            return
        kind, content = found
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing: the terminal shows the run."""
