"""A run that is interrupted, or whose logger fails, saves its progress and restores signal handlers."""

import os
import signal
import threading
from dataclasses import replace

import pytest

from particle_grid.learn import checkpoint
from tests.learn.training import SMALL, Record, make


def test_ctrl_c_finishes_the_iteration_saves_and_restores_the_handler(tmp_path):
    path = tmp_path / "checkpoint.pt"
    before = signal.getsignal(signal.SIGINT)
    record = Record(lambda step: step == 128 and os.kill(os.getpid(), signal.SIGINT))
    result = make(config=replace(SMALL, total_steps=10**6), loggers=[record], path=path).run()
    assert (result.steps, result.interrupted, result.signal) == (128, True, signal.SIGINT)
    assert checkpoint.load(path)["steps"] == 128
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.usefixtures("heeded")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_termination_signal_acts_like_ctrl_c_unless_it_is_ignored(number, tmp_path):
    path = tmp_path / "checkpoint.pt"
    run = make(path=path)
    run.loggers = [Record(lambda step: os.kill(os.getpid(), number) if step == 64 else None)]
    result = run.run()
    assert (result.interrupted, result.signal) == (True, number)
    assert checkpoint.load(path)["steps"] == run.steps == 64
    assert signal.getsignal(number) is signal.SIG_DFL
    signal.signal(number, signal.SIG_IGN)  # as nohup does
    try:
        result = run.run()
        assert (result.interrupted, result.signal) == (False, None)
        assert run.steps == 256
    finally:
        signal.signal(number, signal.SIG_DFL)


@pytest.mark.usefixtures("heeded")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_in_the_first_iteration_ends_the_run_at_once(number, tmp_path):
    before = signal.getsignal(number)
    run = make(path=tmp_path / "checkpoint.pt", watch=lambda: os.kill(os.getpid(), number))
    with pytest.raises(KeyboardInterrupt) as interrupt:
        run.run()
    assert interrupt.value.args == (number,)
    assert run.steps == 0
    assert not list(tmp_path.iterdir())
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("failure", [OSError("no space left"), SystemExit(1), KeyError("name")])
def test_progress_is_saved_when_a_logger_fails(failure, tmp_path):
    def fail(step):
        if step == 128:
            raise failure

    run = make(path=tmp_path / "checkpoint.pt", loggers=[Record(fail)])
    with pytest.raises(type(failure)):
        run.run()
    assert checkpoint.load(tmp_path / "checkpoint.pt")["steps"] == 128


def test_a_second_ctrl_c_stops_at_once_and_restores_the_handler():
    def twice(step):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        make(config=replace(SMALL, total_steps=10**6), loggers=[Record(twice)]).run()
    assert signal.getsignal(signal.SIGINT) is before


def test_a_trainer_runs_in_a_thread_without_signal_handlers():
    results = []
    thread = threading.Thread(target=lambda: results.append(make().run()))
    thread.start()
    thread.join()
    assert results[0].steps == 256
