"""Policies in the module: the forward pass of `learn.fast` in float32, and the choice of actions.

The weights are those that the kernels of `learn.fast` read, composed from the policy's parameters and rounded to 16
bits (IEEE 754 binary16), because a page holds many policies. `rounded` gives the same weights to the network in Python.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numba
import numpy as np
import torch
from gymnasium.spaces import MultiDiscrete

from particle_grid.browser.describe import Fields, record
from particle_grid.browser.entries import ACTION_READERS, Entries, session_of
from particle_grid.browser.memory import reader
from particle_grid.learn.fast import conv, conv_lstm, mlp
from particle_grid.learn.fast.kernels.hurdle import OUTPUTS, most_probable
from particle_grid.learn.fast.network import ACTING_CHUNK, FastNetwork
from particle_grid.learn.fast.sampling import categorical_sample, hurdle_sample
from particle_grid.learn.heads import BinsHead, CategoricalHead, Head, HurdleHead
from particle_grid.learn.heads.hurdle import ATOMS, LOG_ODDS
from particle_grid.learn.policy import MLP, Conv, ConvLSTM, Policy, make_policy
from particle_grid.sim.actions import ACTIONS
from particle_grid.sim.rng import next_u64
from particle_grid.support.errors import UserError
from particle_grid.support.jit import kernel

Functions = dict[str, str]  # the module's functions by what they do
NETWORKS: dict[type[Policy], tuple[str, type[FastNetwork]]] = {
    ConvLSTM: ("conv_lstm", conv_lstm.FastConvLSTM),
    Conv: ("conv", conv.FastConv),
    MLP: ("mlp", mlp.FastMLP),
}
HEADS: dict[type[Head], Functions] = {
    CategoricalHead: {"sample": "sample_choices", "greedy": "greedy_choices", "take": "take_discrete"},
    BinsHead: {"sample": "sample_choices", "greedy": "greedy_choices", "take": "take_continuous"},
    HurdleHead: {"sample": "sample_hurdle", "greedy": "greedy_hurdle", "take": "take_hurdle"},
}
AGENTS = "agents"  # a length that the engine replaces by the number of agents
BACKWARD = ("inputs_back", "recurrent_back", "conv_back", "linear_back")  # matrices that only learning reads
LARGEST = float(np.finfo(np.float16).max)
SHIFT, UNIT = np.uint64(40), np.float32(2**-24)


class Memory(NamedTuple):
    """What a policy writes, and what it remembers."""

    out: np.ndarray  # f32[1, N, K + 1] of actor and critic
    h: np.ndarray  # f32[N, hidden], or [0, 0] without memory
    c: np.ndarray  # f32[N, hidden], likewise


class Choices(NamedTuple):
    """How outputs become choices, and these become actions."""

    nvec: np.ndarray  # i64[2] choices along each axis
    values: np.ndarray  # f32[bins] the actions that choices stand for; unused by discrete actions
    noise: np.ndarray  # f32[2, N]
    samples: np.ndarray  # i32[N, 2]
    logp: np.ndarray  # f32[N] log-probability of the samples


class Moves(NamedTuple):
    """How the outputs of a `HurdleHead` become actions."""

    noise: np.ndarray  # f32[2, 2, N]
    samples: np.ndarray  # f32[N, 2]
    logp: np.ndarray  # f32[N] log-probability of the samples


def fast_network(policy: Policy) -> tuple[str, FastNetwork]:
    """Return the name of a policy's network in the module, and the network in Python.

    Raises:
        UserError: for a policy that the module cannot compute.
    """
    name, kind = NETWORKS.get(type(policy), ("", None))
    if kind is None:
        raise UserError(f"The module has no network for {type(policy).__name__}: use conv_lstm, conv or mlp.")
    if type(policy.head) not in HEADS:
        raise UserError(
            f"The module has no {type(policy.head).__name__}: use discrete actions, policy.head=hurdle or bins."
        )
    if isinstance(policy, ConvLSTM | Conv) and policy.encoder.conv1.padding != (0, 0):
        raise UserError(f"The module has no network for windows of {policy.side} cells: use vision=5.")
    threads = torch.get_num_threads()
    network = kind(policy, torch.float32, 1)
    torch.set_num_threads(threads)  # which the network sets to 1
    return name, network


def rounded(network: FastNetwork) -> Any:
    """Return the weights of a network, rounded to 16 bits.

    Raises:
        UserError: for a weight that is too large, or not a number.
    """
    with network.frozen():
        return _map(network.weights, _rounded)


class Described:
    """A policy as `engine.js` needs it, described again after its weights have changed.

    Raises:
        UserError: for a policy that the module cannot compute.
    """

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.name, self.network = fast_network(policy)

    def description(self) -> dict[str, Any]:
        """Return the description of the policy with its current weights.

        Raises:
            UserError: for a weight that is too large, or not a number.
        """
        policy = self.policy
        head = policy.head
        memory = _memory(policy, 1)
        choosing = record(_moves(1) if isinstance(head, HurdleHead) else _choices(head, 1))
        records = {
            "weights": record(_forward(rounded(self.network)), half=True),
            "workspace": record(self.network.allocate(1, ACTING_CHUNK)),
            "memory": _for_agents(record(memory), {"out": 1, "h": 0, "c": 0} if memory.h.size else {"out": 1}),
            "choices": _for_agents(choosing, {"noise": -1, "samples": 0, "logp": 0}),
        }
        return {
            "network": self.name,
            "functions": HEADS[type(head)],
            "choices": _choice_words(head),
            "observation_size": policy.observation_size,
            "action": "discrete" if type(head) is CategoricalHead else "continuous",
            "records": records,
        }


def policy_description(policy: Policy) -> dict[str, Any]:
    """Return the description of a policy for `engine.js`."""
    return Described(policy).description()


def network_entries() -> Entries:
    """Return the functions of the module that act with policies."""
    example = make_policy("conv_lstm", 5, MultiDiscrete([3, 3]))
    memory_of = reader(numba.typeof(_memory(example, 1)))
    choices_of = reader(numba.typeof(_choices(example.head, 1)))
    found: Entries = _choosing_entries(memory_of, choices_of) | _moving_entries(memory_of)
    for name, _ in NETWORKS.values():
        found[f"act_{name}"] = _act_entry(name, memory_of)
    return found


def _act_entry(name: str, memory_of: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function that computes a network."""
    _, network = fast_network(make_policy(name, 5, MultiDiscrete([3, 3])))
    weights_of = reader(numba.typeof(_forward(rounded(network))))
    workspace_of = reader(numba.typeof(network.allocate(1, ACTING_CHUNK)))
    run, recurrent = network.run_act, name == "conv_lstm"

    def act(session: int, weights: int, workspace: int, memory: int) -> int:
        b, m = session_of(session), memory_of(memory)
        n, size = b.observations.shape
        obs, starts = b.observations.reshape((1, n, size)), b.starts.reshape((1, n))
        w, work = weights_of(weights), workspace_of(workspace)
        if recurrent:
            shape = (1, n, m.h.shape[1])
            run((obs, starts, m.h, m.c), 0, n, w, work, (m.out, m.h.reshape(shape), m.c.reshape(shape)))
        else:
            run((obs, starts), 0, n, w, work, (m.out,))
        return 0

    return act


@kernel
def _fill(noise: np.ndarray, generator: np.ndarray) -> None:
    """Fill noise f32[A, N] with random numbers in [0, 1)."""
    for axis in range(noise.shape[0]):
        for i in range(noise.shape[1]):
            noise[axis, i] = np.float32(next_u64(generator, 0) >> SHIFT) * UNIT


def _choosing_entries(memory_of: Callable[..., Any], choices_of: Callable[..., Any]) -> Entries:
    """Return the functions that choose among the outputs."""

    def sample(session: int, memory: int, choices: int) -> int:
        x = choices_of(choices)
        _fill(x.noise, session_of(session).generator)
        categorical_sample(memory_of(memory).out[0], x.noise, x.nvec, x.samples, x.logp)
        return 0

    def greedy(session: int, memory: int, choices: int) -> int:
        out, x = memory_of(memory).out[0], choices_of(choices)
        for i in range(len(x.samples)):
            first = 0
            for axis in range(len(x.nvec)):
                best = 0
                for k in range(x.nvec[axis]):
                    best = k if out[i, first + k] > out[i, first + best] else best
                x.samples[i, axis] = best
                first += x.nvec[axis]
        return 0

    found: Entries = {"sample_choices": sample, "greedy_choices": greedy}
    for action in ACTIONS:
        found[f"take_{action}"] = _take_entry(action, choices_of)
    return found


def _moving_entries(memory_of: Callable[..., Any]) -> Entries:
    """Return the functions that act with a `HurdleHead`."""
    moves_of, actions_of = reader(numba.typeof(_moves(1))), ACTION_READERS["continuous"]

    def sample(session: int, memory: int, moves: int) -> int:
        x, generator = moves_of(moves), session_of(session).generator
        _fill(x.noise[0], generator)
        _fill(x.noise[1], generator)
        hurdle_sample(memory_of(memory).out[0], x.noise, x.samples, x.logp)
        return 0

    def greedy(session: int, memory: int, moves: int) -> int:
        out, x = memory_of(memory).out[0], moves_of(moves)
        for i in range(len(x.samples)):
            for axis in range(2):
                x.samples[i, axis] = most_probable(out[i, axis * OUTPUTS : (axis + 1) * OUTPUTS])
        return 0

    def take(moves: int, actions: int) -> int:
        chosen, x = actions_of(actions).actions, moves_of(moves)
        for i in range(len(chosen)):
            for axis in range(2):
                chosen[i, axis] = x.samples[i, axis]
        return 0

    return {"sample_hurdle": sample, "greedy_hurdle": greedy, "take_hurdle": take}


def _take_entry(action: str, choices_of: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function that turns choices into actions of a form."""
    actions_of, discrete = ACTION_READERS[action], action == "discrete"

    def take(choices: int, actions: int) -> int:
        x, chosen = choices_of(choices), actions_of(actions).actions
        for i in range(len(chosen)):
            for axis in range(2):
                if discrete:
                    chosen[i, axis] = x.samples[i, axis]
                else:
                    chosen[i, axis] = x.values[x.samples[i, axis]]
        return 0

    return take


def _memory(policy: Policy, n: int) -> Memory:
    state = [x.numpy() for x in policy.initial_state(n)] or [np.zeros((0, 0), np.float32)] * 2
    return Memory(np.zeros((1, n, policy.head.outputs + 1), np.float32), state[0], state[1])


def _choice_words(head: Head) -> dict[str, Any]:
    """Return how a page reads the probabilities of choices from the outputs.

    outputs: their number for each axis, of which the first belong to choices. levels: the action of each choice, None
    for any other. added: to the outputs.
    """
    if isinstance(head, HurdleHead):
        return {"outputs": OUTPUTS, "levels": [*ATOMS, None], "added": [0.0] * len(ATOMS) + [LOG_ODDS]}
    assert isinstance(head, CategoricalHead)
    levels = head.get_buffer("values").tolist() if isinstance(head, BinsHead) else [-1, 0, 1]
    return {"outputs": len(levels), "levels": levels, "added": [0.0] * len(levels)}


def _moves(n: int) -> Moves:
    samples = np.zeros((n, 2), np.float32)
    return Moves(noise=np.zeros((2, 2, n), np.float32), samples=samples, logp=np.zeros(n, np.float32))


def _choices(head: Head, n: int) -> Choices:
    assert isinstance(head, CategoricalHead)
    values = head.get_buffer("values").numpy() if isinstance(head, BinsHead) else np.zeros(0, np.float32)
    return Choices(
        nvec=np.array(head.nvec, np.int64),
        values=values,
        noise=np.zeros((2, n), np.float32),
        samples=np.zeros((n, 2), np.int32),
        logp=np.zeros(n, np.float32),
    )


def _forward(weights: Any) -> Any:
    """Return weights without the matrices that only learning reads."""
    parts = {
        name: np.zeros((0, 0), np.float32) if name in BACKWARD else _forward(x) if isinstance(x, tuple) else x
        for name, x in weights._asdict().items()
    }
    return type(weights)(**parts)


def _rounded(array: np.ndarray) -> np.ndarray:
    if array.dtype != np.float32:
        return array
    if not (np.abs(array) <= LARGEST).all():
        raise UserError(f"The policy has weights that are not numbers of at most {LARGEST:g}: use another checkpoint.")
    return array.astype(np.float16).astype(np.float32)


def _map(value: Any, change: Callable[[np.ndarray], np.ndarray]) -> Any:
    return type(value)(*(_map(x, change) if isinstance(x, tuple) else change(x) for x in value))


def _for_agents(fields: Fields, axes: dict[str, int]) -> Fields:
    """Return fields whose arrays have a length of `agents` along an axis, which may be counted from the last."""
    changed = []
    for field in fields:
        shape = list(field["shape"])
        if field["name"] in axes:
            shape[axes[field["name"]]] = AGENTS
        changed.append({**field, "shape": shape})
    return changed
