"""Short films of training."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from particle_grid import train
from particle_grid.evaluation.clips import FRAMES, PIXELS, TAG, Clips, score_text
from particle_grid.evaluation.record import Show
from particle_grid.learn.config import TrainerConfig
from particle_grid.learn.policy import make_policy
from particle_grid.learn.trainer import Trainer
from particle_grid.view.film import EDGE
from tests.cases import play, small


class Films(list):
    """A logger that stores the films it receives."""

    def log_gif(self, name, gif, step):
        self.append((step, gif))


def test_a_film_shows_consecutive_steps_and_films_start_at_equal_intervals():
    env = small("group", "discrete")
    films = Films()
    rollout = 16
    batch = rollout * env.num_agents
    looks = []
    camera = Show(pixels=PIXELS, legend=False).camera(env)
    with Clips(env, films, count=3, total_steps=30 * batch) as clips:
        for step, _ in enumerate(play(env, steps=25 * rollout)):
            looks.append(camera.look(env.state))
            clips.watch()
            if (step + 1) % rollout == 0:
                clips._pool.submit(int).result()  # waits for the encoder, so that the test does not depend on timing
                clips.log((step + 1) * env.num_agents, {})
    assert [step for step, _ in films] == [0, 10 * batch, 20 * batch][: len(films)]
    assert len(films) == 2  # too few steps are left for the third
    for step, gif in films:
        first = step // env.num_agents
        with Image.open(io.BytesIO(gif)) as film:
            assert film.n_frames == FRAMES
            for k in (0, 1, FRAMES - 1):
                film.seek(k)
                height, width = looks[0].shape[:2]
                shown = np.asarray(film.convert("RGB"))[-EDGE - 6 - height : -EDGE - 6, EDGE : EDGE + width]
                agents = looks[first + k].max(-1) > 150
                assert agents.any()
                assert np.array_equal(shown[agents], looks[first + k][agents])


def test_the_trainer_calls_watch_once_per_step():
    env, steps = small("forage", "continuous"), []
    network = make_policy("mlp", env.vision, env.single_action_space, hidden=16)
    config = TrainerConfig(total_steps=2 * 8 * env.num_agents, rollout_length=8, minibatch=480)
    Trainer(env, network, config, watch=lambda: steps.append(env.state.position.copy())).run()
    assert len(steps) == 16
    assert all(not np.array_equal(a, b) for a, b in zip(steps[1:], steps, strict=False))


SMALL = ["world.agents=32", "world.height=32", "world.width=40", "world.worlds=1", "policy=mlp", "policy.hidden=16"]
SMALL += ["trainer.rollout_length=8", "trainer.minibatch=64", "trainer.threads=1", "trainer.total_steps=5120"]


@pytest.mark.parametrize(("count", "films"), [(0, 0), (1, 2), (2, 2)])
def test_a_run_has_films_in_tensorboard_and_the_last_one_is_of_the_end(invoke, count, films):
    code, _, err = invoke(train.main, *SMALL, f"clips={count}", "hydra.run.dir=run", "task=center")
    assert (code, err) == (0, "")
    events = EventAccumulator("run").Reload()
    found = events.Images(TAG) if TAG in events.Tags()["images"] else []
    assert len(found) == films
    if count:
        assert (found[0].step, found[-1].step) == (0, 5120)
        assert found[-1].encoded_image_string == Path("run/policy.gif").read_bytes()
    tags = sorted(events.Tags()["scalars"] + events.Tags()["images"])
    assert tags[0].startswith("env/normalised_score"), "TensorBoard shows the score first"
    assert tags[-1] == TAG or not count, "and films last"


def test_the_words_of_a_film_tell_the_score_of_each_team():
    assert score_text({"env/score": 3.0, "env/normalised_score": 0.5}) == "normalised score 0.50"
    assert score_text({"env/score_1": 3.0, "env/score_2": -0.001}) == "score 3.00 / 0.00"
    assert score_text({"episode/reward": 1.0}) == ""


def test_a_run_without_films_has_no_picture_and_the_requested_evaluations(invoke):
    code, _, err = invoke(train.main, *SMALL, "clips=0", "evaluations=2", "hydra.run.dir=run", "task=center")
    assert (code, err) == (0, "")
    assert not Path("run/policy.gif").exists()
    played = json.loads(Path("run/results.json").read_text("utf-8"))
    assert {len(each["normalised_scores"]) for key, each in played.items() if key != "version"} == {2}
