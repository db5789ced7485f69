"""The requests of eval, play and rank: a trained policy, and the task and the world to play it in."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from particle_grid.runs.load import PRETRAINED, Checkpoint, check_action, load_shipped, load_trained
from particle_grid.settings.compose import changed_world, composed
from particle_grid.settings.run_config import RunConfig
from particle_grid.support.errors import UserError

TASK = "group"  # if neither the command line nor a checkpoint names one
FORM = "discrete"  # likewise


@dataclass(frozen=True)
class Request:
    """The part of a command line that says what is played.

    task: None for the one that the policy was trained on. action: the form of a shipped policy, or of a game without a
    policy; None for the policy's own, or else discrete. world: the settings that replace those the policy was trained
    with.
    """

    task: str | None = None
    task_params: Mapping[str, Any] = field(default_factory=dict)
    action: str | None = None
    world: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Request":
        """Return the request in the values of a command line, of which null stands for what was not asked for."""
        task = dict(values.get("task") or {})
        name = task.pop("name", None)
        world = {key: value for key, value in values["world"].items() if value is not None}
        action = dict(values.get("action") or {}).get("name")
        return cls(name, task, action, world)

    def load(self, path: str) -> Checkpoint:
        """Return a trained policy, with the requested settings.

        Args:
            path: of a checkpoint, "pretrained", or the full name of a shipped policy.

        Raises:
            UserError: if there is no such policy, or it cannot be played like that.
        """
        if not path:
            raise UserError("checkpoint= is empty: give the path of a checkpoint, or pretrained.")
        form = self.action or FORM
        saved = load_shipped(self.task or TASK, form) if path == PRETRAINED else load_trained(path)
        check_action(path, saved, self.action)
        return replace(saved, config=self.applied_to(saved.config))

    def untrained(self) -> RunConfig:
        """Return the requested settings for a game without a policy."""
        return self.applied_to(composed([f"task={self.task or TASK}", f"action={self.action or FORM}"]))

    def applied_to(self, config: RunConfig) -> RunConfig:
        """Return the settings of a run with the requested changes.

        Raises:
            UserError: for a world that is invalid.
        """
        world = changed_world(config.world, self.world)
        if self.task is None:
            return replace(config, world=world)
        return replace(config, task=self.task, task_params=self.task_params, world=world)
