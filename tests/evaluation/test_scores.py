"""What makes no match or no evaluation is refused before anything is played."""

import pytest

from particle_grid.evaluation import scores
from tests.cases import small


@pytest.mark.parametrize(
    ("task", "makers", "seed", "steps", "reason"),
    [
        ("center", [scores.random_player], 0, 0, "steps=0 make no match"),
        ("center", [scores.random_player], 0, -1, "steps=-1 make no match"),
        ("center", [scores.random_player], 0, None, "steps=None make no match"),
        ("center", [scores.random_player], None, 4, "seed=None .* no match"),
        ("center", [scores.random_player], -1, 4, "seed=-1 is not a seed"),
        ("center", [], 0, 4, r"0 players cannot play 1 team\(s\)"),
        ("center", [scores.random_player] * 2, 0, 4, r"2 players cannot play 1 team\(s\)"),
        ("predator_prey", [scores.random_player] * 3, 0, 4, r"3 players cannot play 2 team\(s\)"),
    ],
)
def test_what_is_no_match_is_refused(task, makers, seed, steps, reason):
    with pytest.raises(ValueError, match=reason):
        scores.match(small(task, "discrete"), makers, seed, steps)


def test_an_evaluation_needs_a_seed():
    with pytest.raises(ValueError, match="An evaluation of 0 seeds has no score"):
        scores.evaluate(small("center", "discrete"), scores.random_player, ())


def test_a_script_plays_with_any_seed_that_worlds_take():
    env = small("center", "discrete")
    played = [scores.match(env, [scores.scripted_player], seed, 4) for seed in (2**64 + 7, 2**64 + 7, 2**70)]
    assert played[0] == played[1]
