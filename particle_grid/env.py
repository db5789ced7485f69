"""ParticleGrid: the simulator as a native PufferLib environment. It runs the kernels, in order, on its buffers."""

import inspect
import shutil
from collections.abc import Callable
from copy import deepcopy
from dataclasses import fields
from typing import Any, ClassVar

import numpy as np
import pufferlib
from gymnasium.spaces import Box, MultiDiscrete

from particle_grid.sim import observe, rng, tasks
from particle_grid.sim.advance import Stages, compile_stages
from particle_grid.sim.memory import buffer_shapes, check_buffers, check_memory
from particle_grid.sim.motion import charge
from particle_grid.sim.scripted import actions_for
from particle_grid.sim.snapshot import restore
from particle_grid.sim.state import allocate, make_rules, window_rows
from particle_grid.sim.world import AGENT_1, FOOD, UNSEEN, WALL, Layout, World
from particle_grid.support.jit import threads
from particle_grid.view.camera import Camera
from particle_grid.view.terminal import ansi
from particle_grid.view.window import Window

ACTIONS = ("discrete", "continuous")
RENDER_MODES = ("rgb_array", "ansi", "human")
LARGEST = float(np.finfo(np.float32).max)  # kernels take the parameters of tasks as float32
REPORT_EVERY = 32  # steps between two infos
# Why no step can be made: agents are nowhere, and kernels would look them up there, or some have moved and others not.
NEW = "The worlds have not been started: call reset()"
BROKEN = "A reset or a step was broken off halfway: call reset(), or load_state_dict(),"


class Turn:
    """`with turn:` around what changes arrays. Raises RuntimeError where another call is within: kernels run side by
    side, and two threads would write the same cells."""

    def __init__(self) -> None:
        self.taken = False

    def take(self) -> None:
        if self.taken:  # nobody comes in between: Python changes threads at calls and backward jumps only
            raise RuntimeError(
                "This environment is in the middle of another call, of another thread or of its own task: let threads "
                "take turns, or give each its own environment (copy.deepcopy)."
            )
        self.taken = True

    __enter__ = take

    def __exit__(self, *_: object) -> None:
        self.taken = False


class ParticleGrid(pufferlib.PufferEnv):
    """Particles on a grid, in one or several worlds. num_agents = N = worlds * agents.

    Observations are uint8[N, (2 * vision + 1)**2 + 7]: the window around the agent row by row (0 empty, 1 food, 2 wall,
    3 to 6 agents by colour), then its row and column in the field, its place in its cell (row, column), its last
    displacement (row, column; 128 is none) and its last reward (128 is 0).

    Actions are (row, column): `discrete` MultiDiscrete([3, 3]), where 0, 1, 2 mean -1, 0, 1, or `continuous`
    Box(-1, 1, (2,)), times `speed` cells; or times `acceleration`, which is then added to the velocity. Both see the
    same.

    Truncation: an agent that respawns, or whose world starts anew, does not act in that step. Its action is ignored,
    its reward is 0, `truncations` is set, and the observation is the first of its new episode. The observation before
    it was the last of the old one: its value is the exact bootstrap for the step before. Nothing ever terminates.

    task: one of `particle_grid.sim.tasks.names()`, with its parameters as `task_params`.
    worlds, agents (in each), height, width (cells), vision, speed (cells a step), lifespan (expected steps until an
    agent respawns), max_episode_steps (steps until a world restarts, each at another time), walls (share of the cells),
    dynamics ("kinematic", or "inertial" with acceleration and drag), action_cost (share of the reward that is minus
    the effort): see `World`.
    seed: for a first `reset()` without one. buf: PufferLib's buffers, made here if None.
    checked: raise on actions that are out of range, NaN or infinite, which are else clipped or mean "stay".
    render_mode: what `render` gives, one of `metadata["render_modes"]`, or None.

    A copy or a pickle of it has arrays of its own, `buf` or not, and continues bit for bit. Threads may take turns.

    Raises ValueError or TypeError, in one sentence, for whatever cannot be built.
    """

    observations: np.ndarray  # the buffers, of which `buf` may be the owner
    actions: np.ndarray
    rewards: np.ndarray
    terminals: np.ndarray
    truncations: np.ndarray
    masks: np.ndarray
    num_agents: int

    metadata: ClassVar[dict[str, Any]] = {"render_modes": list(RENDER_MODES), "render_fps": 20}

    def __init__(
        self,
        task: str = "group",
        action: str = "continuous",
        worlds: int = 1,
        agents: int = 4096,
        height: int = 1024,
        width: int = 1024,
        vision: int = 5,
        speed: float = 1.0,
        seed: int | None = 0,
        buf: dict[str, np.ndarray] | None = None,
        *,
        lifespan: float = 150.0,
        max_episode_steps: int = 0,
        walls: float = 0.0,
        dynamics: str = "kinematic",
        acceleration: float = 0.25,
        drag: float = 0.1,
        action_cost: float = 0.0,
        checked: bool = False,
        render_mode: str | None = None,
        **task_params: Any,
    ) -> None:
        if not isinstance(action, str) or action not in ACTIONS:
            raise ValueError(f"There is no action form {action!r}. The action forms are: {', '.join(ACTIONS)}.")
        rng.check_seed(seed)
        if render_mode is not None and not (isinstance(render_mode, str) and render_mode in RENDER_MODES):
            raise ValueError(f"There is no render_mode {render_mode!r}. There are: {', '.join(RENDER_MODES)}, or None.")
        self.world = World(
            *(worlds, agents, height, width, vision, speed, lifespan, max_episode_steps, walls),
            *(dynamics, acceleration, drag, action_cost),
        )
        check_memory(self.world)
        self.task_name, self.task, self.checked = task, make_task(task, task_params), checked
        self.discrete, self.vision = action == "discrete", self.world.vision
        self.layout = Layout(self.world)
        init: Callable[..., object] = self.task.init
        self._check_written("init", init(self.layout))
        self.rules = make_rules(self.layout, self.discrete)
        self.state = allocate(self.layout)
        self.num_agents = self.world.worlds * self.world.agents
        self.single_observation_space = Box(0, 255, (self.world.row,), np.uint8)
        self.single_action_space = (
            MultiDiscrete([3, 3], dtype=np.int32) if self.discrete else Box(-1.0, 1.0, (2,), np.float32)
        )
        if buf is not None:
            check_buffers(buf, buffer_shapes(self.world, self.single_action_space.dtype))
        super().__init__(buf)
        if not self.task.sight:
            self.state.own_in_sight[:], self.state.others_in_sight[:] = UNSEEN, UNSEEN
        self._bind()
        self.render_mode = render_mode
        self.camera = self._camera() if render_mode else None
        self.seed, self._halted = 0 if seed is None else seed, NEW
        self._steps = 0  # since the reset

    __copy__ = deepcopy  # one that shared arrays would move the agents of both

    def __getstate__(self) -> dict[str, Any]:
        """All but what belongs to these very arrays and this process, for copies and pickles. They get arrays of their
        own, buffers too, and continue bit for bit; a window stays with the original."""
        with self._turn:
            return {name: value for name, value in vars(self).items() if name not in ("_compiled", "_window", "_turn")}

    def __setstate__(self, saved: dict[str, Any]) -> None:
        self.__dict__.update(saved)
        self.rules = self.rules._replace(rows=window_rows(self.vision))  # another machine may need other kernels
        self._bind()

    def _bind(self) -> None:
        """Sets what belongs to these arrays and this process only."""
        self._compiled: dict[int, Stages] = {}  # by threads
        self._window: Window | None = None
        self._turn = Turn()

    def reset(self, seed: int | None = None) -> tuple[np.ndarray, list[dict[str, float]]]:
        """Starts all worlds; the same seed gives the same bytes. Without a seed the generators go on. Raises ValueError
        for what is no seed."""
        rng.check_seed(seed)
        with self._turn:
            stages = self._stages()
            if seed is not None or self._halted == NEW:
                self.state.rng[:] = rng.seeded(self.seed if seed is None else seed, self.world.worlds)
            self._halted, self._steps = BROKEN, 0
            stages.start()
            self.state.finished[:], self.state.last_reward[:] = 0, observe.NO_REWARD
            stages.look()
            self.rewards[:], self.terminals[:], self.truncations[:], self.masks[:] = 0, False, False, True
            self._halted = ""
        return self.observations, []

    def step(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, list[dict[str, float]]]:
        """One step of all agents. actions: integers or floats [N, 2], as the action form wants; raises if not so.

        What is raised in the middle of it, by the task or by Ctrl-C, leaves half a step: the next call is to be `reset`
        or `load_state_dict`."""
        if self._halted:
            self._check_whole("step")  # which raises
        stages, actions = self._stages(), self._valid(actions)
        turn = self._turn
        if turn.taken:
            turn.take()  # which raises
        turn.taken = True  # `with` would cost few agents as much as all else that is checked here
        try:
            stages.move(actions)
            if self.task.sight:  # the reward needs what the agents see
                stages.look()
                self._reward(stages, actions)
            else:  # else it goes into their observations at once
                self._reward(stages, actions)
                stages.look()
            self._steps += 1
            infos = [self._report()] if self._steps % REPORT_EVERY == 0 else []
        except BaseException:
            self._halted = BROKEN
            raise
        finally:
            turn.taken = False
        return self.observations, self.rewards, self.terminals, self.truncations, infos

    def _check_whole(self, method: str) -> None:
        """Raises RuntimeError before the first reset, and in the middle of a step that was broken off."""
        if self._halted:
            with self._turn:  # which raises where another thread is within a reset
                raise RuntimeError(f"{self._halted} before {method}().")

    def _valid(self, actions: np.ndarray) -> np.ndarray:
        """The actions as the kernels take them. Raises ValueError or TypeError for another shape or kind."""
        wanted = self.actions.dtype
        if type(actions) is not np.ndarray or actions.dtype != wanted or not actions.flags.carray or self.checked:
            actions = self._converted(self._as_array(actions))
        if actions.shape != self.actions.shape:
            raise ValueError(
                f"actions have the shape {actions.shape}, but {self.num_agents} agents need {self.actions.shape}."
            )
        return actions

    def _as_array(self, actions: Any) -> np.ndarray:
        """Raises TypeError for what NumPy makes no array of numbers of."""
        try:
            return np.asarray(actions)
        except (ValueError, TypeError, RuntimeError) as error:
            raise TypeError(
                f"actions are a {type(actions).__name__} that is no array ({error}): give a NumPy array "
                f"{list(self.actions.shape)}."
            ) from error

    def _converted(self, actions: np.ndarray) -> np.ndarray:
        """Actions of any width as the buffer's. Raises TypeError for another kind, and in checked mode ValueError for
        those out of range."""
        if actions.dtype.kind not in ("iu" if self.discrete else "f"):
            kind = "integers (0, 1, 2)" if self.discrete else "floats in [-1, 1]"
            raise TypeError(f"actions are {actions.dtype}, but this action form needs {kind}: convert them first.")
        low, high = (0, 2) if self.discrete else (-1, 1)
        if self.checked and actions.shape == self.actions.shape:
            wrong = np.flatnonzero(~((actions >= low) & (actions <= high)).all(1))  # NaN fails both
            if len(wrong):
                raise ValueError(
                    f"The action {actions[wrong[0]]} of agent {wrong[0]} is not within [{low}, {high}]: clip it, or "
                    f"build the environment with checked=False, which clips and lets agents with NaN stay."
                )
        if self.discrete:  # what does not fit into the buffer's integers is out of range anyway
            actions = np.clip(actions, low, high)
        with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite
            return np.require(actions, self.actions.dtype, ["C", "A"])

    def _stages(self) -> Stages:
        """The stages of a step for as many threads as there are now."""
        count = threads(self.num_agents)
        if count not in self._compiled:
            buffers = self.actions, self.truncations, self.observations, self.rewards
            self._compiled[count] = compile_stages(self.state, self.rules, *buffers, self.task.sight, count)
        return self._compiled[count]

    def _reward(self, stages: Stages, actions: np.ndarray) -> None:
        """Writes the rewards of the step just made. Raises ValueError for those out of range."""
        write: Callable[..., object] = self.task.reward
        if (returned := write(self.state, self.layout, self.rewards)) is not None:
            self._check_written("reward", returned)
        if self.world.action_cost:
            charge(self.rewards, actions, self.rules.centre, np.float32(self.world.action_cost))
        if stages.finish():
            agent = np.flatnonzero(~(np.abs(self.rewards) <= 1))[0]
            raise ValueError(
                f"Task {self.task_name} gave agent {agent} the reward {self.rewards[agent]}: scale it into [-1, 1]."
            )

    def _check_written(self, method: str, returned: object) -> None:
        """Raises TypeError for a method of the task that returns what it should have written."""
        if returned is not None:
            raise TypeError(
                f"`{method}` of task {self.task_name} returns a {type(returned).__name__}: it should write into its "
                f"last argument, and return nothing."
            )

    @property
    def unit(self) -> str:
        """Of the score: the task's, or where actions cost something the reward, since success alone costs nothing."""
        return "reward a step" if self.world.action_cost else self.task.unit

    def score(self) -> np.ndarray:
        """Score of the last step, in the `unit`, f64[teams], each the mean over the agents of a side. Raises ValueError
        where a task gives none."""
        self._check_whole("score")
        each = self.rewards if self.world.action_cost else np.asarray(self.task.score(self.state, self.layout))
        numbers = each.dtype.kind in "biuf" and np.isfinite(each).all()
        if each.shape != (self.num_agents,) or not numbers:
            what = "some that are no numbers" if each.shape == (self.num_agents,) else f"an array {list(each.shape)}"
            raise ValueError(f"Task {self.task_name} gave {what} as scores: give a number for each agent.")
        if self.task.teams == 1:
            return each.mean(keepdims=True, dtype=np.float64)
        return np.array([each[self.team(k)].mean(dtype=np.float64) for k in range(self.task.teams)])

    def team(self, k: int) -> np.ndarray:
        """Which agents are of side k, bool[N]: all of them where a task has one side only. Raises ValueError for a side
        that there is not."""
        if k not in range(self.task.teams):
            raise ValueError(f"There is no team {k!r}: task {self.task_name} has the teams 0 to {self.task.teams - 1}.")
        return self.state.colour == AGENT_1 + k if self.task.teams > 1 else np.ones(self.num_agents, bool)

    def due(self) -> np.ndarray:
        """Which agents respawn in the next step whatever they do, bool[N]: what they see now is the last of their life,
        and `truncations` of the next step will be the same."""
        following = self.state.tick[:, None] + 1  # [worlds, 1]
        due = self.state.expiry.reshape(len(following), -1) <= following  # [N] -> [worlds, agents]
        if self.world.max_episode_steps:
            due |= self.world.max_episode_steps <= following
        return due.reshape(-1)  # [worlds, agents] -> [N]

    def scripted_actions(self, generator: np.ndarray) -> np.ndarray:
        """The actions of the task's scripted policy for the present observations; generator u64[1] is its own. Raises
        ValueError where it aims nowhere, or for another generator."""
        self._check_whole("scripted_actions")
        rng.check_generator(generator)
        aim = np.zeros((self.num_agents, 2), np.float32)
        write: Callable[..., object] = self.task.scripted
        self._check_written("scripted", write(self.observations, self.layout, generator, aim))
        if not np.isfinite(aim).all():
            agent = np.flatnonzero(~np.isfinite(aim).all(1))[0]
            raise ValueError(
                f"The script of task {self.task_name} aims at {aim[agent]} for agent {agent}: give numbers."
            )
        return actions_for(aim, self.observations, self.rules, self.discrete)

    def _report(self) -> dict[str, float]:
        """Score now, share of agents that moved, and the mean return and length of episodes since the last report."""
        score = self.score()
        report = {"score": float(score[0])} if len(score) == 1 else {}
        report |= {f"score_{k + 1}": float(value) for k, value in enumerate(score) if len(score) > 1}
        report["moved"] = np.count_nonzero(self.state.displacement.any(0)) / self.num_agents
        episodes, returns, lengths = self.state.finished.sum(0)
        if episodes:
            report |= {"episode_return": returns / episodes, "episode_length": lengths / episodes}
        self.state.finished[:] = 0
        return report

    def _arrays(self) -> dict[str, np.ndarray]:
        """All arrays that change while the environment runs: views, not copies."""
        buffers = {name: getattr(self, name) for name in ("observations", "rewards", "terminals", "truncations")}
        return self.state._asdict() | buffers

    def state_dict(self) -> dict[str, np.ndarray]:
        """A copy of everything: `load_state_dict` in an equal environment continues bit for bit. Raises RuntimeError
        for what could not be loaded: before the first reset, and where a step was broken off."""
        self._check_whole("state_dict")
        with self._turn:
            return {name: array.copy() for name, array in self._arrays().items()} | {"steps": np.array([self._steps])}

    def load_state_dict(self, saved: dict[str, np.ndarray]) -> None:
        """Takes over a `state_dict`. Raises ValueError for one that is damaged or of other settings."""
        steps = {"steps": np.zeros(1, np.int64)}
        with self._turn:
            restore(self._arrays() | steps, saved, self.rules, self.task.sight)
            self._halted, self._steps = "", int(steps["steps"][0])

    def legend(self) -> dict[int, str]:
        """What each cell code in these worlds stands for, for people."""
        labels = {FOOD: "food"} if self.layout.food else {} if self.layout.targets is None else {FOOD: "free target"}
        labels |= {WALL: "wall"} if self.world.walls or self.layout.walls.any() else {}
        colours, kinds = np.unique(self.layout.colour), getattr(self.task, "kinds", ())
        for code in colours.tolist():
            several = f"colour {code - AGENT_1 + 1}" if len(colours) > 1 else "agent"
            labels[code] = kinds[code - AGENT_1] if code - AGENT_1 < len(kinds) else several
        return labels

    def _camera(self) -> Camera:
        if self.render_mode == "ansi":  # two cells in each character, one above the other
            columns, lines = shutil.get_terminal_size()
            return Camera(self.world, pixels=(max(2 * lines - 2, 1), columns))
        return Camera(self.world, pixels=(720, 720), legend=self.legend())

    def render(self) -> np.ndarray | str | None:
        """What `camera` sees, which may be replaced by another one: by default all of the first world.

        rgb_array: u8[H, W, 3]; ansi: text for a terminal with 24-bit colours; human: shown in a window, None.
        Raises ValueError without a render_mode, or where there is no window to be had."""
        if self.camera is None:
            raise ValueError(f"There is nothing to render: build it with render_mode={' or '.join(RENDER_MODES)}.")
        image = self.camera.look(self.state)
        if self.render_mode == "ansi":
            return ansi(image)
        if self.render_mode == "human":
            self._window = self._window or Window(f"particle_grid: {self.task_name}")
            self._window.show(image)
            return None
        return image

    def close(self) -> None:
        """Closes the window, if there is one."""
        if self._window:
            self._window.close()
            self._window = None


def make_task(name: str, params: dict[str, Any]) -> tasks.Task:
    """A task with its parameters. Raises ValueError for an unknown task or parameter or what is not
    finite, TypeError for a wrong type."""
    kind = tasks.load(name)
    known = {field.name: field for field in fields(kind)}
    if taken := known.keys() & {"name", *inspect.signature(ParticleGrid).parameters}:
        raise ValueError(f"The parameter {min(taken)} of task {name} is a setting of every task: rename it.")
    for key, value in params.items():
        if key not in known:
            raise ValueError(f"Task {name} has no parameter {key!r}. It has: {', '.join(known) or 'none'}.")
        default = known[key].default
        kinds = int | float | np.integer | np.floating if isinstance(default, int | float) else str
        fits = isinstance(value, kinds) and (isinstance(default, bool) or not isinstance(value, bool))
        if not fits and not (value is None and default is None):  # None: no path
            like = "a text, or None" if default is None else f"like {default!r}"
            raise TypeError(f"Parameter {key}={value!r} of task {name} should be {like}.")
        if isinstance(default, int) and not isinstance(value, int | np.integer):
            raise TypeError(f"Parameter {key}={value!r} of task {name} is not a whole number.")
        if isinstance(default, float) and not abs(value) <= LARGEST:
            raise ValueError(f"Parameter {key}={value!r} of task {name} is not a finite float32.")
    made: tasks.Task = kind(**params)
    tasks.check(name, made)
    return made
