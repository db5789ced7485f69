"""Optuna searches with a database or log that cannot be used."""

from pathlib import Path

import pytest

from particle_grid import train
from tests.experiments.test_sweep import QUIET, SMALL


@pytest.mark.parametrize("storage", ["foo", "sqlite:////nowhere/x.db", "sqlite:///broken.db", "[1]"])
def test_an_unusable_database_is_refused_in_a_sentence(invoke, storage):
    pytest.importorskip("optuna")
    Path("broken.db").write_bytes(bytes(range(256)) * 40)
    arguments = ["-m", "hydra/sweeper=optuna", *SMALL, "trainer.clip=0.1,0.2", "hydra.sweep.dir=sweep", QUIET]
    code, _, err = invoke(train.main, *arguments, f"hydra.sweeper.storage={storage}")
    assert (code, err.count("\n")) == (1, 1)
    assert storage in err


@pytest.mark.parametrize("line", ['{"op_code": 99}', "garbage", '{"op'])
def test_a_damaged_log_of_a_search_is_refused_in_a_sentence(invoke, line):
    pytest.importorskip("optuna")
    Path("sweep").mkdir()
    Path("sweep/study.log").write_text(f"{line}\n")
    arguments = ["-m", "hydra/sweeper=optuna", *SMALL, "trainer.clip=0.1,0.2", "hydra.sweep.dir=sweep", QUIET]
    code, _, err = invoke(train.main, *arguments)
    assert (code, err.count("\n")) == (1, 1)
    assert "study.log cannot be used" in err
