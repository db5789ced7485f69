"""Statistics compared with closed forms and known values."""

import itertools
import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from particle_grid.experiments import stats

SCORES = arrays(float, st.tuples(st.integers(1, 4), st.integers(2, 9)), elements=st.floats(-5, 5))


@pytest.mark.parametrize(
    ("values", "expected"),
    [([1, 2, 3, 100], 2.5), ([5, 1, 4, 2, 3], 3.0), ([0, 0, 1, 1, 1, 1, 9, 9], 1.0), ([7, 3], 5.0), ([4], 4.0)],
)
def test_interquartile_means_equal_hand_computed_values(values, expected):
    assert stats.interquartile_mean(np.array([values], float)) == pytest.approx(expected)


def test_the_interquartile_mean_weighs_all_tasks_equally():
    easy, hard = [5.0, 6.0, 7.0, 8.0], [0.0, 0.0, 1.0, 9.0]
    found = stats.interquartile_mean(np.array([easy, hard]))
    assert found == pytest.approx((6.5 + 0.5) / 2)
    alone = [stats.interquartile_mean(np.array([task])) for task in (easy, hard)]
    assert found == pytest.approx(np.mean(alone))


def test_the_interquartile_mean_of_many_normal_runs_is_their_mean():
    x = np.random.default_rng(0).normal(3, 1, (4, 20_000))
    assert stats.interquartile_mean(x) == pytest.approx(3, abs=0.02)


@given(SCORES, st.floats(0.1, 3), st.floats(-2, 2))
def test_statistics_shift_and_scale_with_the_scores(x, scale, shift):
    for statistic in (stats.interquartile_mean, stats.mean):
        assert statistic(scale * x + shift) == pytest.approx(scale * statistic(x) + shift, abs=1e-9)
        assert x.min() - 1e-9 <= statistic(x) <= x.max() + 1e-9
    assert stats.mean_difference(x + shift, x) == pytest.approx(shift, abs=1e-9)


@given(SCORES)
def test_the_probability_of_improvement_over_the_same_runs_is_one_half(x):
    assert stats.probability_of_improvement(x, x) == pytest.approx(0.5)
    assert stats.probability_of_improvement(x + 20, x) == 1
    assert stats.probability_of_improvement(x, x + 20) == 0


@given(SCORES, SCORES)
def test_the_probabilities_of_both_directions_add_up_to_one(x, y):
    tasks = min(len(x), len(y))
    both = [stats.probability_of_improvement(a[:tasks], b[:tasks]) for a, b in ((x, y), (y, x))]
    assert sum(both) == pytest.approx(1)


def test_the_probability_of_improvement_of_normal_scores_has_its_closed_form():
    generator = np.random.default_rng(0)
    x, y = generator.normal(0.7, 1, (1, 1500)), generator.normal(0, 1, (1, 1500))
    expected = 0.5 * (1 + math.erf(0.7 / math.sqrt(2) / math.sqrt(2)))
    assert stats.probability_of_improvement(x, y) == pytest.approx(expected, abs=0.02)


def test_a_profile_is_one_minus_the_cumulative_distribution():
    x = np.random.default_rng(0).uniform(0, 1, (3, 5000))
    at = np.linspace(-0.5, 1.5, 21)
    profile = stats.performance_profile(at)(x)
    assert profile == pytest.approx(np.clip(1 - at, 0, 1), abs=0.02)
    assert (np.diff(profile) <= 0).all()
    assert stats.performance_profile(np.array([0.5]))(np.array([[0.5, 0.6, 0.4, 0.9]])) == 0.5  # strictly more


def test_the_interval_of_a_mean_is_that_of_the_normal_approximation():
    x = np.random.default_rng(0).normal(0, 2, (1, 400))
    low, high = stats.interval(stats.mean, x)
    error = 1.96 * x.std() / 20
    assert low == pytest.approx(x.mean() - error, rel=0.1)
    assert high == pytest.approx(x.mean() + error, rel=0.1)


@pytest.mark.parametrize(("runs", "least"), [(5, 0.88), (10, 0.92)])  # five runs have too few resamples
@pytest.mark.parametrize("tasks", [1, 2])
def test_intervals_contain_the_true_value_as_often_as_their_level_says(tasks, runs, least):
    generator = np.random.default_rng(0)
    held = 0
    for k in range(400):
        centres = 5.0 * np.arange(tasks)[:, None]  # tasks with very different scores, which strata separate
        x = generator.normal(centres, 1, (tasks, runs))
        low, high = stats.interval(stats.mean, x, resamples=1000, seed=k)
        held += low <= centres.mean() <= high
    assert least < held / 400 < 0.99  # those of several tasks are slightly too wide


@pytest.mark.parametrize(("runs", "quantile"), [(5, 2.7764), (10, 2.2622), (20, 2.0930)])
def test_intervals_of_means_extend_as_far_as_students_distribution(runs, quantile):
    spread = math.sqrt((runs - 1) / runs)  # of resampled means, as a share of the standard error
    tail = stats.expanded_tail(0.025, runs)
    assert -NormalDist().inv_cdf(tail) * spread == pytest.approx(quantile, abs=0.01)


def test_the_interval_of_a_ratio_of_steps_contains_the_true_ratio_as_often_as_its_level_says():
    generator = np.random.default_rng(0)
    held = 0
    for k in range(300):
        x, y = (factor * generator.gamma(20, [[1.0], [50.0]], (2, 10)) for factor in (1.5, 1.0))
        low, high = stats.interval(stats.sample_ratio, x, y, resamples=300, seed=k)
        held += low <= 1.5 <= high
    assert 0.88 < held / 300 < 0.98


@pytest.mark.parametrize("sign", [-1, 1])
def test_equivalence_is_seldom_claimed_of_arms_that_differ_by_a_bound(sign):
    generator = np.random.default_rng(0)
    claimed = 0
    for k in range(300):
        x = generator.normal([[0.0], [5.0]], 0.05, (2, 10)) + sign * 0.05
        y = generator.normal([[0.0], [5.0]], 0.05, (2, 10))
        claimed += stats.is_equivalent(stats.mean_difference, x, y, bounds=(-0.05, 0.05), resamples=300, seed=k)
    assert claimed / 300 < 0.07  # at most 0.05, up to chance


def test_equivalence_of_equal_arms_is_shown_by_many_runs_and_not_by_few_noisy_ones():
    generator = np.random.default_rng(0)
    bounds = (-0.05, 0.05)
    many = generator.normal(0, 0.02, (2, 1, 40))
    noisy = generator.normal(0, 0.5, (2, 1, 5))
    assert stats.is_equivalent(stats.mean_difference, *many, bounds=bounds)
    assert not stats.is_equivalent(stats.mean_difference, *noisy, bounds=bounds)


def test_a_ratio_of_steps_is_the_geometric_mean_over_tasks():
    x, y = np.array([[4.0, 4.0], [1.0, 3.0]]), np.array([[1.0, 1.0], [2.0, 2.0]])
    assert stats.sample_ratio(x, y) == pytest.approx(2.0)
    assert stats.sample_ratio(y, x) == pytest.approx(0.5)


def test_strata_remove_differences_between_tasks_from_the_interval():
    x = np.array([[0.0, 0.1, -0.1, 0.0], [9.0, 9.1, 8.9, 9.0]])
    low, high = stats.interval(stats.mean, x)
    assert high - low < 0.2


def test_the_same_seed_gives_the_same_interval():
    x = np.random.default_rng(0).normal(size=(2, 5))
    assert stats.interval(stats.interquartile_mean, x, seed=1) == stats.interval(stats.interquartile_mean, x, seed=1)
    assert stats.interval(stats.interquartile_mean, x, seed=1) != stats.interval(stats.interquartile_mean, x, seed=2)


def test_a_permutation_test_finds_equal_arms_different_as_often_as_its_level_says():
    generator = np.random.default_rng(0)
    found = 0
    for k in range(300):
        x, y = generator.normal([[[0.0], [5.0]]], 1, (2, 2, 8))
        found += stats.permutation_test(stats.mean_difference, x, y, resamples=400, seed=k) <= 0.05
    assert 0.02 < found / 300 < 0.08


def test_a_permutation_test_of_few_runs_agrees_with_all_exchanges():
    x, y = np.array([[3.0, 4.0, 5.0]]), np.array([[0.0, 1.0, 2.5]])
    pooled = np.concatenate([x[0], y[0]])
    sums = [sum(pooled[k] for k in chosen) for chosen in itertools.combinations(range(6), 3)]
    as_far = [abs(2 * total - pooled.sum()) >= abs(x.sum() - y.sum()) for total in sums]
    found = stats.permutation_test(stats.mean_difference, x, y, resamples=20_000)
    assert found == pytest.approx(np.mean(as_far), abs=0.01)
    assert stats.permutation_test(stats.mean_difference, x, x) == 1


def test_holms_correction_equals_a_hand_computed_example():
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert stats.holm([0.9, float("nan"), 0.8]) == pytest.approx([1.0, float("nan"), 1.0], nan_ok=True)
    assert stats.holm([]) == []


def test_scores_of_different_tasks_are_refused():
    with pytest.raises(ValueError, match="do not match: give equally many tasks"):
        stats.interval(stats.mean_difference, np.zeros((3, 5)), np.zeros((1, 5)))


@pytest.mark.parametrize(
    "options", [{"level": 0}, {"level": 1}, {"level": -1}, {"level": np.nan}, {"resamples": 0}, {"resamples": 1.5}]
)
def test_an_invalid_level_or_number_of_resamples_is_refused(options):
    with pytest.raises(ValueError, match=r"(level|resamples)=.* is invalid"):
        stats.interval(stats.mean, np.zeros((2, 5)), **options)


@pytest.mark.parametrize("scores", [np.zeros((2, 1)), np.zeros(3), np.array([[1.0, np.nan]])])
def test_scores_without_spread_are_refused(scores):
    with pytest.raises(ValueError, match="have no interval"):
        stats.interval(stats.mean, scores)
