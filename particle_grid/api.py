"""Load, evaluate, film, export and train policies from Python. `particle_grid` exports these names."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from particle_grid.env import ParticleGrid
from particle_grid.evaluation import record as recording
from particle_grid.evaluation.baseline import baseline_for
from particle_grid.evaluation.match import SEEDS, steps_for
from particle_grid.evaluation.players import ActFn, policy_player
from particle_grid.evaluation.scoring import evaluate_policy
from particle_grid.experiments.training import prepared, train
from particle_grid.exports import exporter
from particle_grid.learn.distributed import choose_device
from particle_grid.learn.policy import Policy
from particle_grid.runs.build import trained_policy
from particle_grid.runs.folder import RunFolder
from particle_grid.runs.load import (
    Checkpoint,
    check_action,
    is_shipped,
    load_shipped,
    load_trained,
    shipped_tasks,
)
from particle_grid.runs.results import Results
from particle_grid.settings.checks import check_overrides, check_places, check_whole_number
from particle_grid.settings.compose import composed, from_values
from particle_grid.settings.errors import EXPECTED, explain
from particle_grid.settings.invocation import Invocation
from particle_grid.settings.run_config import RunConfig
from particle_grid.sim.actions import check_form
from particle_grid.sim.rng import check_seed
from particle_grid.support import registry
from particle_grid.support.errors import UserError, UserTypeError, unknown


@dataclass(frozen=True)
class TrainedPolicy:
    """A policy, and how it was trained.

    policy: the network, a `torch.nn.Module`. config: the settings of its training. steps: agent-steps of its training.
    score: the mean normalised score of a policy that ships.

    >>> policy = load_policy("forage", action="continuous")
    >>> env = policy.make_env(agents=64, height=48, width=48)
    >>> act = policy.player(env)
    >>> observations, _ = env.reset(seed=0)
    >>> starts = np.ones(env.num_agents, bool)  # agents whose episode begins now
    >>> for _ in range(10):
    ...     observations, rewards, _, starts, _ = env.step(act(observations, starts))
    """

    policy: Policy
    config: RunConfig
    steps: int
    score: float | None = None

    def make_env(self, **changes: Any) -> ParticleGrid:
        """Return a new environment with the settings that the policy was trained with.

        Args:
            **changes: arguments of `ParticleGrid` that replace some of them. Another `task` has its own parameters,
                and a `world` replaces the whole world.

        Raises:
            UserError: for settings that are invalid.

        >>> load_policy("center").make_env(agents=16, height=32, width=32).num_agents
        16
        """
        config = self.config
        settings: dict[str, Any] = {"task": config.task, "action": config.action, "seed": config.seed}
        if "task" not in changes or changes["task"] == config.task:
            settings |= config.task_params
        if "world" not in changes:
            settings |= vars(config.world)
        return ParticleGrid(**settings | changes)

    def player(self, env: ParticleGrid, seed: int = 0, greedy: bool = False) -> ActFn:
        """Return a function from observations and episode starts to the actions of all agents. It keeps their memory.

        Args:
            env: the environment to play in.
            seed: of the sampling.
            greedy: whether to take the most probable actions instead of sampling.

        Raises:
            UserError: if the policy cannot play in the environment, or the seed is invalid.
        """
        self.check_env(env)
        check_seed(seed)
        _check_kind("greedy", greedy, bool, "give True or False")
        return policy_player(self.policy, greedy)(env, seed)

    def check_env(self, env: ParticleGrid) -> None:
        """Raise UserError if the policy cannot play in an environment."""
        _check_kind("env", env, ParticleGrid, "use policy.make_env(), or the attribute native of an adapter")
        vision = self.config.world.vision
        if env.vision != vision:
            raise UserError(f"The policy sees {vision} cells in each direction, not {env.vision}: use vision={vision}.")
        if env.discrete and self.config.action != "discrete":
            raise UserError("The policy has continuous actions: use an environment with action='continuous'.")


def load_policy(
    name: str | Path, action: str | None = None, device: str = "auto", allow: str | Sequence[str] = ()
) -> TrainedPolicy:
    """Return a trained policy.

    Args:
        name: a policy that ships with the package, as pretrained/group-discrete, or by its task only; or the path of a
            checkpoint, or of a .safetensors file that the command export has written.
        action: discrete (the default) or continuous, of a policy that is named by its task. All others have their own,
            which it must not contradict.
        device: cpu, cuda, or auto for a GPU if there is one.
        allow: classes of your own, as module:Class, that a checkpoint names and that may be imported.

    Raises:
        UserError: if there is no such policy, it has another action form, the file is not a checkpoint, or it names a
            class that is not allowed.

    >>> load_policy("pretrained/group-continuous").config.action
    'continuous'
    >>> load_policy("group", action="continuous").config.task
    'group'
    """
    if not isinstance(name, str | Path) or not str(name):
        raise UserError(f"name={name!r} does not name a policy: give a task such as 'group', or a path.")
    if action is not None:
        check_form(action)
    text = str(name)
    shipped = shipped_tasks()
    if text in shipped:
        saved = load_shipped(text, action or "discrete")
    elif is_shipped(text) or Path(text).suffix or os.path.exists(text):  # False for a name that is too long
        saved = load_trained(text)
    else:
        raise UserError(unknown(f"policy {text!r}", text, shipped), "The path of a checkpoint is another choice.")
    check_action(text, saved, action)
    with registry.only(check_places(allow)):  # to import a module is to run it
        policy = trained_policy(saved, choose_device(device))
    return TrainedPolicy(policy, saved.config, saved.steps, saved.score)


def evaluate(
    policy: TrainedPolicy, env: ParticleGrid | None = None, seeds: Sequence[int] = SEEDS, steps: int | None = None
) -> Results:
    """Return the scores of a policy's sampled and greedy actions, of random actions and of the script.

    Args:
        policy: a policy of `load_policy` or `train_policy`.
        env: the environment to play in; None for the one that the policy was trained in.
        seeds: one episode is played with each.
        steps: length of an episode; None for the agents' expected life, see `steps_for`.

    Raises:
        UserError: if the policy cannot play in the environment.

    >>> policy = load_policy("center")
    >>> env = policy.make_env(agents=64, height=48, width=48)
    >>> results = evaluate(policy, env, seeds=[0], steps=64)
    >>> results.mean("sampled") > results.mean("random")
    True
    """
    _check_policy(policy)
    _check_kind("seeds", seeds, Iterable, "give several, such as range(3)")
    env = policy.make_env() if env is None else env
    policy.check_env(env)
    length = steps_for(env) if steps is None else check_whole_number("steps", steps, 1)
    episodes = list(seeds)
    console = Console(quiet=True)
    return evaluate_policy(env, policy.policy, baseline_for(env, console, episodes, length), console, episodes, length)


def record(policy: TrainedPolicy, path: str | Path, env: ParticleGrid | None = None, **show: Any) -> None:
    """Play a policy, and write a video (.gif or .mp4) or a page that replays it in a browser (.html).

    Args:
        policy: a policy of `load_policy` or `train_policy`.
        path: of the file.
        env: the environment to play in; None for the one that the policy was trained in.
        **show: see `particle_grid.evaluation.record.Show`: steps, seed, fps, agent, region, pixels, trails, ...

    Raises:
        UserError: for a path or a value that is invalid, or if the policy cannot play in the environment.
        OSError: if the file cannot be written.

    >>> policy = load_policy("forage")
    >>> record(policy, "forage.gif", policy.make_env(agents=64, height=48, width=48), steps=8)
    """
    _check_policy(policy)
    _check_path("path", path, "name a file that ends in .gif, .mp4 or .html")
    env = policy.make_env() if env is None else env
    policy.check_env(env)
    shown = from_values(recording.Show, "show", show)
    console = Console(quiet=True)
    if Path(path).suffix.lower() == ".html":
        title = f"{env.task_name}, {policy.config.action} actions"
        recording.record(env, policy.policy, console, shown, replay=path, title=title)
    else:
        recording.record(env, policy.policy, console, shown, video=path)


def export_policy(policy: TrainedPolicy, path: str | Path, results: Results | None = None) -> None:
    """Write a policy as an ONNX model or as weights, and a model card beside it. docs/export.md says what they hold.

    Args:
        policy: a policy of `load_policy` or `train_policy`.
        path: of the file, which ends in .onnx or .safetensors.
        results: its scores, for the card.

    Raises:
        UserError: for a path that is invalid, a library that is not installed, or a policy that ONNX cannot express.
        OSError: if a file cannot be written.

    >>> export_policy(load_policy("pretrained/group-discrete"), "group.safetensors")
    >>> load_policy("group.safetensors").config.task
    'group'
    """
    _check_policy(policy)
    _check_path("path", path, "name a file that ends in .onnx or .safetensors")
    saved = Checkpoint(policy.config, policy.steps, policy.policy.state_dict(), policy.score)
    exporter.export(saved, policy.policy, [Path(path)], results or Results())


def make_config(*overrides: str) -> RunConfig:
    """Return the settings that `python -m particle_grid.train` has with these overrides.

    Raises:
        UserError: for an override that is invalid, or that concerns a command instead of the settings of a run.

    >>> make_config("task=group", "action=continuous", "world.agents=512").world.agents
    512
    """
    check_overrides(overrides)
    try:
        return composed(overrides)
    except UserError:
        raise
    except EXPECTED as error:
        raise UserError(explain(error)) from error


def train_policy(config: RunConfig, folder: str | Path) -> TrainedPolicy:
    """Train a policy as `python -m particle_grid.train` does, and return it.

    Args:
        config: the settings, such as those of `make_config`.
        folder: a new or empty folder, for the checkpoint, learning curves and results.

    Raises:
        UserError: if the folder holds another run, or the settings are invalid.
        KeyboardInterrupt: for Ctrl-C, once the run has saved.

    >>> small = ["world.agents=32", "world.height=32", "world.width=32", "trainer.total_steps=4096"]
    >>> config = make_config("task=center", "policy=mlp", "evaluations=0", "clips=0", *small)
    >>> policy = train_policy(config, "center_run")  # doctest: +ELLIPSIS
    center...
    >>> policy.steps >= 4096
    True
    """
    _check_kind("config", config, RunConfig, "make one, as in make_config('task=group')")
    _check_path("folder", folder, "name a new folder, or an empty one")
    run = RunFolder(Path(folder))
    run.path.mkdir(parents=True, exist_ok=True)
    with prepared(config) as group, run.for_new_run(None):
        train(config, Invocation(run.path), None, group)
    return load_policy(run.checkpoint, device=config.trainer.device, allow=config.places())


def _check_policy(policy: object) -> None:
    """Raise UserTypeError unless a policy is one of `load_policy` or `train_policy`."""
    _check_kind("policy", policy, TrainedPolicy, "load one, as in load_policy('group')")


def _check_kind(name: str, value: object, kind: type, remedy: str) -> None:
    """Raise UserTypeError unless a value is of a kind."""
    if not isinstance(value, kind):
        raise UserTypeError(f"{name} has the type {type(value).__name__}, not {kind.__name__}: {remedy}.")


def _check_path(name: str, value: object, remedy: str) -> None:
    """Raise UserError for anything but a path, such as an empty text."""
    if not isinstance(value, str | Path) or not str(value):
        raise UserError(f"{name}={value!r} is not a path: {remedy}.")
