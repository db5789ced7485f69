"""ParticleGrid: the simulator as a native PufferLib environment."""

import warnings
from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict, fields
from typing import Any, ClassVar

import numpy as np
from gymnasium.spaces import Box, MultiDiscrete, Space

from particle_grid import native
from particle_grid.sim import rng, tasks
from particle_grid.sim.actions import ACTIONS, actions_for, charge, check_form, repeat, valid
from particle_grid.sim.advance import Stages, compile_stages
from particle_grid.sim.memory import buffer_shapes, check_buffers, check_memory
from particle_grid.sim.observation import SIGNED_ZERO
from particle_grid.sim.snapshot import restore
from particle_grid.sim.state import allocate, make_rules, window_rows
from particle_grid.sim.task import Task, check_aim, check_rewards, check_scores, check_teams, check_written, guarded
from particle_grid.sim.tasks._baselines import reference_scores
from particle_grid.sim.world import AGENT_1, UNSEEN, Layout, World, only_world
from particle_grid.support.errors import UserError, UserRuntimeError
from particle_grid.support.jit import threads
from particle_grid.support.turn import Turn
from particle_grid.view.camera import Camera
from particle_grid.view.render import RENDER_MODES, Renderer, cell_labels, check_mode

__all__ = ["ACTIONS", "ParticleGrid"]

REPORT_EVERY = 32  # steps between two infos
# Why no step is possible: agents have no cells yet, or only some of them have moved.
NEW = "The worlds have not been started: call reset()"
CLOSED = "This environment has been closed: build another one"
BROKEN = "A reset or a step was interrupted halfway: call reset(), or load_state_dict(),"


class ParticleGrid(native.base_class()):  # type: ignore[misc]  # chosen when this module is imported
    """Particles on a grid, in one or several worlds. N = num_agents = worlds * agents.

    Observations are uint8[N, (2 * vision + 1)**2 + 7]: the window of cells around the agent, then seven features that
    tell its position, its last displacement and its last reward. `particle_grid.tasks.decode` turns them into numbers.

    Actions are (row, column): `discrete` MultiDiscrete([3, 3]), where 0, 1, 2 mean -1, 0, 1, or `continuous`
    Box(-1, 1, (2,)). They are multiplied by `speed` and move the agent, or by `acceleration` and change its velocity.
    Observations are the same for both.

    Truncation: an agent that respawns, or whose world restarts, does not act in that step. Its action is ignored, its
    reward is 0, `truncations` is set, and the observation is the first of its new episode. The observation before it
    was the last of the old episode: its value is the exact bootstrap for the step before. Nothing ever terminates.
    If actions last several steps (`action_repeat`), this holds for all of them together.

    Infos come every 32 steps: `score` (with two teams `score_1` and `score_2`), `moved`, `episode_return` and
    `episode_length`. `perf` is the score on the scale from random actions (0) to the script (1), clipped to it, as
    PufferLib expects. It is left out if the package does not ship these two references for the very same settings.

    Copies and pickles have their own arrays, with or without `buf`, and continue bit for bit. Threads may take turns.

    Args:
        task: the name of a task (see `particle_grid.tasks.names`), `my_module:MyTask`, or a task with its parameters.
        action: `discrete` or `continuous`.
        worlds, agents, height, width, vision, speed, action_repeat, dead_zone: see `World`.
        seed: for a first `reset()` without one.
        buf: PufferLib's buffers; if None, they are allocated.
        world: a `World`, instead of its settings one by one.
        lifespan, max_episode_steps, walls, dynamics, acceleration, drag, action_cost: see `World`.
        checked: raise on actions that are out of range, NaN or infinite, which are otherwise clipped or mean "stay".
        render_mode: what `render` returns, one of `metadata["render_modes"]`, or None.
        task_params: parameters of the task, if it is named.

    Raises:
        UserError: if no such environment can be built.
    """

    observations: np.ndarray  # the buffers, which may belong to `buf`
    actions: np.ndarray
    rewards: np.ndarray
    terminals: np.ndarray
    truncations: np.ndarray
    masks: np.ndarray
    num_agents: int
    _halted = NEW  # why no step is possible, or ""
    _steps = 0  # since the reset
    _warned = False  # whether actions that are not finite caused a warning
    reported: np.ndarray | None = None  # bool[N], agents whose scores infos report; None for all. Set it to change it

    metadata: ClassVar[dict[str, Any]] = {"render_modes": list(RENDER_MODES), "render_fps": 20}

    def __init__(
        self,
        task: str | Task = "group",
        action: str = "discrete",
        worlds: int = World.worlds,
        agents: int = World.agents,
        height: int = World.height,
        width: int = World.width,
        vision: int = World.vision,
        speed: float = World.speed,
        seed: int | None = 0,
        buf: dict[str, np.ndarray] | None = None,
        *,
        world: World | None = None,
        lifespan: float = World.lifespan,
        max_episode_steps: int = World.max_episode_steps,
        walls: float = World.walls,
        dynamics: str = World.dynamics,
        acceleration: float = World.acceleration,
        drag: float = World.drag,
        action_cost: float = World.action_cost,
        action_repeat: int = World.action_repeat,
        dead_zone: float = World.dead_zone,
        checked: bool = False,
        render_mode: str | None = None,
        **task_params: Any,
    ) -> None:
        check_form(action)
        rng.check_seed(seed)
        check_mode(render_mode)
        settings = World(
            *(worlds, agents, height, width, vision, speed, lifespan, max_episode_steps, walls),
            *(dynamics, acceleration, drag, action_cost, action_repeat, dead_zone),
        )
        self.world = settings if world is None else only_world(world, settings)
        self.task_name, self.task = tasks.make(task, task_params)
        self.action, self.checked = action, checked
        self._build(buf)
        self._renderer = Renderer(render_mode, self.world, f"particle_grid: {self.task_name}", self.legend())
        self.seed = 0 if seed is None else seed

    def __repr__(self) -> str:
        """Return the settings that differ from the defaults, and those that are asked for most often."""
        setting = self.setting()
        params = setting.pop("params")
        usual = {field.name: field.default for field in fields(World)}
        shown = {"task", "action", "worlds", "agents", "height", "width"}
        given = {key: value for key, value in setting.items() if key in shown or value != usual[key]}
        own = fields(self.task)  # type: ignore[arg-type]  # a dataclass
        given |= {field.name: params[field.name] for field in own if params[field.name] != field.default}
        return f"ParticleGrid({', '.join(f'{key}={value!r}' for key, value in given.items())})"

    def _build(self, buf: dict[str, np.ndarray] | None) -> None:
        """Lay out the task, allocate its arrays and set PufferLib's attributes."""
        check_memory(self.world)
        self.vision = self.world.vision
        self.layout = Layout(self.world)
        init: Callable[..., object] = self.task.init
        check_written(self.task_name, "init", init(self.layout))
        self.discrete = self.action == "discrete"
        self.rules = make_rules(self.layout, self.discrete)
        self.state = allocate(self.layout)
        check_teams(self.task_name, self.task, self.layout.colour)
        self.num_agents = self.world.worlds * self.world.agents
        self.single_observation_space = Box(0, 255, (self.world.observation_size,), np.uint8)
        self.single_action_space = action_space(self.action)
        shapes = buffer_shapes(self.world, np.dtype(self.single_action_space.dtype))
        if buf is None:
            buf = {name: np.zeros(shape, dtype) for name, (shape, dtype) in shapes.items()}
        else:
            check_buffers(buf, shapes)
        super().__init__(buf)
        if not self.task.sight:
            self.state.own_in_sight[:], self.state.others_in_sight[:] = UNSEEN, UNSEEN
        # Two teams have none, because theirs are scores of each team against the script.
        self._references = reference_scores(self.setting()) if self.task.teams == 1 else None
        self._bind()

    def _bind(self) -> None:
        """Set what belongs to these very arrays and this process."""
        self._compiled: dict[int, Stages] = {}  # by number of threads
        self._turn = Turn()
        self.proven: set[str] = set()  # methods of the task that left the state alone once; clear it to look again

    __copy__ = deepcopy  # a copy that shared arrays would move the agents of both

    def __getstate__(self) -> dict[str, Any]:
        """Return everything but what `_bind` sets, for copies and pickles."""
        with self._turn:
            return {name: value for name, value in vars(self).items() if name not in ("_compiled", "_turn")}

    def __setstate__(self, saved: dict[str, Any]) -> None:
        self.__dict__.update(saved)
        self.rules = self.rules._replace(window_rows=window_rows(self.vision))  # for the processor of this machine
        self._bind()

    def reset(self, seed: int | None = None) -> tuple[np.ndarray, list[dict[str, float]]]:
        """Start all worlds. The same seed gives the same bytes; without one, the generators continue."""
        rng.check_seed(seed)
        self.check_ready("reset", unless=(NEW, BROKEN))
        with self._turn:
            stages = self._stages()
            if seed is not None or self._halted == NEW:
                self.state.rng[:] = rng.seeded(self.seed if seed is None else seed, self.world.worlds)
            self._halted, self._steps = BROKEN, 0
            stages.start()
            self.state.finished[:], self.state.last_reward[:] = 0, SIGNED_ZERO
            stages.look()
            self.rewards[:], self.masks[:] = 0, True
            self.terminals[:], self.truncations[:] = False, False
            self._halted = ""
        return self.observations, []

    def step(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, list[dict[str, float]]]:
        """Make one step of all agents; actions are integers or floats [N, 2], depending on the action form.

        Returns the buffers, and infos: one dict every `REPORT_EVERY` steps. An exception in the middle of it, from the
        task or Ctrl-C, leaves half a step: call `reset` or `load_state_dict` next.
        """
        if self._halted:
            self.check_ready("step")  # which raises
        stages, actions = self._stages(), valid(actions, self.actions, self.checked, self.world.dead_zone)
        turn = self._turn
        if turn.taken:
            turn.take()  # which raises
        turn.taken = True  # with few agents, `with` would take as long as all other checks here together
        try:
            self._advance(stages, actions)
            if (times := self.world.action_repeat) > 1:
                repeat(lambda x: self._advance(stages, x), times, actions, self.rules, self.rewards, self.truncations)
            self._steps += 1
            infos = self._infos(actions) if self._steps % REPORT_EVERY == 0 else []
        except BaseException:
            self._halted = BROKEN
            raise
        finally:
            turn.taken = False
        return self.observations, self.rewards, self.terminals, self.truncations, infos

    def _advance(self, stages: Stages, actions: np.ndarray) -> None:
        """Advance the worlds by one step of the simulator."""
        stages.move(actions)
        if self.task.sight:  # the reward depends on what the agents see
            stages.look()
            self._reward(stages, actions)
        else:  # the reward becomes part of the observations at once
            self._reward(stages, actions)
            stages.look()

    def check_ready(self, method: str, unless: tuple[str, ...] = ()) -> None:
        """Raise UserRuntimeError before the first reset, after an interrupted step, and after `close`; not for some."""
        if self._halted and self._halted not in unless:
            with self._turn:  # raises if another thread is in the middle of a reset
                raise UserRuntimeError(f"{self._halted} before {method}().")

    def _stages(self) -> Stages:
        """Return the stages of a step for the present number of threads."""
        count = threads(self.num_agents)
        if count not in self._compiled:
            buffers = self.actions, self.truncations, self.observations, self.rewards
            self._compiled[count] = compile_stages(self.state, self.rules, *buffers, self.task.sight, count)
        return self._compiled[count]

    def _reward(self, stages: Stages, actions: np.ndarray) -> None:
        """Write the rewards of the step that was just made."""
        if "reward" in self.proven:  # spares a step of 64 agents 4% of its time
            returned: object = self.task.reward(self.state, self.layout, self.rewards)  # type: ignore[func-returns-value]
        else:
            returned = self._call("reward", self.state, self.layout, self.rewards)
        if returned is not None:
            check_written(self.task_name, "reward", returned)
        if self.world.action_cost:
            charge(self.rewards, actions, self.rules.centre, np.float32(self.world.action_cost))
        if stages.finish():
            check_rewards(self.task_name, self.rewards)  # which raises

    def _call(self, method: str, *arguments: Any) -> Any:
        """Call a method of the task. The first time, check that it does not write to the state or the observations."""
        call = getattr(self.task, method)
        if method in self.proven:
            return call(*arguments)
        returned = guarded(self.task_name, method, call, self.task.sight, *arguments)
        self.proven.add(method)
        return returned

    @property
    def unit(self) -> str:
        """Return the unit of the score: the task's, or that of the reward if actions have a cost."""
        return "reward a step" if self.world.action_cost else self.task.unit

    def score(self, agents: np.ndarray | None = None) -> np.ndarray:
        """Return the score of the last step in the `unit`, f64[teams], the mean over the agents of each team.

        Args:
            agents: bool[N], those that count; None for all.
        """
        self.check_ready("score")
        each = self.rewards if self.world.action_cost else np.asarray(self._call("score", self.state, self.layout))
        check_scores(self.task_name, each, self.num_agents)
        if self.task.teams == 1 and agents is None:
            return each.mean(keepdims=True, dtype=np.float64)
        counted = True if agents is None else agents
        return np.array([each[self.team(k) & counted].mean(dtype=np.float64) for k in range(self.task.teams)])

    def team(self, k: int) -> np.ndarray:
        """Return which agents belong to team k, bool[N]; all of them if the task has one team."""
        if k not in range(self.task.teams):
            raise UserError(f"There is no team {k!r}: task {self.task_name} has the teams 0 to {self.task.teams - 1}.")
        return self.state.colour == AGENT_1 + k if self.task.teams > 1 else np.ones(self.num_agents, bool)

    def due(self) -> np.ndarray:
        """Return which agents respawn in the next step, whatever their actions, bool[N].

        Their current observation is the last of their episode, and the next step's `truncations` will be the same.
        """
        following = self.state.tick[:, None] + self.world.action_repeat  # [worlds, 1]
        due = self.state.expiry.reshape(len(following), -1) <= following  # [N] -> [worlds, agents]
        if self.world.max_episode_steps:
            due |= self.world.max_episode_steps <= following
        return due.reshape(-1)  # [worlds, agents] -> [N]

    def scripted_actions(self, generator: np.ndarray) -> np.ndarray:
        """Return the scripted policy's actions for the current observations; generator u64[1] is the script's own."""
        self.check_ready("scripted_actions")
        rng.check_generator(generator)
        aim = np.zeros((self.num_agents, 2), np.float32)
        returned = self._call("scripted", self.observations, self.layout, generator, aim)
        check_written(self.task_name, "scripted", returned)
        check_aim(self.task_name, aim)
        return actions_for(aim, self.observations, self.rules, self.discrete)

    def setting(self) -> dict[str, Any]:
        """Return everything that scores depend on, as plain values. Files use these keys."""
        params = asdict(self.task)  # type: ignore[call-overload]
        return {"task": self.task_name, "action": self.action, **asdict(self.world), "params": params}

    def _infos(self, actions: np.ndarray) -> list[dict[str, float]]:
        """Return the infos that come every REPORT_EVERY steps. Warn once if actions of this step are not finite."""
        if not (self.discrete or self._warned or np.isfinite(actions).all()):
            count = (~np.isfinite(actions)).any(1).sum()
            warnings.warn(f"{count} of {len(actions)} actions are NaN or infinite: those agents stay.", stacklevel=3)
            self._warned = True
        return [self._report()]

    def _report(self) -> dict[str, float]:
        """Return the score, the share of agents that moved, and mean return and length of episodes since the last."""
        score = self.score(self.reported)
        report = {"score": float(score[0])} if len(score) == 1 else {}
        if self._references:
            random, scripted = self._references
            report["perf"] = min(max((report["score"] - random) / (scripted - random), 0.0), 1.0)
        report |= {f"score_{k + 1}": float(value) for k, value in enumerate(score) if len(score) > 1}
        report["moved"] = np.count_nonzero(self.state.displacement.any(0)) / self.num_agents
        episodes, returns, lengths = self.state.finished.sum(0)
        if episodes:
            report |= {"episode_return": returns / episodes, "episode_length": lengths / episodes}
        self.state.finished[:] = 0
        return report

    def _arrays(self) -> dict[str, np.ndarray]:
        """Return all arrays that change while the environment runs: views, not copies."""
        buffers = {name: getattr(self, name) for name in ("observations", "rewards", "terminals", "truncations")}
        return self.state._asdict() | buffers

    def state_dict(self) -> dict[str, np.ndarray]:
        """Return a copy of everything, from which `load_state_dict` of an equal environment continues bit for bit."""
        self.check_ready("state_dict")
        with self._turn:
            return {name: array.copy() for name, array in self._arrays().items()} | {"steps": np.array([self._steps])}

    def load_state_dict(self, saved: dict[str, np.ndarray]) -> None:
        """Restore a `state_dict`, also of an earlier version. Raise UserError and change nothing if it does not fit."""
        self.check_ready("load_state_dict", unless=(NEW, BROKEN))
        steps = {"steps": np.zeros(1, np.int64)}
        with self._turn:
            restore(self._arrays() | steps, saved, self.rules, self.task.sight)
            self._halted, self._steps = "", int(steps["steps"][0])

    def legend(self) -> dict[int, str]:
        """Return a label for each cell code that occurs in these worlds."""
        return cell_labels(self.layout, self.task)

    @property
    def render_mode(self) -> str | None:
        """Return how the environment is rendered, None if it is not."""
        return self._renderer.mode

    @property
    def camera(self) -> Camera | None:
        """Return the camera that `render` uses, by default on all of the first world. It may be replaced."""
        return self._renderer.camera

    @camera.setter
    def camera(self, camera: Camera) -> None:
        """Let `render` use another camera."""
        self._renderer.camera = camera

    def render(self) -> np.ndarray | str | None:
        """Return what `camera` sees, an image u8[H, W, 3] or text (ansi), or show it in a window (human)."""
        return self._renderer.render(self.state)

    def close(self) -> None:
        """Close the window, if there is one. Afterwards no reset and no step is possible."""
        self._renderer.close()
        self._halted = CLOSED


def action_space(action: str) -> Space:
    """Return the space of one agent's actions in an action form."""
    return MultiDiscrete([3, 3], dtype=np.int32) if action == "discrete" else Box(-1.0, 1.0, (2,), np.float32)
