"""Many trainings side by side: here of a stand-in that takes no time."""

import os
import signal
import sys
import threading
import time

import pytest

from particle_grid import jobs
from particle_grid.jobs import Job, run_all

# Leaves its arguments and its cores; fails, waits for Ctrl-C or ends, as it is told.
STAND_IN = """
import os, signal, sys, time
from pathlib import Path
folder = Path(sys.argv[-1].removeprefix("hydra.run.dir="))
signal.signal(signal.SIGINT, lambda *_: ((folder / "checkpoint.pt").touch(), sys.exit(130)))
(folder / "began.txt").open("a").write(" ".join(sys.argv[1:]) + "\\n")
(folder / "cores.txt").write_text(",".join(map(str, os.sched_getaffinity(0))) + os.environ["NUMBA_NUM_THREADS"])
if "fail" in sys.argv:
    sys.exit("first line\\nthe reason")
if "wait" in sys.argv:
    time.sleep(60)
(folder / "results.json").touch()
"""


@pytest.fixture(autouse=True)
def stand_in(monkeypatch, tmp_path):
    path = tmp_path / "stand_in.py"
    path.write_text(STAND_IN)
    monkeypatch.setattr(jobs, "TRAIN", [sys.executable, str(path)])


def begun(folder):
    return (folder / "began.txt").read_text().splitlines()


def test_what_fails_is_told_with_its_reason_and_does_not_stop_the_rest(tmp_path):
    wanted = [Job(tmp_path / str(k), ("fail",) if k == 1 else (f"seed={k}",)) for k in range(5)]
    told = {}
    assert run_all(wanted, lambda job, reason: told.update({job.folder.name: reason})) == [wanted[1]]
    assert told == {"0": "", "1": "the reason", "2": "", "3": "", "4": ""}
    assert "first line\nthe reason" in (tmp_path / "1" / "error.txt").read_text()
    assert begun(tmp_path / "3") == [f"seed=3 trainer.threads=1 hydra.run.dir={tmp_path / '3'}"]
    assert (tmp_path / "3" / "cores.txt").read_text() in [f"{core}1" for core in os.sched_getaffinity(0)]


def test_what_is_finished_is_not_repeated_and_what_failed_is_tried_again(tmp_path):
    wanted = [Job(tmp_path / str(k), ("fail",) if k == 1 else ()) for k in range(3)]
    run_all(wanted, lambda job, reason: None)
    mended = [Job(job.folder, ()) for job in wanted]
    assert run_all(mended, lambda job, reason: None) == []
    assert [len(begun(job.folder)) for job in mended] == [1, 2, 1]
    assert not (tmp_path / "1" / "error.txt").exists()


def test_ctrl_c_lets_runs_save_begins_no_other_and_they_go_on_later(tmp_path):
    wanted = [Job(tmp_path / str(k), ("wait",)) for k in range(6)]

    def press():
        while not (tmp_path / "0" / "cores.txt").exists():
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=press).start()
    told = []
    with pytest.raises(KeyboardInterrupt):
        run_all(wanted, lambda job, reason: told.append(job), count=1)
    assert told == []
    assert (tmp_path / "0" / "checkpoint.pt").exists()
    assert not (tmp_path / "1").exists()
    assert not (tmp_path / "0" / "error.txt").exists()  # it did not fail
    assert wanted[0].arguments[0] == f"resume={tmp_path / '0' / 'checkpoint.pt'}"
    assert wanted[1].arguments[0] == "wait"
