"""Draw the films of the README: docs/assets/*.gif.

python bench/gallery.py             # a minute
"""

import argparse
import math
from pathlib import Path

from interrupt import until_interrupted
from timing import announced

from particle_grid import load_policy
from particle_grid.env import ACTIONS
from particle_grid.evaluation.match import match
from particle_grid.evaluation.players import policy_player
from particle_grid.evaluation.record import Show, filming, record_learning, stage
from particle_grid.runs.build import build_policy
from particle_grid.sim import tasks
from particle_grid.view.video import Video

PIXELS = 288
FIRST = "group", "discrete"  # what the first command of the README trains, and its first picture shows
SEED = 3
FILM = 260  # steps in a film
EVERY = 2  # steps per frame


def film_first(path: Path) -> None:
    """Write the film that the README starts with: what its first command leaves as policy.gif."""
    policy = load_policy(*FIRST)
    untrained = build_policy(policy.config)
    env = policy.make_env()
    trained = f"after {policy.steps / 1e6:.1f}M steps: score {policy.score:.2f} (0: random, 1: script)"
    record_learning(env, untrained, policy.policy, path, trained)


def film(task: str, action: str, path: Path) -> None:
    """Play a shipped policy, and write the film."""
    policy = load_policy(task, action)
    env = stage(policy.make_env())
    size = max(env.world.height, env.world.width)
    camera = Show(pixels=math.ceil(PIXELS / size) * size, legend=False).camera(env)
    with Video(path, 20) as video:
        match(env, [policy_player(policy.policy)], SEED, FILM, filming(env, camera, EVERY, video.add))


def main() -> None:
    """Write the films."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs"), help="folder of assets/")
    out = parser.parse_args().out
    (out / "assets").mkdir(parents=True, exist_ok=True)
    cases = [(task, action) for task in tasks.names() for action in ACTIONS]
    for task, action in announced("Filming", cases):
        film(task, action, out / "assets" / f"{task}-{action}.gif")
    film_first(out / "assets" / "group.gif")
    print(f"Saved: {out}/assets/*.gif")


if __name__ == "__main__":
    until_interrupted(main)
