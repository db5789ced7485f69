"""Start-up time: seconds from `import torch` to the first step with compiled kernels, and seconds to compile
everything.

python bench/start.py               # a minute or two
python bench/start.py --runs 20
"""

import argparse
import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack

import numpy as np
from interrupt import held_back, until_interrupted

FIRST_STEP = """
import time, torch
begin = time.perf_counter()
from particle_grid import ParticleGrid
env = ParticleGrid()
env.reset(0)
env.step(env.actions)
print(time.perf_counter() - begin)
"""
EVERYTHING = """
import sys, time, numba, torch
begin = time.perf_counter()
from particle_grid.env import ACTIONS, ParticleGrid
from particle_grid.sim import tasks
numba.set_num_threads(int(sys.argv[1]))
for task in tasks.names():
    for action in ACTIONS:
        env = ParticleGrid(task, action, agents=32_768)
        env.reset(0)
        env.step(env.scripted_actions(env.state.rng[:1].copy()))
print(time.perf_counter() - begin)
"""


def seconds(code: str, *arguments: str, **variables: str) -> float:
    """Return the seconds that a fresh process prints when it runs `code`."""
    command = [sys.executable, "-c", code, *arguments]
    environment = os.environ | variables
    with ExitStack() as stack:
        with held_back():
            # In its own session, so that Ctrl-C reaches only this process, which then ends the other.
            process = subprocess.Popen(
                command, text=True, stdout=subprocess.PIPE, env=environment, start_new_session=True
            )
            stack.enter_context(process)
            stack.callback(process.kill)
        printed, _ = process.communicate()
    if process.returncode:
        raise SystemExit("error: The process that is timed failed, for the reason above.")
    return float(printed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as folder:
        print("Compiling every task and action form, one thread", flush=True)
        one = seconds(EVERYTHING, "1", NUMBA_CACHE_DIR=folder)
        print(f"Every task and action form, nothing compiled, one thread: {one:.1f} s")
        if os.cpu_count() != 1:
            print("Compiling for several threads", flush=True)
            several = seconds(EVERYTHING, "2", NUMBA_CACHE_DIR=folder)
            print(f"Additional compilation for several threads, when they are first used: {several:.1f} s")
        print(f"Starting {runs} times", flush=True)
        warm = [seconds(FIRST_STEP, NUMBA_CACHE_DIR=folder) for _ in range(runs + 1)][1:]
    print(f"First step, compiled kernels: {np.median(warm):.2f} s ({min(warm):.2f} to {max(warm):.2f}, {runs} runs)")


if __name__ == "__main__":
    until_interrupted(main)
