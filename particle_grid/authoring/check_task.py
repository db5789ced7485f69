"""The checks of a task."""

import copy
import hashlib
import math
import pickle
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from time import perf_counter

import numba
import numpy as np

from particle_grid.authoring.findings import Check, examine
from particle_grid.env import ACTIONS, ParticleGrid
from particle_grid.evaluation import baseline
from particle_grid.evaluation.players import PlayerFactory, random_player, scripted_player
from particle_grid.runs.build import build_env
from particle_grid.settings.compose import composed
from particle_grid.settings.run_config import RunConfig
from particle_grid.support import jit
from particle_grid.support.errors import UserError

STEPS = 32  # steps of a trajectory
SEEDS = (1000, 1001, 1002)
MARGIN = 3.0  # standard errors by which the script is above random actions
ROUNDS = 3  # rounds of a measurement of speed
SECONDS = 0.2  # seconds of each round
HIDDEN = "the task keeps something that is not part of the state of the worlds: compute it from `state` and `layout`"


@dataclass(frozen=True)
class TaskClass:
    """A task, and the settings with which it is trained."""

    place: str
    settings: Sequence[str]

    @cached_property
    def configs(self) -> dict[str, RunConfig]:
        """Return the settings of a run in each action form."""
        return {form: composed([f"task={self.place}", f"action={form}", *self.settings]) for form in ACTIONS}

    def env(self, form: str) -> ParticleGrid:
        """Return a new environment, before its reset."""
        return build_env(self.configs[form])


def check(place: str, file: str, settings: Sequence[str]) -> bool:
    """Check a task, print what was found, and return whether all is well."""
    return examine(TaskClass(place, settings), file, CHECKS)


def play(env: ParticleGrid, player: PlayerFactory, steps: int = STEPS) -> Iterator[np.ndarray]:
    """Play some steps of an environment that has been reset; yield the actions of each."""
    act = player(env, 0)
    starts = np.ones(env.num_agents, bool)
    for _ in range(steps):
        actions = act(env.observations, starts)
        starts = env.step(actions)[3]
        yield actions


def trajectory(env: ParticleGrid, player: PlayerFactory = random_player) -> str:
    """Return a digest of what happens in an environment from now on: observations, rewards, scores and actions."""
    digest = hashlib.sha256()
    for actions in play(env, player):
        for array in (actions, env.observations, env.rewards, env.score()):
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def builds(task: TaskClass) -> str:
    """Check the parts, the parameters and the layout."""
    for form in ACTIONS:
        env = task.env(form)
        env.reset(0)
    world = env.world
    return f"{world.worlds} x {world.agents} agents on {world.height} x {world.width} cells, {env.task.teams} team(s)"


def leaves_state_alone(task: TaskClass) -> str:
    """Check in each step that no method writes to the state or the observations."""
    for form in ACTIONS:
        env = task.env(form)
        env.reset(0)
        for _ in play(env, scripted_player):
            env.score()
            env.proven.clear()  # so that the environment checks the next step, too
    return ""


def gives_rewards(task: TaskClass) -> str:
    """Check rewards and scores. The environment itself checks ranges and shapes in each step."""
    lowest = math.inf
    highest = -math.inf
    for form in ACTIONS:
        for player in (random_player, scripted_player):
            env = task.env(form)
            env.reset(0)
            for _ in play(env, player):
                env.score()
                lowest = min(lowest, float(env.rewards.min()))
                highest = max(highest, float(env.rewards.max()))
    if lowest == highest:
        raise UserError(
            f"every agent got the reward {lowest} in every step: write into the array that `reward` is given, as in "
            f"rewards[:] = ..., and let it depend on what the agent does."
        )
    return f"from {lowest:.3g} to {highest:.3g}"


def writes_all_rewards(task: TaskClass) -> str:
    """Check that rewards do not depend on what was in the array before."""
    for form in ACTIONS:
        env = task.env(form)
        env.reset(0)
        other = copy.deepcopy(env)
        for actions in play(env, random_player, 4):
            other.rewards[:] = 0.5
            other.step(actions)
            if not np.array_equal(env.rewards, other.rewards):
                raise UserError(
                    "`reward` leaves some entries as they were in the step before: write all of them, for example "
                    "rewards[:] = 0 before anything else."
                )
            env.rewards[:] = -0.5
    return ""


def script_beats_random(task: TaskClass) -> str:
    """Check that scores can be normalised, for each team."""
    notes = []
    for form in ACTIONS:
        measured = baseline.measure(task.env(form), SEEDS)
        random, scripted = np.array(measured.random), np.array(measured.scripted)  # [seeds, teams] each
        gap = scripted.mean(0) - random.mean(0)
        error = np.sqrt((random.var(0, ddof=1) + scripted.var(0, ddof=1)) / len(SEEDS))
        for k in range(len(gap)):
            scores = f"{scripted.mean(0)[k]:.3g} against {random.mean(0)[k]:.3g}"
            if not gap[k] > MARGIN * error[k]:
                team = f" of team {k + 1}" if len(gap) > 1 else ""
                raise UserError(
                    f"with {form} actions the script{team} scores {scores} of random actions, over {len(SEEDS)} "
                    f"episodes: scores are normalised by this difference, so let the script do clearly better."
                )
            notes.append(f"{form} {scores}")
    return ", ".join(notes)


def repeats(task: TaskClass) -> str:
    """Check that the same seed gives the same trajectory, in a new environment and after another reset."""
    for form in ACTIONS:
        for player in (random_player, scripted_player):
            envs = [task.env(form), task.env(form)]
            found = []
            for env in (envs[0], envs[1], envs[0]):
                env.reset(0)
                found.append(trajectory(env, player))
            if found[0] != found[1]:
                raise UserError(
                    f"two environments with the same seed differ ({form} actions): take random numbers from `hidden`, "
                    f"in `scripted` from its `rng`, in `init` from a generator with a fixed seed, and use no other "
                    f"generator and no clock."
                )
            if found[0] != found[2]:
                raise UserError(f"after another reset with the same seed it plays otherwise: {HIDDEN}.")
    return ""


def continues(task: TaskClass) -> str:
    """Check that copies, pickles and restored states continue alike."""
    for form in ACTIONS:
        env = task.env(form)
        env.reset(0)
        for _ in play(env, random_player):
            pass
        restored = task.env(form)
        restored.load_state_dict(env.state_dict())
        copies = {
            "a restored state": restored,
            "a copy": copy.deepcopy(env),
            "a pickle": pickle.loads(pickle.dumps(env)),
        }
        expected = trajectory(env)
        for name, other in copies.items():
            if trajectory(other) != expected:
                raise UserError(f"{name} continues otherwise ({form} actions): {HIDDEN}.")
    return ""


def ignores_threads(task: TaskClass) -> str:
    """Check that two threads compute what one does, with as many worlds as it takes to use two."""
    if numba.config.NUMBA_NUM_THREADS < 2:
        return "not checked, because this process has only one"
    before = numba.get_num_threads()
    config = task.configs["continuous"]
    world = replace(config.world, worlds=-(-jit.FEW_AGENTS // config.world.agents))
    found = []
    try:
        for threads in (1, 2):
            numba.set_num_threads(threads)
            env = build_env(replace(config, world=world))
            env.reset(0)
            found.append(trajectory(env))
    finally:
        numba.set_num_threads(before)
    if found[0] != found[1]:
        raise UserError(
            "with two threads it plays otherwise: in a parallel_kernel, let each turn of the prange loop write only "
            "entries of its own agent."
        )
    return ""


def measures_speed(task: TaskClass) -> str:
    """Measure the simulator with this task and with one that ships, in turn."""
    own = task.env("continuous")
    name = "scatter" if own.task.sight else "center"
    other = ParticleGrid(name, "continuous", world=own.world)
    best = {own: 0.0, other: 0.0}
    for _ in range(ROUNDS):
        for env in best:
            best[env] = max(best[env], steps_per_second(env))
    return (
        f"{best[own] / 1e6:.2f} million agent-steps/s, {best[own] / best[other]:.2f} times {name} in the same world"
        f"{'; see parallel_kernel in docs/own.md' if best[own] < best[other] / 4 else ''}"
    )


def steps_per_second(env: ParticleGrid) -> float:
    """Return the agent-steps per second of the simulator with random actions that were drawn before."""
    env.reset(0)
    act = random_player(env, 0)
    draws = [act(env.observations, env.truncations) for _ in range(8)]
    env.step(draws[0])  # may compile
    steps = 0
    begin = perf_counter()
    while perf_counter() - begin < SECONDS:
        env.step(draws[steps % len(draws)])
        steps += 1
    return steps * env.num_agents / (perf_counter() - begin)


CHECKS = (
    Check("parts, parameters and layout", builds, vital=True),
    Check("steps can be made; the state and the observations stay as they are", leaves_state_alone, vital=True),
    Check("rewards and scores, with discrete and continuous actions", gives_rewards, vital=True),
    Check("the same seed gives the same trajectory", repeats, vital=True),
    Check("every reward is written in every step", writes_all_rewards),
    Check("the script scores above random actions", script_beats_random),
    Check("copies, pickles and restored states continue alike", continues),
    Check("one and two threads give the same trajectory", ignores_threads),
    Check("speed of the simulator", measures_speed),
)
