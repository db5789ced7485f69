"""A game: one agent is steered with keys and mouse, the others by a player. It takes events and gives pictures."""

import math
import time
from collections import deque
from dataclasses import dataclass

import numpy as np

from particle_grid.env import ParticleGrid
from particle_grid.evaluation.scores import PlayerFactory
from particle_grid.sim.actions import actions_for
from particle_grid.sim.rng import check_seed
from particle_grid.view.free import FreeCamera
from particle_grid.view.panel import HEIGHT, SPAN, Facts, draw_help, draw_panel
from particle_grid.view.window import Event

KEYS = (  # as `--help` of the command has them too
    ("arrows, WASD", "steer; two at once for a diagonal"),
    ("left button", "while held, head for the mouse"),
    ("wheel", "zoom"),
    ("right button", "drag the world"),
    ("F", "follow the agent, or not"),
    ("space", "pause, and go on"),
    (". or N", "one step, in a pause"),
    ("+ and -", "faster and slower"),
    ("P", "let go of the agent, and take it back"),
    ("Tab", "take the next agent; with Shift, of the next colour"),
    ("R", "start anew"),
    ("H", "this help"),
    ("Esc, Q", "end"),
)
HEADINGS = {"up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1)}  # row, column
HEADINGS |= {"w": (-1, 0), "s": (1, 0), "a": (0, -1), "d": (0, 1)}
RATES = 1, 2, 3, 5, 8, 12, 20, 30, 60, 120  # steps a second
NOTICE = 8  # steps for which a respawn is told
RECENT = 24  # steps that the measured speed is of
LATE = 0.1  # seconds of the game that a slow machine makes up for; what it is late beyond them is left out


@dataclass(frozen=True)
class Settings:
    """How a game is played and shown. Raises ValueError for what cannot be.

    agent: who is steered. rate: steps a second. fps: pictures a second. pixels: of the world, along each side. zoom,
    trails: see `FreeCamera`."""

    agent: int = 0
    seed: int = 0
    rate: float = 12
    fps: float = 60
    pixels: int = 640
    zoom: float | None = None
    trails: int = 0

    def __post_init__(self) -> None:
        check_seed(self.seed)
        for name, least, most, unit in (
            ("rate", 0.1, 1000, "steps a second"),
            ("fps", 1, 240, "pictures a second"),
            ("pixels", HEIGHT, 4096, "pixels along each side"),
        ):
            value = getattr(self, name)
            if not least <= value <= most:
                raise ValueError(f"{name}={value} is out of range: give {least} to {most} {unit}.")


class Game:
    """A game: `start` it, `handle` what the user does, `advance` the time, and show the `picture`.

    maker: who plays the others, and the steered one when it is let go; who: its name, for people. Raises ValueError for
    an agent or a zoom that cannot be."""

    def __init__(self, env: ParticleGrid, maker: PlayerFactory, who: str, settings: Settings = Settings()) -> None:
        self.env, self.who, self.rate = env, who, settings.rate
        self.camera = FreeCamera(
            env.world, agent=settings.agent, zoom=settings.zoom, pixels=settings.pixels, trails=settings.trails
        )
        self.agent = settings.agent
        self.open, self.paused, self.steered, self.helped = True, False, True, False
        self._held: set[str] = set()  # keys and buttons
        self._tapped: set[str] = set()  # keys pressed since the last step: one that was let go since counts for it too
        self._mouse = 0, 0  # row, column in pixels
        self._due = 0.0  # steps
        self._picture: np.ndarray | None = None  # None: something has changed since it was drawn
        self._player = maker(env, settings.seed)
        self._seed: int | None = settings.seed  # of the next start

    def start(self) -> None:
        """A new game. The first one of a seed is always the same."""
        self.env.reset(self._seed)
        self._seed = None  # the worlds' generators go on
        self._starts = np.ones(self.env.num_agents, bool)
        self.camera.forget()
        self.camera.remember(self.env.state)
        self._scores: deque[np.ndarray] = deque(maxlen=SPAN)  # f64[teams] each
        self._take(self.agent)

    def _take(self, agent: int) -> None:
        """Steers another agent from now on; what is told of rewards begins with it."""
        self.agent = agent
        self.camera.follow(agent)
        self.action = np.zeros(2, np.float32)  # of the agent in the last step, in [-1, 1]
        self.rewards: deque[float] = deque(maxlen=SPAN)
        self._others: deque[float] = deque(maxlen=SPAN)  # mean reward of all agents of its colour
        self._like = self.env.state.colour == self.env.state.colour[agent]
        self._since_respawn = NOTICE  # steps
        self._moments: deque[float] = deque(maxlen=RECENT)  # seconds at which the last steps were made

    def handle(self, event: Event) -> None:
        """Does what the user wants."""
        if event.kind != "move" or "mouse right" in self._held:
            self._picture = None
        match event.kind:
            case "close":
                self.open = False
            case "leave":  # keys let go of elsewhere would never be heard of
                self._held.clear()
            case "press" if event.key.startswith("mouse"):
                self._mouse = event.place
                if self._over_world():
                    self._held.add(event.key)
            case "press":
                self._held.add(event.key)
                self._tapped.add(event.key)
                self._press(event)
            case "release":
                self._held.discard(event.key)
            case "move":
                if "mouse right" in self._held:
                    self.camera.pan(self._mouse[0] - event.place[0], self._mouse[1] - event.place[1])
                self._mouse = event.place
            case "wheel" if self._over_world():
                self.camera.zoom_by(event.turn, self._mouse)

    def _over_world(self) -> bool:
        return max(self._mouse) < self.camera.size

    def _press(self, event: Event) -> None:
        match event.key:
            case "escape" | "q":
                self.open = False
            case "space":
                self.paused = not self.paused
                self._moments.clear()
            case "." | "n" if self.paused:
                self.step()
            case "+" | "=":
                self._pace(min((rate for rate in RATES if rate > self.rate), default=self.rate))
            case "-":
                self._pace(max((rate for rate in RATES if rate < self.rate), default=self.rate))
            case "f":
                self.camera.following = not self.camera.following
            case "p":
                self.steered = not self.steered
            case "tab":
                self._take(self._next(another_colour=event.shift))
            case "r":
                self.start()
            case "h":
                self.helped = not self.helped

    def _next(self, another_colour: bool) -> int:
        """The next agent, or the next of another colour if there is one."""
        order = np.roll(np.arange(self.env.num_agents), -self.agent - 1)
        others = order[~self._like[order]] if another_colour else order
        return int(others[0]) if len(others) else self.agent

    def _pace(self, rate: float) -> None:
        self.rate = rate
        self._moments.clear()

    def advance(self, seconds: float) -> None:
        """Makes the steps that have become due."""
        if self.paused:
            return
        self._due = min(self._due + seconds * self.rate, max(1.0, LATE * self.rate))
        while self._due >= 1:
            self._due -= 1
            self.step()

    def step(self) -> None:
        """One step of all agents."""
        env, agent = self.env, self.agent
        actions = self._player(env.observations, self._starts)
        if self.steered:
            actions[agent] = self.wanted()
        self.action = np.clip(actions[agent].astype(np.float32) - env.rules.centre, -1, 1)
        self._starts, self._picture = env.step(actions)[3], None
        self._tapped.clear()
        self.camera.remember(env.state)
        self.rewards.append(float(env.rewards[agent]))
        self._others.append(float(env.rewards[self._like].mean()))
        self._scores.append(env.score())
        self._since_respawn = 0 if self._starts[agent] else self._since_respawn + 1
        self._moments.append(time.perf_counter())

    def wanted(self) -> np.ndarray:
        """The action that keys and mouse ask for, [2], as the environment takes it."""
        env, keys = self.env, [HEADINGS[key] for key in self._held | self._tapped if key in HEADINGS]
        if not keys and "mouse left" in self._held:
            here = env.state.position[:, self.agent] - env.vision
            aim = (self.camera.place_of(self._mouse) - here).astype(np.float32)
            aim /= max(1, np.abs(aim).max() / env.world.speed)  # far away: straight there, as fast as can be
            return actions_for(aim[None], env.observations[[self.agent]], env.rules, env.discrete)[0]
        heading = np.clip(np.sum(keys, axis=0), -1, 1) if keys else np.zeros(2)
        return (heading + env.rules.centre).astype(env.actions.dtype)

    def picture(self) -> np.ndarray:
        """The world and the panel beside it, RGB u8[H, W, 3]; drawn anew where something has changed."""
        if self._picture is None:
            world = self.camera.look(self.env.state)
            if self.helped:
                world = draw_help(world, KEYS, self.env.legend())
            self._picture = np.concatenate([world, draw_panel(self.facts(), self.camera.size)], axis=1)
        return self._picture

    def facts(self) -> Facts:
        """What the panel tells."""
        env, agent, side = self.env, self.agent, 2 * self.env.vision + 1
        state, colour = env.state, int(self.env.state.colour[agent])
        age = int(state.tick[agent // env.world.agents] - state.born[agent])
        scores = " / ".join(f"{score:.2f}" for score in np.mean(self._scores, 0)) if self._scores else "-"
        row, column = state.position[:, agent] - env.vision
        return Facts(
            title=f"{env.task_name}, {'discrete' if env.discrete else 'continuous'} actions",
            agent=f"{env.legend()[colour]}, number {agent}",
            colour=colour,
            window=env.observations[agent, : side**2].reshape(side, side),
            action=self.action,
            rewards=self.rewards,
            lines=(
                ("mean reward", f"{np.mean(self.rewards or [0]):+.3f}"),
                ("that of all its colour", f"{np.mean(self._others or [0]):+.3f}"),
                ("return", f"{state.episode_return[agent]:+.2f} in {age} steps"),
                ("score of all", scores),
                ("row, column", f"{row:.1f}, {column:.1f}"),
                ("steered by", "you" if self.steered else self.who),
            ),
            state="paused" if self.paused else self._speed(),
            alert="spawned anew" if self._since_respawn < NOTICE else "",
        )

    def _speed(self) -> str:
        """How many steps are to be made a second, and how many are where they are fewer."""
        count = len(self._moments) - 1
        speed = count / (self._moments[-1] - self._moments[0]) if count > 4 else math.inf
        return f"{self.rate:g} steps/s" if speed > 0.9 * self.rate else f"{speed:.1f} of {self.rate:g} steps/s"
