"""Loggers of scalars: TensorBoard's files, CSV files, and several at once."""

import math
import re
from contextlib import closing

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from particle_grid.learn.loggers.csv_file import COLUMNS, CsvLogger, read_rows
from particle_grid.learn.loggers.several import Loggers
from particle_grid.learn.loggers.tensorboard import TensorBoardLogger
from particle_grid.support.errors import UserError
from tests.learn.training import make
from tests.support.test_atomic import no_file_beyond


def read_events(folder):
    accumulator = EventAccumulator(str(folder))
    accumulator.Reload()
    return {tag: [(e.step, e.value) for e in accumulator.Scalars(tag)] for tag in accumulator.Tags()["scalars"]}


def read_csv(folder):
    found = {}
    for step, name, value in read_rows(folder / "scalars.csv", "Remove it."):
        found.setdefault(name, []).append((step, value))
    return found


def csv_logger(folder, step=0):
    return CsvLogger(folder / "scalars.csv", step)


FILES = [(TensorBoardLogger, read_events), (csv_logger, read_csv)]


@pytest.mark.parametrize(("kind", "read"), FILES)
def test_a_file_holds_every_scalar_of_a_run_over_agent_steps(tmp_path, kind, read):
    with closing(kind(tmp_path)) as logger:
        result = make(form="continuous", loggers=[logger], normalise=lambda score: score).run()
    found = read(tmp_path)
    assert set(found) == set(result.scalars)
    assert {"env/score", "env/normalised_score", "policy/entropy", "perf/steps_per_second"} <= set(found)
    assert all(re.fullmatch(r"\w+/\w+", name) for name in found)
    for name, points in found.items():
        assert [step for step, _ in points] == [64, 128, 192, 256]
        assert points[-1][1] == pytest.approx(result.scalars[name])


@pytest.mark.parametrize(("kind", "read"), FILES)
def test_a_resumed_run_hides_what_was_written_after_its_checkpoint(tmp_path, kind, read):
    with closing(kind(tmp_path)) as logger:
        for step in (10, 20, 30):
            logger.log(step, {"env/score": step})
    [file] = tmp_path.iterdir()
    if kind is TensorBoardLogger:  # the file's name contains its second of creation, which determines the reading order
        file.rename(re.sub(r"\.\d+\.", ".1000000000.", str(file), count=1))
    with closing(kind(tmp_path, step=20)) as logger:
        logger.log(30, {"env/score": 300.0})
    assert read(tmp_path)["env/score"] == [(10, 10.0), (20, 20.0), (30, 300.0)]


@pytest.mark.parametrize("value", [0.1, 1 / 3, -1e-300, 1e22, math.inf, -math.inf])
def test_a_csv_file_keeps_every_bit_of_a_value(tmp_path, value):
    with closing(csv_logger(tmp_path)) as logger:
        logger.log(1, {"env/score": value})
    assert read_csv(tmp_path) == {"env/score": [(1, value)]}


def test_a_name_in_a_csv_file_is_never_a_formula(tmp_path):
    with closing(csv_logger(tmp_path)) as logger:
        logger.log(1, {"=1+1": 0.5, 'a,"b"\nc': 1.5})
    lines = (tmp_path / "scalars.csv").read_text("utf-8").splitlines()
    assert lines[1] == "1,'=1+1,0.5"
    assert read_csv(tmp_path) == {"=1+1": [(1, 0.5)], 'a,"b"\nc': [(1, 1.5)]}


def test_a_line_that_was_cut_off_is_neither_read_nor_continued(tmp_path):
    with closing(csv_logger(tmp_path)) as logger:
        logger.log(1, {"env/score": 0.125})
        logger.log(2, {"env/score": 0.375})
    path = tmp_path / "scalars.csv"
    path.write_bytes(path.read_bytes()[:-4])
    assert read_csv(tmp_path) == {"env/score": [(1, 0.125)]}
    with closing(csv_logger(tmp_path, step=2)) as logger:
        logger.log(3, {"env/score": 0.5})
    assert read_csv(tmp_path) == {"env/score": [(1, 0.125), (3, 0.5)]}


@pytest.mark.parametrize("line", ["1,env/score", "x,env/score,1", "-1,env/score,1", "1,env/score,y", f"{10**30},a,1"])
def test_a_damaged_csv_file_is_refused_with_the_line(tmp_path, line):
    (tmp_path / "scalars.csv").write_text(f"{','.join(COLUMNS)}\n{line}\n")
    with pytest.raises(UserError, match=r"scalars.csv, line 2,? is not "):
        csv_logger(tmp_path, step=1)


def test_a_full_disk_is_reported_in_one_sentence(tmp_path):
    with closing(csv_logger(tmp_path)) as logger, no_file_beyond(175):
        for step in range(9):
            logger.log(step, {"env/score": 0.5})
        with pytest.raises(OSError, match=r"scalars.csv cannot be written \(File too large\): check the folder"):
            logger.log(9, {"env/score": 0.5})
    assert [step for step, _ in read_csv(tmp_path)["env/score"]] == list(range(9))  # what was written before is whole


class Fake:
    """A logger that fails in one of its methods."""

    def __init__(self, essential=False, fails="", error=None):
        self.essential = essential
        self.fails = fails
        self.error = error or RuntimeError("the server\nis  away.")
        self.calls = []

    def __getattr__(self, name):
        def method(*_):
            self.calls.append(name)
            if name == self.fails:
                raise self.error

        return method


def log_everything(*loggers):
    """Call every method, as a run does; return what was said."""
    said = []
    with Loggers(said.append) as several:
        for number, logger in enumerate(loggers):
            several.add(f"logger {number}", logger)
        several.hyperparameters({})
        several.log(1, {})
        several.log_gif("video/policy", b"", 1)
        several.log(2, {})
        several.finished()
    return said


ALL = ["hyperparameters", "log", "log_gif", "log", "finished", "close"]


@pytest.mark.parametrize("fails", sorted(set(ALL)))
def test_a_run_continues_without_a_service_that_fails_and_says_so_once(fails):
    broken = Fake(fails=fails)
    whole = Fake()
    sentence = "logger 0 failed and logs nothing more (the server is away): the run continues without it."
    assert log_everything(broken, whole) == [sentence]
    assert broken.calls == ALL[: ALL.index(fails) + 1]
    assert whole.calls == ALL


def test_a_file_that_cannot_be_written_ends_a_run_and_closes_the_others():
    broken = Fake(essential=True, fails="log", error=OSError("the disk is full"))
    whole = Fake()
    with pytest.raises(OSError, match="the disk is full"):
        log_everything(whole, broken)
    assert whole.calls == ["hyperparameters", "log", "close"]


def interrupt(logger):
    with Loggers(print) as several:
        several.add("csv", logger)
        raise KeyboardInterrupt


def test_closing_does_not_hide_why_a_run_ended():
    broken = Fake(essential=True, fails="close", error=OSError("the disk is full"))
    with pytest.raises(KeyboardInterrupt):
        interrupt(broken)
    assert broken.calls == ["close"]
