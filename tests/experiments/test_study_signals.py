"""However a study or a tournament ends, no process is left, no file is incomplete, and it can be resumed."""

import csv
import random
import re
import signal
import time
from pathlib import Path

import pytest

from particle_grid.evaluation.tournament import COLUMNS
from particle_grid.learn.fast import cores
from particle_grid.runs.load import load_checkpoint
from particle_grid.settings.compose import config_folder
from tests.evaluation.test_tournament import HEADER, TINY
from tests.test_signals import clean_up, start, strike, wait_for

SMOKE = (config_folder() / "study" / "smoke.yaml").read_text("utf-8")
# Exit code of a study by signal. For a process killed by a signal, a shell reports 128 + its number.
CODES = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGHUP: 129, signal.SIGKILL: -9}

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="reads /proc")


@pytest.fixture
def study_at(tmp_path):
    """Start a study whose runs do not end by themselves, and wait until each of them has a new checkpoint."""
    out = tmp_path / "out"
    started = []
    text = SMOKE.replace("trainer.total_steps=2000", "trainer.total_steps=1e12\n  - trainer.checkpoint_every=20000")
    (tmp_path / "endless.yaml").write_text(text)

    def begin():
        before = {path: path.stat().st_mtime_ns for path in out.rglob("checkpoint.pt")}
        process = start(["particle_grid.study", "endless.yaml", "--out", "out", "--jobs", "2"], tmp_path)
        started.append(process)
        running = min(2, cores())

        def train():
            newer = [path for path in out.rglob("checkpoint.pt") if path.stat().st_mtime_ns != before.get(path)]
            return len(newer) >= running

        wait_for(train, process)
        assert process.poll() is None, (tmp_path / "output.txt").read_text()
        return process

    yield begin, out
    for process in started:
        clean_up(process)


def steps_at(out):
    return {path: load_checkpoint(path, resume=True).steps for path in out.rglob("checkpoint.pt")}


@pytest.mark.slow
def test_terminating_a_study_ends_its_runs_which_save_first_and_resume(study_at):
    begin, out = study_at
    process = begin()
    strike(process, signal.SIGTERM)
    assert process.returncode == CODES[signal.SIGTERM]
    said = (out.parent / "output.txt").read_text()
    assert said.endswith("interrupted: the same command resumes the study\n")
    saved = steps_at(out)
    assert saved
    assert not list(out.rglob("error.txt"))  # none of them failed
    process = begin()
    strike(process, signal.SIGKILL)
    assert process.returncode == CODES[signal.SIGKILL]
    assert all(steps >= saved[path] for path, steps in steps_at(out).items())
    assert any(steps > saved[path] for path, steps in steps_at(out).items())


@pytest.mark.release
def test_a_study_survives_signals_at_random_moments(study_at):
    begin, out = study_at
    generator = random.Random(0)
    saved = {}
    for number in generator.choices(list(CODES), k=12):
        process = begin()
        time.sleep(generator.uniform(0, 2))
        strike(process, number)
        assert process.returncode == CODES[number]
        now = steps_at(out)
        assert all(now[path] >= steps for path, steps in saved.items())
        assert not list(out.rglob("error.txt"))
        saved = now


@pytest.mark.release
def test_a_tournament_survives_signals_at_random_moments_and_repeats_no_match(tmp_path):
    generator = random.Random(1)
    path = tmp_path / "o" / "matches.csv"
    played = 0
    command = ["particle_grid.rank", "checkpoints=[pretrained]", *TINY[:-1], "steps=400", "out=o"]
    for number in generator.choices(list(CODES), k=12):
        process = start(command, tmp_path)
        try:
            wait_for(path.exists, process)
            time.sleep(generator.uniform(0, 2))
            strike(process, number)
        finally:
            clean_up(process)
        content = path.read_bytes()
        if content.startswith(HEADER):
            rows = list(csv.reader(content[: content.rfind(b"\n")].decode().splitlines()[1:]))
            assert len(rows) >= played
            assert all(len(row) == len(COLUMNS) for row in rows)
            played = len(rows)
    process = start(command, tmp_path)
    assert process.wait(300) == 0
    said = (tmp_path / "output.txt").read_text()
    assert len(re.findall(r"^\d+ (?:of \d+ matches$|matches, about )", said, re.MULTILINE)) >= 4
    matches = 3 * 4 * 4  # seeds and pairs
    with path.open(newline="") as file:
        assert len({tuple(row[:5]) for row in csv.reader(file)}) == 1 + matches
    assert path.read_bytes().count(b"\n") == 1 + matches
