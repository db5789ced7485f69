"""Many runs in parallel, here of a substitute that takes no time."""

import os
import runpy
import shlex
import signal
import sys
import threading
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st

from particle_grid.experiments import pool
from particle_grid.experiments.pool import Job, run_all
from particle_grid.runs.folder import RunFolder

ROOT = Path(__file__).parents[2]
# Columns of the tables of bench/learn.py.
MEASURED = ("steps", "seconds", "updates", "sampled", "greedy", "end_of_best")
TIMES = [f"{name}_to_{level}" for level in (0.5, 1.0) for name in ("steps", "seconds", "updates")]
# Writes its arguments, its core, its GPU and, like train, its overrides. Depending on its arguments it fails, is killed
# in some attempts, waits for SIGTERM, or ends.
STAND_IN = """
import json, os, signal, sys, time
from pathlib import Path
folder = Path(sys.argv[-1].removeprefix("hydra.run.dir='").removesuffix("'"))
if not (folder / "checkpoint.pt").exists():
    (folder / "overrides.yaml").write_text(json.dumps(sys.argv[1:-1]))
signal.signal(signal.SIGTERM, lambda *_: (folder / "checkpoint.pt").touch() if "stay" in sys.argv else save())
def save():
    (folder / "checkpoint.pt").touch()
    sys.exit(130)
(folder / "began.txt").open("a").write(" ".join(sys.argv[1:]) + "\\n")
(folder / "cores.txt").write_text(",".join(map(str, os.sched_getaffinity(0))) + os.environ["NUMBA_NUM_THREADS"])
(folder / "gpu.txt").write_text(os.environ.get("CUDA_VISIBLE_DEVICES", "none"))
if f"killed={len((folder / 'began.txt').read_text().splitlines())}" in sys.argv or "killed" in sys.argv:
    print("a line of output", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
if "fail" in sys.argv:
    sys.exit("first line\\nthe reason")
while {"wait", "stay"} & {*sys.argv}:
    time.sleep(0.1)
(folder / "results.json").touch()
"""


@pytest.fixture(autouse=True)
def stand_in(monkeypatch, tmp_path):
    path = tmp_path / "stand_in.py"
    path.write_text(STAND_IN)
    monkeypatch.setattr(pool, "TRAIN", [sys.executable, str(path)])


def starts(folder):
    return (folder / "began.txt").read_text().splitlines()


def test_a_failure_is_reported_with_its_reason_and_does_not_stop_the_rest(tmp_path):
    wanted = [Job(RunFolder(tmp_path / str(k)), ("fail",) if k == 1 else (f"seed={k}",)) for k in range(5)]
    told = {}
    assert run_all(wanted, lambda job, reason: told.update({job.folder.name: reason})) == [wanted[1]]
    assert told == {"0": "", "1": "the reason", "2": "", "3": "", "4": ""}
    assert "first line\nthe reason" in (tmp_path / "1" / "error.txt").read_text()
    assert starts(tmp_path / "3") == [f"seed=3 trainer.threads=1 hydra.run.dir='{tmp_path / '3'}'"]
    assert (tmp_path / "3" / "cores.txt").read_text() in [f"{core}1" for core in os.sched_getaffinity(0)]


def test_finished_runs_are_not_repeated_and_failed_ones_are(tmp_path):
    wanted = [Job(RunFolder(tmp_path / str(k)), ("fail",) if k == 1 else ()) for k in range(3)]
    run_all(wanted, lambda job, reason: None)
    mended = [Job(job.folder, ()) for job in wanted]
    assert run_all(mended, lambda job, reason: None) == []
    assert [len(starts(job.folder.path)) for job in mended] == [1, 2, 1]
    assert not (tmp_path / "1" / "error.txt").exists()


def test_a_run_whose_process_is_killed_is_resumed_a_few_times(tmp_path):
    wanted = [Job(RunFolder(tmp_path / str(k)), (argument,)) for k, argument in enumerate(["killed=1", "killed", "x"])]
    told = {}
    assert run_all(wanted, lambda job, reason: told.update({job.folder.name: reason})) == [wanted[1]]
    reason = "its process was killed 3 times, by signal 9 (9: is there enough memory?)"
    assert told == {"0": "", "1": reason, "2": ""}
    assert [len(starts(job.folder.path)) for job in wanted] == [2, 3, 1]
    assert not (tmp_path / "0" / "error.txt").exists()
    assert (tmp_path / "1" / "error.txt").read_text() == f"a line of output\n{reason}\n"


@pytest.mark.parametrize(("visible", "expected"), [("3, 7", {"3", "7"}), ("GPU-ab", {"GPU-ab"}), ("", {""})])
def test_gpus_are_handed_out_in_turn_to_runs_side_by_side(tmp_path, monkeypatch, visible, expected):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    run_all([Job(RunFolder(tmp_path / str(k)), (f"seed={k}",)) for k in range(4)], lambda job, reason: None)
    assert {path.read_text() for path in tmp_path.glob("*/gpu.txt")} == expected


def press(number, *paths):
    """Send a signal to this process as soon as each of some files exists."""

    def wait():
        for path in paths:
            while not path.exists():
                time.sleep(0.02)
            os.kill(os.getpid(), number)

    threading.Thread(target=wait).start()


@pytest.mark.usefixtures("heeded")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_let_runs_save_and_they_resume_later(tmp_path, number):
    wanted = [Job(RunFolder(tmp_path / str(k)), ("wait",)) for k in range(6)]
    handler = signal.getsignal(number)
    press(number, tmp_path / "0" / "cores.txt")
    told = []
    with pytest.raises(KeyboardInterrupt):
        run_all(wanted, lambda job, reason: told.append(job), count=1)
    assert told == []
    assert (tmp_path / "0" / "checkpoint.pt").exists()
    assert not (tmp_path / "1").exists()
    assert not (tmp_path / "0" / "error.txt").exists()  # it did not fail
    assert wanted[0].arguments[0] == f"resume='{tmp_path / '0' / 'checkpoint.pt'}'"
    assert wanted[1].arguments[0] == "wait"
    assert signal.getsignal(number) == handler


def test_a_second_ctrl_c_kills_a_run_that_does_not_end(tmp_path):
    press(signal.SIGINT, tmp_path / "0" / "cores.txt", tmp_path / "0" / "checkpoint.pt")
    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_all([Job(RunFolder(tmp_path / "0"), ("stay",))], lambda job, reason: None)
    assert time.monotonic() - begin < 60
    assert not (tmp_path / "0" / "results.json").exists()


def test_an_error_outside_the_runs_ends_them_too(tmp_path):
    wanted = [Job(RunFolder(tmp_path / "0"), ("wait",)), Job(RunFolder(tmp_path / "1"), ())]

    def ended(job, reason):
        while not (tmp_path / "0" / "cores.txt").exists():
            time.sleep(0.02)
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        run_all(wanted, ended, count=2)
    assert (tmp_path / "0" / "checkpoint.pt").exists()


@pytest.mark.parametrize("left", ["results.json", "checkpoint.pt"])
def test_a_run_with_other_overrides_is_neither_counted_as_done_nor_resumed(tmp_path, left):
    run_all([Job(RunFolder(tmp_path / "1"), ("seed=1", "trainer.gamma=0.9"))], lambda job, reason: None)
    (tmp_path / "1" / "results.json").rename(tmp_path / "1" / left)
    before = starts(tmp_path / "1")
    for overrides, one, other in [
        (("seed=1", "trainer.gamma=0.95"), "trainer.gamma=0.9", "trainer.gamma=0.95"),
        (("seed=1",), "trainer.gamma=0.9", "no trainer.gamma"),
        (("seed=1", "trainer.gamma=0.9", "trainer.clip=0.1"), "no trainer.clip", "trainer.clip=0.1"),
    ]:
        wanted = [Job(RunFolder(tmp_path / "0"), ()), Job(RunFolder(tmp_path / "1"), overrides)]
        reason = f"^{tmp_path / '1'} holds a run that was started with {one}, and this one has {other}: choose"
        with pytest.raises(ValueError, match=reason):
            run_all(wanted, lambda job, reason: None)
        assert not (tmp_path / "0").exists()
        assert starts(tmp_path / "1") == before
    same = Job(RunFolder(tmp_path / "1"), ("trainer.gamma=0.5", "+trainer.gamma=0.9", "seed=1"))
    assert run_all([same], lambda job, reason: None) == []
    assert len(starts(tmp_path / "1")) == (1 if left == "results.json" else 2)


def test_a_table_of_runs_with_other_overrides_is_refused(invoke, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "bench")
    learn = runpy.run_path(str(ROOT / "bench" / "learn.py"))["main"]
    curves = SimpleNamespace(teams=lambda: [{"team": 1} | dict.fromkeys((*MEASURED, *TIMES), 1.0)])
    monkeypatch.setitem(learn.__globals__, "Curves", lambda folder: curves)
    monkeypatch.setitem(learn.__globals__, "plot", lambda *_: None)
    ended = partial(learn.__globals__["until_interrupted"], learn)
    arguments = ["--tasks", "center", "--actions", "discrete", "--seeds", "2", "--out", "out"]
    assert invoke(ended, *arguments, "--overrides", "trainer.gamma=0.9")[0] == 0
    table = Path("out/learning.md").read_text()
    code, _, err = invoke(ended, *arguments, "--overrides", "trainer.gamma=0.95")
    assert (code, err.count("\n")) == (1, 1)
    assert "error: out/center-discrete-0 holds a run that was started with trainer.gamma=0.9, and this one has" in err
    assert Path("out/learning.md").read_text() == table


def test_a_run_without_a_record_of_its_overrides_is_accepted(tmp_path):
    job = Job(RunFolder(tmp_path / "0"), ("seed=0",))
    run_all([job], lambda job, reason: None)
    (tmp_path / "0" / "overrides.yaml").unlink()
    assert run_all([Job(job.folder, ("seed=1",))], lambda job, reason: None) == []
    assert len(starts(tmp_path / "0")) == 1


@given(st.text("ab \\'\"(){}[],=:$.~%", min_size=1, max_size=12))
def test_a_folder_with_any_name_survives_the_command_line(name):
    *_, place = Job(RunFolder(Path(name)), ()).arguments
    [override] = OverridesParser.create().parse_overrides([place])
    assert override.value() == str(Path(name))


@pytest.mark.parametrize("name", ["run", "sp ace[1]", "a,b=c", "it's", "${x}"])
def test_the_override_that_resumes_a_run_can_be_typed_as_printed(name):
    path = Path("/outputs") / name / "checkpoint.pt"
    [word] = shlex.split(RunFolder(path.parent).resume_override())
    [override] = OverridesParser.create().parse_overrides([word])
    assert override.value() == str(path)
