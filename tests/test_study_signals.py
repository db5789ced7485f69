"""Whatever ends a study or a tournament: no process is left, no file is half written, and the next one resumes."""

import csv
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from particle_grid import rank
from particle_grid.command import config_folder
from particle_grid.run import load_run
from tests.test_rank import HEADER, TINY

SMOKE = (config_folder() / "study" / "smoke.yaml").read_text("utf-8")
# Of a study, and what its process ends with. A shell says 128 + the number of a signal that killed a process.
CODES = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGHUP: 129, signal.SIGKILL: -9}

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="reads /proc")


def processes_at(folder):
    """Return the processes whose command line names a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words, state = (path / "cmdline").read_bytes(), (path / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:  # it has ended
            continue
        if os.fsencode(folder) in words and state != "Z" and int(path.name) != os.getpid():
            found.append(int(path.name))
    return found


def wait_for(condition, seconds):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.1)
    return condition()


def start(module, *arguments):
    """Start a command as a terminal does, so that a signal for one process reaches that one only."""
    command = [sys.executable, "-m", f"particle_grid.{module}", *map(str, arguments)]
    # A runner that was started in the background ignores Ctrl-C, and so would all that it starts.
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


@pytest.fixture
def study_at(tmp_path):
    """Starts a study whose runs do not end by themselves, and waits until two of them have a checkpoint."""
    plan, out = tmp_path / "endless.yaml", tmp_path / "out"
    plan.write_text(
        SMOKE.replace("trainer.total_steps=2000", "trainer.total_steps=1e12\n  - trainer.checkpoint_every=20000")
    )

    def begin():
        before = {path: path.stat().st_mtime_ns for path in out.rglob("checkpoint.pt")}
        process = start("study", plan, "--out", out, "--jobs", "2")
        running = min(2, len(os.sched_getaffinity(0)))

        def trains():
            newer = [path for path in out.rglob("checkpoint.pt") if path.stat().st_mtime_ns != before.get(path)]
            return len(newer) >= running or process.poll() is not None

        assert wait_for(trains, 240)
        assert process.poll() is None, process.communicate()[0]
        return process

    yield begin, out
    for left in processes_at(tmp_path):
        os.kill(left, signal.SIGKILL)


def steps_at(out):
    return {path: load_run(path)["steps"] for path in out.rglob("checkpoint.pt")}


def end(process, number, out):
    """Send a signal, and return the exit code, and the output, when no process has been left after five seconds."""
    process.send_signal(number)
    said, _ = process.communicate(timeout=60)
    assert wait_for(lambda: not processes_at(out), 5), "a training outlives its study"
    return process.returncode, said


@pytest.mark.slow
def test_a_study_ends_with_its_runs_which_save_first_and_resume(study_at):
    begin, out = study_at
    code, said = end(begin(), signal.SIGTERM, out)
    assert code == CODES[signal.SIGTERM]
    assert said.endswith("interrupted: the same command resumes the study\n")
    saved = steps_at(out)
    assert saved
    assert not list(out.rglob("error.txt"))  # none of them failed
    code, _ = end(begin(), signal.SIGKILL, out)
    assert code == CODES[signal.SIGKILL]
    assert all(steps >= saved[path] for path, steps in steps_at(out).items())
    assert any(steps > saved[path] for path, steps in steps_at(out).items())


@pytest.mark.release
def test_a_study_survives_signals_at_random_moments(study_at):
    begin, out = study_at
    generator, saved = random.Random(0), {}
    for number in generator.choices(list(CODES), k=12):
        process = begin()
        time.sleep(generator.uniform(0, 2))
        code, _ = end(process, number, out)
        assert code == CODES[number]
        now = steps_at(out)
        assert all(now[path] >= steps for path, steps in saved.items())
        assert not list(out.rglob("error.txt"))
        saved = now


@pytest.mark.release
def test_a_tournament_survives_signals_at_random_moments_and_plays_nothing_twice(tmp_path):
    generator, arguments = random.Random(1), ["checkpoints=[pretrained]", *TINY[:-1], "steps=400", f"out={tmp_path}/o"]
    path, played = tmp_path / "o" / "matches.csv", 0
    for number in generator.choices(list(CODES), k=12):
        process = start("rank", *arguments)
        assert wait_for(lambda process=process: path.exists() or process.poll() is not None, 120)
        time.sleep(generator.uniform(0, 2))
        process.send_signal(number)
        process.communicate(timeout=60)
        assert wait_for(lambda: not processes_at(tmp_path), 5)
        content = path.read_bytes()
        if content.startswith(HEADER):
            rows = list(csv.reader(content[: content.rfind(b"\n")].decode().splitlines()[1:]))
            assert len(rows) >= played
            assert all(len(row) == len(rank.COLUMNS) for row in rows)
            played = len(rows)
    process = start("rank", *arguments)
    assert process.communicate(timeout=300)[0].count("has played all") == 4
    with path.open(newline="") as file:
        assert len({tuple(row[:5]) for row in csv.reader(file)}) == 1 + 4 * 4
    assert path.read_bytes().count(b"\n") == 1 + 4 * 4
