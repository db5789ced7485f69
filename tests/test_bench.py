"""The programs in bench/ start promptly, and end with one word when they are interrupted."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.cases import needs_jit

BENCH = Path(__file__).parents[1] / "bench"
QUICK = {
    "gallery": ["--out", "docs"],
    "learn": ["--out", "learn", "--tasks", "center", "--seeds", "1"],
    "peers": ["--seconds", "1"],
    "sim": ["--agents", "64", "--seconds", "1"],
    "soak": ["--minutes", "0.1"],
    "start": ["--runs", "1"],
    "train": ["--agents", "1024", "--size", "128", "--seconds", "1"],
}


def test_every_program_is_tested():
    programs = [path.stem for path in BENCH.glob("*.py") if "__main__" in path.read_text("utf-8")]
    assert sorted(programs) == sorted(QUICK)


@pytest.mark.slow
@needs_jit("compiled kernels are what they measure")
@pytest.mark.parametrize("name", QUICK)
def test_an_interrupted_program_prints_one_word_and_exits_with_code_130(name, tmp_path):
    process = subprocess.Popen(
        [sys.executable, str(BENCH / f"{name}.py"), *QUICK[name]],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    guard = threading.Timer(120, os.killpg, (process.pid, signal.SIGKILL))
    guard.start()
    try:
        first = process.stdout.readline()
        assert first.strip()
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all processes in the foreground
        rest = process.communicate()[0]
    finally:
        guard.cancel()
        process.kill()
    assert "Traceback" not in first + rest
    assert rest.splitlines()[-1] == "interrupted"
    assert process.returncode == 130
