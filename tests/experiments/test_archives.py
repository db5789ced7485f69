"""The published studies: their numbers follow from the archived runs, by a computation of its own."""

import pytest

from tests.experiments.recompute import FOLDERS, differences

RESAMPLED = ("iqm_low", "iqm_high")


def check(found):
    assert {name for name, value in found.items() if value > 1e-9} <= set(RESAMPLED)
    assert max(found[name] for name in RESAMPLED) < 0.05  # two bootstraps of ten runs draw different samples


def test_there_is_a_published_study():
    assert FOLDERS


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_published_scores_follow_from_the_archived_runs(folder):
    check(differences(folder, curves=False))


@pytest.mark.slow
@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_published_steps_to_thresholds_follow_from_the_archived_curves(folder):
    found = differences(folder)
    check(found)
    assert any(name.startswith("steps_to") for name in found)
