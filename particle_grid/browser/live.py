"""A run shown in a browser on this machine while it trains: the page, with the policies of the run as it learns them.

The worlds run in the browser, so a run only copies its weights, and only if a page asks for them or a moment is due
that the page can go back to.
"""

import copy
import json
import threading
from collections.abc import Mapping
from dataclasses import replace
from time import perf_counter

from torch import Tensor

from particle_grid.browser.contents import Contents, Player
from particle_grid.browser.networks import Described
from particle_grid.browser.page import joined
from particle_grid.browser.serve import HTML, Server
from particle_grid.env import ACTIONS
from particle_grid.learn.policy import Policy
from particle_grid.settings.run_config import RunConfig

MOMENTS = 20  # policies of a whole run that are kept, at equal distances; fewer of a short run
PAUSE = 10.0  # seconds between two copies, at least, since describing one for the page takes 30 milliseconds
LIGHT = {"speed": 0, "size": 1}  # numbers of a speed and a size at which the page takes a tenth of a processor core
ABOUT = "A run that trains on this machine. The worlds run in this browser, with the policies of the run."
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
        self._taken = 0.0  # time at which the latest weights were copied
        self._asked = False
        self._page = self._joined(config).encode()
        self._keep(step, moment=True)
        self._server = Server(self._answer)

    def _joined(self, config: RunConfig) -> str:
        """Return the page as it is before training."""
        first = f"at{self.steps}"
        players = [Player(name, name, config, self._described.policy) for name in (LATEST, first)]
        contents = Contents()
        contents.add({action: replace(config, action=action) for action in ACTIONS}, players)
        run = {"action": config.action, "first": self.steps, "total": self.total}
        sides = {"left": f"{config.action}:{first}", "right": f"{config.action}:{LATEST}"}
        usual = {"title": config.name, "about": ABOUT, **sides, **LIGHT}
        return joined(contents, ["live.js"], {"run": run, "usual": usual})

    @property
    def address(self) -> str:
        """Return the address of the page."""
        return self._server.address

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """Note the score of an iteration, and copy the policy if it is due."""
        self.steps = step
        known = {name: scalars[name] for name in SCORES if name in scalars}
        shown = {NORMALISED: known[NORMALISED]} if NORMALISED in known else known
        with self._changing:
            if shown:
                self._scores.append((step, shown))
            asked = self._asked
        moment = (step - self._moments[-1]) * MOMENTS >= self.total
        if step >= self.total or ((moment or asked) and perf_counter() - self._taken >= PAUSE):
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

    def _answer(self, path: str, query: Mapping[str, list[str]]) -> tuple[str, bytes] | None:
        """Return the type and the content of what is at a path, None if there is nothing."""
        number = query.get("step", ["0"])[0]
        step = int(number) if number.isdecimal() else -1
        if path == "/":
            return HTML, self._page
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
        self._server.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.__exit__()
