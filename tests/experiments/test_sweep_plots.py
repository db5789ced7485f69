"""The values behind the figures of a sweep."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from particle_grid.experiments import sweep_plots


@given(st.lists(st.floats(-5, 5), min_size=3, max_size=3, unique=True), st.integers(1, 4))
def test_the_share_of_the_variance_is_between_0_and_1_in_any_unit(means, spread):
    values = [k for k in "abc" for _ in range(8)]
    noise = np.random.default_rng(0).permutation(np.linspace(-spread, spread, 24))
    scores = np.repeat(means, 8) + noise
    share = sweep_plots.share_of_variance(values, scores)
    assert 0 <= share <= 1
    assert sweep_plots.share_of_variance(values, 3 * scores + 7) == pytest.approx(share)


def test_a_decisive_key_has_all_the_variance_and_an_irrelevant_one_none_on_average():
    values = ["a", "b"] * 10
    assert sweep_plots.share_of_variance(values, np.array([0.0, 1.0] * 10)) == 1
    generator = np.random.default_rng(1)
    by_chance = [sweep_plots.share_of_variance(values, generator.normal(size=20)) for _ in range(200)]
    assert np.mean(by_chance) < 0.05
    sizes = np.linspace(0, 1, 40)
    assert sweep_plots.share_of_variance(list(sizes), sizes) > 0.8  # many numbers are binned
    assert np.isnan(sweep_plots.share_of_variance(["a", "b", "c"], np.arange(3.0)))


def test_optuna_finds_the_key_that_matters_given_enough_runs():
    pytest.importorskip("optuna")
    generator = np.random.default_rng(0)
    rates = generator.uniform(1e-4, 1e-1, 40)
    forms = generator.choice(["discrete", "continuous"], 40)
    scores = np.log(rates) + 0.01 * generator.normal(size=40)
    shares = sweep_plots.ped_anova({"rate": rates.tolist(), "form": forms.tolist()}, scores)
    assert shares["rate"] > 0.8 > 0.2 > shares["form"]


def test_numbers_are_placed_by_size_and_words_at_equal_distances():
    axis = sweep_plots.axis_of([0.001, 0.1, 0.01, 0.02, 0.05])
    assert [axis.place(x) for x in (0.001, 0.01, 0.1)] == pytest.approx([0, 0.5, 1])
    assert [axis.place(x) for x in axis.ticks] == pytest.approx([0, 0.25, 0.5, 0.75, 1])
    axis = sweep_plots.axis_of([1, 2, 3, 4, 5])
    assert [axis.place(x) for x in (1, 3, 5)] == [0, 0.5, 1]
    axis = sweep_plots.axis_of(["b", "a", "b", None])
    assert axis.ticks == ["b", "a", None]
    assert [axis.place(x) for x in axis.ticks] == pytest.approx([1 / 6, 1 / 2, 5 / 6])
