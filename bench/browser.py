"""Speed of the WebAssembly module in Node.js beside the native kernels on one thread, alone and with a policy.

    python bench/browser.py
    python bench/browser.py --agents 1024 4096 --seconds 120 --json browser.json

The task is group, in a world with 64 cells for each agent. A step is that of the whole environment: random actions, or
the forward pass of the shipped conv_lstm and samples from its head, then moves, rewards and observations. Cases take
turns. Frames per second are steps of all agents per second. Node.js 18 or later must be on the path.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np
import torch
from interrupt import until_interrupted
from timing import announced, interleaved, report, timed

from particle_grid.api import load_policy
from particle_grid.browser import build, describe, networks
from particle_grid.env import ACTIONS, ParticleGrid
from particle_grid.learn.fast import accelerate, accelerate_head, frozen
from particle_grid.learn.policy import Policy

WARM, STEPS = 5, 20  # unmeasured and measured steps in a case's turn
CELLS = 64  # for each agent
COLUMNS = ["case", "agents", "M agent-steps/s", "frames/s", "times native"]
DRIVER = """
import { readFileSync } from "fs";
import { createInterface } from "readline";
import { Engine } from "./engine.mjs";
const engine = await Engine.load(readFileSync("kernels.wasm"));
const cases = {};
for (const [name, each] of Object.entries(JSON.parse(readFileSync("cases.json")))) {
  const world = await engine.world(each.world);
  world.reset(0);
  cases[name] = { world, policy: await engine.policy(each.policy, world) };
}
for await (const line of createInterface({ input: process.stdin })) {
  const { name, source, warm, steps } = JSON.parse(line);
  const { world, policy } = cases[name];
  const step = () => world.step(source === "policy" ? policy : source);
  for (let k = 0; k < warm; k += 1) step();
  const begin = performance.now();
  for (let k = 0; k < steps; k += 1) step();
  console.log((performance.now() - begin) / 1000 / steps);
}
"""


class Node:
    """The module in a process of Node.js, with the worlds and policies of all cases."""

    def __init__(self, folder: Path, cases: dict[str, tuple[ParticleGrid, Policy]]) -> None:
        described = {
            name: {"world": describe.world(env), "policy": networks.policy_description(policy)}
            for name, (env, policy) in cases.items()
        }
        (folder / "cases.json").write_text(json.dumps(described), "utf-8")
        (folder / "kernels.wasm").write_bytes(build.MODULE.read_bytes())
        (folder / "engine.mjs").write_text(build.MODULE.with_name("engine.js").read_text("utf-8"), "utf-8")
        (folder / "main.mjs").write_text(DRIVER, "utf-8")
        self.process = subprocess.Popen(
            ["node", "main.mjs"], cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def case(self, name: str, source: str) -> Callable[[], float]:
        """Return a case that measures seconds per step."""
        line = json.dumps({"name": name, "source": source, "warm": WARM, "steps": STEPS})

        def turn() -> float:
            assert self.process.stdin
            assert self.process.stdout
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
            return float(self.process.stdout.readline())

        return turn


def native(env: ParticleGrid, policy: Policy | None) -> Callable[[], float]:
    """Return a case that measures seconds per step of an environment, with random actions or with a policy."""
    generator = np.random.default_rng(0)
    act = random_player(env, generator) if policy is None else policy_player(env, policy)

    def turn() -> float:
        numba.set_num_threads(1)
        timed(lambda: env.step(act()), WARM)
        return timed(lambda: env.step(act()), STEPS)

    return turn


def random_player(env: ParticleGrid, generator: np.random.Generator) -> Callable[[], np.ndarray]:
    """Return a function that draws actions."""
    if env.discrete:
        return lambda: generator.integers(0, 3, (env.num_agents, 2), dtype=np.int32)
    return lambda: generator.random((env.num_agents, 2), np.float32) * 2 - 1


def policy_player(env: ParticleGrid, policy: Policy) -> Callable[[], np.ndarray]:
    """Return a function that samples actions of a policy on one thread."""
    network, _ = accelerate(policy, "fp32", torch.device("cpu"), 1)
    _, sample, _ = accelerate_head(policy.head, network)
    generator = torch.Generator().manual_seed(0)
    state = [policy.initial_state(env.num_agents)]

    @torch.no_grad()
    def act() -> np.ndarray:
        obs, starts = torch.from_numpy(env.observations)[None], torch.from_numpy(env.truncations)[None]
        with frozen(network):
            out, _, state[0] = network(obs, starts, state[0])
        return policy.head.to_action(sample(out[0], generator)[0]).numpy()

    return act


def rows(times: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """Return the figures of each case. Ratios are taken within each round."""
    found = []
    for name, seconds in times.items():
        place, _, case = name.partition(" ")
        agents = int(case.split()[-1])
        step = float(np.median(seconds))
        ratio = float(np.median(times[f"native {case}"] / seconds))
        found.append(
            {"case": f"{place} {case.rsplit(' ', 1)[0]}", "agents": agents, "M agent-steps/s": agents / step / 1e6}
        )
        found[-1] |= {"frames/s": 1 / step, "times native": ratio}
    return found


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", type=int, nargs="+", default=[1024, 4096])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--json", help="also write the figures to this file")
    args = parser.parse_args()
    if not shutil.which("node"):
        sys.exit("There is no Node.js on the path: install version 18 or later.")
    known: dict[str, tuple[ParticleGrid, Policy]] = {}
    for action, agents in announced("Making", [(action, n) for n in args.agents for action in ACTIONS]):
        side = int((CELLS * agents) ** 0.5)
        env = ParticleGrid("group", action, agents=agents, height=side, width=side)
        env.reset(0)
        known[f"{action} {agents}"] = (env, load_policy("group", action).policy)
    with tempfile.TemporaryDirectory() as folder:
        node = Node(Path(folder), known)
        cases: dict[str, Callable[[], float]] = {}
        for name, (env, policy) in known.items():
            for source, player in (("random", None), ("policy", policy)):
                cases[f"native {source} {name}"] = native(env, player)
                cases[f"node {source} {name}"] = node.case(name, source)
        times = interleaved(cases, args.seconds)
        node.process.kill()
    report("WebAssembly and native code, one thread", COLUMNS, rows(times), args.json)


if __name__ == "__main__":
    until_interrupted(main)
