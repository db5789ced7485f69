"""The settings of one training run, as one frozen object."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from particle_grid.learn.config import TrainerConfig
from particle_grid.settings.checks import MOST_EPISODES, check_whole_number
from particle_grid.sim.world import World
from particle_grid.support.registry import is_place

GROUPS = ("task", "action", "policy", "world", "trainer")  # nested parts of a run's config as a dict


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides what a run computes. Built once, from the command line or from a file of a run.

    task, policy: a name, or the place of a class as module:Class. action: discrete or continuous.

    Raises:
        UserError: for a number of films or evaluations that is invalid.
    """

    task: str
    action: str
    policy: str
    task_params: Mapping[str, Any] = field(default_factory=dict)
    policy_options: Mapping[str, Any] = field(default_factory=dict)
    world: World = field(default_factory=World)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    seed: int = 0  # seed of everything random in the run
    name: str = ""
    clips: int = 5  # number of films during training, evenly spaced; 0: none, and no policy.gif at the end
    evaluations: int = 3  # number of episodes that score the policy after training; 0: none
    logger: tuple[str, ...] = ("tensorboard",)  # tensorboard, csv, wandb, trackio, mlflow or a list such as [csv,wandb]

    def __post_init__(self) -> None:
        check_whole_number("clips", self.clips, 0)
        check_whole_number("evaluations", self.evaluations, 0, MOST_EPISODES)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "RunConfig":
        """Return the settings in a nested dict, such as that of a checkpoint. Keys that are missing take defaults.

        Raises:
            ValueError or TypeError: for a world or a trainer that is invalid.
        """
        task, policy = dict(values["task"]), dict(values["policy"])
        others = {key: values[key] for key in ("seed", "name", "clips", "evaluations") if key in values}
        return cls(
            task=task.pop("name", ""),
            action=values["action"]["name"],
            policy=policy.pop("name", ""),
            task_params=task,
            policy_options=policy,
            world=World(**values["world"]),
            trainer=TrainerConfig(**values.get("trainer", {})),
            logger=tuple(values.get("logger", cls.logger)),
            **others,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as a nested dict of plain values, with the groups of the command line."""
        return {
            "task": {"name": self.task, **self.task_params},
            "action": {"name": self.action},
            "policy": {"name": self.policy, **self.policy_options},
            "world": asdict(self.world),
            "trainer": asdict(self.trainer),
            "seed": self.seed,
            "name": self.name,
            "clips": self.clips,
            "evaluations": self.evaluations,
            "logger": list(self.logger),
        }

    def flat(self) -> dict[str, Any]:
        """Return the settings under keys such as `trainer.gamma`."""
        return dict(flatten(self.to_dict()))

    def places(self) -> list[str]:
        """Return the places, module:Class, of the user's own classes."""
        names = [self.task, self.policy, self.policy_options.get("head")]
        return [str(name) for name in names if is_place(name)]


def flatten(values: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the keys, such as `trainer.gamma`, and values of a nested dict."""
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from flatten(value, f"{name}.")
        else:
            yield name, value
