"""Signals end a command at a moment at which it can end."""

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from particle_grid.support import lifeline


@pytest.mark.usefixtures("heeded")
@pytest.mark.parametrize("number", [signal.SIGINT, *lifeline.TERMINATING])
def test_a_signal_while_the_compiler_calls_back_waits_until_it_has_returned(number):
    done = []

    def _raw_object_cache_notify():  # the name of a function of llvmlite
        signal.raise_signal(number)
        done.append("called back")

    @lifeline.interruptible()
    def compile_and_run():
        ctypes.CFUNCTYPE(None)(_raw_object_cache_notify)()
        done.append("compiled")
        time.sleep(10)

    with pytest.raises(KeyboardInterrupt) as interrupt:
        compile_and_run()
    assert done == ["called back", "compiled"]
    assert interrupt.value.args == (number,)
    assert lifeline.exit_code(interrupt.value) == 128 + number


def test_the_functions_that_the_compiler_calls_still_have_the_names_that_are_looked_for():
    from llvmlite.binding import ExecutionEngine

    assert [name for name in vars(ExecutionEngine) if name.startswith(lifeline.CALLBACK)]


def test_signals_that_are_ignored_or_handled_stay_so():
    for own in (signal.SIG_IGN, lambda number, frame: None):
        before = signal.signal(signal.SIGTERM, own)
        try:
            with lifeline.interruptible():
                assert signal.getsignal(signal.SIGTERM) is own
        finally:
            signal.signal(signal.SIGTERM, before)


def test_another_thread_can_run_a_command():
    def run():
        with lifeline.interruptible():
            ran.append(True)

    ran = []
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert ran


@pytest.mark.skipif(os.name != "posix", reason="Windows has no parents to watch")
def test_a_process_that_torchrun_started_ends_soon_after_torchrun_is_killed():
    worker = "import particle_grid, time; print(0, flush=True); time.sleep(600)"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {worker!r}])"
    environment = os.environ | {lifeline.TORCHRUN: "none"}
    environment.pop(lifeline.PARENT, None)
    torchrun = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment)
    assert torchrun.stdout.readline() == b"0\n"
    torchrun.kill()
    assert torchrun.communicate(timeout=60)[0] == b""  # the worker has closed it
