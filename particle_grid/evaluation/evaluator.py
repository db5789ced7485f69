"""Evaluations that a command line requests: of one policy, with films, or of several policies on several tasks."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.text import Text

from particle_grid.env import ParticleGrid
from particle_grid.evaluation import baseline, match
from particle_grid.evaluation.baseline import Baseline
from particle_grid.evaluation.players import policy_player
from particle_grid.evaluation.record import Show, check_recording, record
from particle_grid.evaluation.request import Request
from particle_grid.evaluation.scoring import evaluate_policy, show_results
from particle_grid.evaluation.transfer import Transfer, named_tasks
from particle_grid.runs.build import build_env, trained_policy
from particle_grid.runs.load import load_all
from particle_grid.settings.compose import composed
from particle_grid.sim import tasks
from particle_grid.support.text import printable


@dataclass
class Evaluator:
    """Evaluates policies on the tasks and in the worlds that are requested.

    steps: length of an episode; None for `steps_for` each environment. settings: environments and their baselines that
    were built before.
    """

    request: Request
    seeds: Sequence[int]
    steps: int | None
    device: torch.device
    console: Console = field(default_factory=lambda: Console(markup=False))
    settings: dict[tuple[str, str, int], tuple[ParticleGrid, Baseline]] = field(default_factory=dict)

    def one(self, path: str, show: Show, video: str | None, replay: str | None) -> None:
        """Print the scores of a policy, and record it.

        Args:
            path: of a checkpoint, or "pretrained".
            show: what is recorded.
            video: path of a video to write, or None.
            replay: path of a page to write, or None.

        Raises:
            UserError: for anything that is invalid, before a policy is played.
        """
        saved = self.request.load(path)
        check_recording(show, video, replay)  # fails now instead of after minutes of work
        env = build_env(saved.config)
        show.camera(env)  # for the same reason
        policy = trained_policy(saved, self.device)
        self._say(f"{printable(path)}: {saved.config.name} after {saved.steps} steps")
        steps = self.steps or match.steps_for(env)
        scale = baseline.baseline_for(env, self.console, self.seeds, steps)
        results = evaluate_policy(env, policy, scale, self.console, self.seeds, steps)
        show_results(env, results, self.console, steps)
        if video or replay:
            title = f"{env.task_name}, {saved.config.action} actions, after {saved.steps / 1e6:.1f} million steps"
            record(env, policy, self.console, show, video, replay, title, scale)

    def several(self, checkpoints: Any, names: object) -> Transfer:
        """Return the scores of policies on tasks, each in the world that it needs, changed as requested.

        Args:
            checkpoints: see `particle_grid.runs.load.load_all`.
            names: see `named_tasks`; None for the tasks that the policies were trained on.
        """
        wanted = named_tasks(names)
        policies = load_all(checkpoints, wanted or tasks.names())
        wanted = wanted or list(dict.fromkeys(saved.config.task for saved in policies.values()))
        scores = np.zeros((len(policies), len(wanted), len(self.seeds)))
        for i, (policy, saved) in enumerate(policies.items()):
            for j, task in enumerate(wanted):
                env, scale = self._setting(task, saved.config.action, saved.config.world.vision)
                with self.console.status(Text(f"Evaluating {policy} on {task}")):
                    player = policy_player(trained_policy(saved, self.device))
                    scores[i, j] = scale.normalise(match.evaluate(env, player, self.seeds, self.steps))
                if not self.console.is_terminal:
                    self._say(f"{policy} on {task}: {scores[i, j].mean():z.3f}")
        return Transfer(list(policies), wanted, self.seeds, scores)

    def _setting(self, task: str, action: str, vision: int) -> tuple[ParticleGrid, Baseline]:
        """Return the environment of a task, and its baseline."""
        key = (task, action, vision)
        if key not in self.settings:
            config = composed([f"task={task}", f"action={action}", f"world.vision={vision}"])
            env = build_env(self.request.applied_to(config))
            self.settings[key] = env, baseline.baseline_for(env, self.console, self.seeds, self.steps)
        return self.settings[key]

    def _say(self, text: str) -> None:
        self.console.print(text, soft_wrap=True)
