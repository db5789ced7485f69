"""A game in which the user steers one agent with keys and mouse. It takes events and returns pictures."""

import math
import time
from collections import deque
from dataclasses import dataclass

import numpy as np

from particle_grid.env import ParticleGrid
from particle_grid.evaluation.players import PlayerFactory
from particle_grid.sim.actions import actions_for
from particle_grid.sim.observation import decode
from particle_grid.sim.rng import check_seed
from particle_grid.support.errors import UserError
from particle_grid.view.free import FreeCamera
from particle_grid.view.panel import HEIGHT, SPAN, Facts, draw_help, draw_panel
from particle_grid.view.window import Event

KEYS = (  # the command's --help has them, too
    ("arrows, WASD", "steer; two at once for a diagonal"),
    ("left button", "hold to head for the mouse"),
    ("wheel", "zoom"),
    ("right button", "drag the world"),
    ("F", "follow the agent or stop following"),
    ("space", "pause or continue"),
    ("N or .", "one step, while paused"),
    ("+ and -", "faster and slower"),
    ("P", "release the agent or take it back"),
    ("Tab", "take the next agent; with Shift, one of the next colour"),
    ("R", "restart"),
    ("H", "this help"),
    ("Esc, Q", "quit"),
)
HEADINGS = {"up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1)}  # row, column
HEADINGS |= {"w": (-1, 0), "s": (1, 0), "a": (0, -1), "d": (0, 1)}
RATES = (1, 2, 3, 5, 8, 12, 20, 30, 60, 120)  # steps per second
NOTICE = 8  # steps for which a respawn is announced
RECENT = 24  # steps over which the speed is measured
LATE = 0.1  # seconds of the game that a slow machine catches up with; longer delays are skipped
FIELD = 128  # cells: height and width, at most, of a world whose size the user has not chosen


@dataclass(frozen=True)
class GameSettings:
    """How a game is played and shown.

    agent: number of the agent that the user steers. rate: steps per second. fps: pictures per second. pixels: height
    and width of the world's picture. zoom, trails: see `FreeCamera`.

    Raises:
        UserError: for a value that is out of range.
    """

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
            ("rate", 0.1, 1000, "steps per second"),
            ("fps", 1, 240, "pictures per second"),
            ("pixels", HEIGHT, 4096, "pixels"),
        ):
            value = getattr(self, name)
            if not least <= value <= most:
                raise UserError(f"{name}={value} is out of range: give {least} to {most} {unit}.")


class Game:
    """A game: `start` it, `handle` what the user does, `advance` the time, and show the `picture`."""

    def __init__(
        self, env: ParticleGrid, others: PlayerFactory, who: str, settings: GameSettings = GameSettings()
    ) -> None:
        """Prepare a game.

        Args:
            env: the environment, whose state is overwritten.
            others: plays all agents but the one that the user steers, and that one while it is released.
            who: name of that player, for people.
            settings: how the game is played and shown.

        Raises:
            UserError: for an agent or a zoom that is out of range.
        """
        self.env = env
        self.who = who
        self.rate = settings.rate
        self.camera = FreeCamera(
            env.world, agent=settings.agent, zoom=settings.zoom, pixels=settings.pixels, trails=settings.trails
        )
        self.agent = settings.agent
        self.open = True
        self.paused = False
        self.steered = True
        self.helped = False
        self._held: set[str] = set()  # keys and buttons
        self._tapped: set[str] = set()  # keys pressed since the last step, which count for it even if released since
        self._mouse = (0, 0)  # row, column in pixels
        self._due = 0.0  # steps
        self._picture: np.ndarray | None = None  # None: something has changed since it was drawn
        self._player = others(env, settings.seed)
        self._seed: int | None = settings.seed  # seed of the next start

    def start(self) -> None:
        """Start a new game. The first one of a seed is always the same."""
        self.env.reset(self._seed)
        self._seed = None  # the worlds' generators continue
        self._starts = np.ones(self.env.num_agents, bool)
        self.camera.forget()
        self.camera.remember(self.env.state)
        self._scores: deque[np.ndarray] = deque(maxlen=SPAN)  # f64[teams] each
        self._take(self.agent)

    def _take(self, agent: int) -> None:
        """Steer another agent, and start its record of rewards."""
        self.agent = agent
        self.camera.follow(agent)
        self.action = np.zeros(2, np.float32)  # action of the agent in the last step, in [-1, 1]
        self.rewards: deque[float] = deque(maxlen=SPAN)
        self._others: deque[float] = deque(maxlen=SPAN)  # mean reward of all agents of its colour
        self._like = self.env.state.colour == self.env.state.colour[agent]
        self._since_respawn = NOTICE  # steps
        self._moments: deque[float] = deque(maxlen=RECENT)  # seconds at which the last steps were made

    def handle(self, event: Event) -> None:
        """React to what the user does."""
        if event.kind != "move" or "mouse right" in self._held:
            self._picture = None
        match event.kind:
            case "close":
                self.open = False
            case "leave":  # keys released in another window would never be reported
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
        """Return whether the mouse is over the picture of the world."""
        return max(self._mouse) < self.camera.size

    def _press(self, event: Event) -> None:
        """React to a key of the keyboard."""
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
        """Return the next agent, or the next of another colour if there is one."""
        order = np.roll(np.arange(self.env.num_agents), -self.agent - 1)
        others = order[~self._like[order]] if another_colour else order
        return int(others[0]) if len(others) else self.agent

    def _pace(self, rate: float) -> None:
        """Set the steps per second."""
        self.rate = rate
        self._moments.clear()

    def advance(self, seconds: float) -> None:
        """Make the steps that have become due."""
        if self.paused:
            return
        self._due = min(self._due + seconds * self.rate, max(1.0, LATE * self.rate))
        while self._due >= 1:
            self._due -= 1
            self.step()

    def step(self) -> None:
        """Make one step of all agents."""
        env = self.env
        agent = self.agent
        actions = self._player(env.observations, self._starts)
        if self.steered:
            actions[agent] = self.wanted()
        self.action = np.clip(actions[agent].astype(np.float32) - env.rules.centre, -1, 1)
        self._starts = env.step(actions)[3]
        self._picture = None
        self._tapped.clear()
        self.camera.remember(env.state)
        self.rewards.append(float(env.rewards[agent]))
        self._others.append(float(env.rewards[self._like].mean()))
        self._scores.append(env.score())
        self._since_respawn = 0 if self._starts[agent] else self._since_respawn + 1
        self._moments.append(time.perf_counter())

    def wanted(self) -> np.ndarray:
        """Return the action [2] that keys and mouse ask for, as the environment takes it."""
        env = self.env
        keys = [HEADINGS[key] for key in self._held | self._tapped if key in HEADINGS]
        if not keys and "mouse left" in self._held:
            here = env.state.position[:, self.agent] - env.vision
            aim = (self.camera.place_of(self._mouse) - here).astype(np.float32)
            aim /= max(1, np.abs(aim).max() / env.world.speed)  # if it is far away: straight there at full speed
            return actions_for(aim[None], env.observations[[self.agent]], env.rules, env.discrete)[0]
        heading = np.clip(np.sum(keys, axis=0), -1, 1) if keys else np.zeros(2)
        return (heading + env.rules.centre).astype(env.actions.dtype)

    def picture(self) -> np.ndarray:
        """Return the world with the panel next to it, RGB u8[H, W, 3]. They are redrawn if something has changed."""
        if self._picture is None:
            world = self.camera.look(self.env.state)
            if self.helped:
                world = draw_help(world, KEYS, self.env.legend())
            self._picture = np.concatenate([world, draw_panel(self.facts(), self.camera.size)], axis=1)
        return self._picture

    def facts(self) -> Facts:
        """Return what the panel shows."""
        env = self.env
        agent = self.agent
        state = env.state
        colour = int(state.colour[agent])
        age = int(state.tick[agent // env.world.agents] - state.born[agent])
        scores = " / ".join(f"{score:z.2f}" for score in np.mean(self._scores, 0)) if self._scores else "-"
        row, column = state.position[:, agent] - env.vision
        return Facts(
            title=f"{env.task_name}, {'discrete' if env.discrete else 'continuous'} actions",
            agent=f"{env.legend()[colour]}, number {agent}",
            colour=colour,
            window=decode(env.observations[agent], env.world).window,
            action=self.action,
            rewards=self.rewards,
            lines=(
                ("mean reward", f"{np.mean(self.rewards or [0]):+.3f}"),
                ("mean of its colour", f"{np.mean(self._others or [0]):+.3f}"),
                ("return", f"{state.episode_return[agent]:+.2f} in {age} steps"),
                ("score", scores),
                ("row, column", f"{row:.1f}, {column:.1f}"),
                ("steered by", "you" if self.steered else self.who),
            ),
            state="paused" if self.paused else self._speed(),
            alert="respawned" if self._since_respawn < NOTICE else "",
        )

    def _speed(self) -> str:
        """Return the wanted steps per second, and the actual ones if they are fewer."""
        count = len(self._moments) - 1
        speed = count / (self._moments[-1] - self._moments[0]) if count > 4 else math.inf
        return f"{self.rate:g} steps/s" if speed > 0.9 * self.rate else f"{speed:.1f} of {self.rate:g} steps/s"
