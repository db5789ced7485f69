"""Policies as ONNX models: one step of n agents, for programs that have neither PyTorch nor this package."""

import copy
import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from particle_grid.exports.contract import AGENTS
from particle_grid.learn.policy import Policy
from particle_grid.runs.safetensors import KEY
from particle_grid.support import optional
from particle_grid.support.errors import UserError

SUFFIX = ".onnx"
INPUTS = ("observations", "starts")  # followed by the state
OUTPUTS = ("action", "head_outputs", "value")  # followed by the next state
LARGEST = (1 << 31) - (1 << 24)  # bytes of weights; a file of this format, with the rest, has less than 2 GiB


class PolicyStep(nn.Module):
    """One step of a policy: its most probable actions, what it takes to sample others, values and the next state."""

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        self.policy = policy

    def forward(self, observations: Tensor, starts: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """Return action [N, A], head_outputs f32[N, K], value f32[N] and the next state.

        Args:
            observations: u8[N, observation size].
            starts: bool[N].
            *state: the recurrent state, [N, ...] each.
        """
        out, value, state = self.policy(observations[None], starts[None], state)  # T = 1
        head = self.policy.head
        return head.to_action(head.mode(out[0])), out[0], value[0], *state


def check_libraries() -> None:
    """Raise UserError if a library that the export needs is not installed."""
    for library in ("onnx", "onnxscript"):
        optional.load(library, "export", "format=onnx")


def encode(policy: Policy, contract: Mapping[str, Any]) -> bytes:
    """Return a model, with its contract as JSON in the metadata.

    Args:
        policy: with its weights, on any device.
        contract: as `particle_grid.exports.contract.describe` returns it.

    Raises:
        UserError: if a library is missing, or the policy is too large or does something that ONNX cannot express.
    """
    check_libraries()
    size = sum(x.numel() * x.element_size() for x in policy.state_dict().values())
    if size > LARGEST:
        raise UserError(f"The policy has {size / 1e9:.1f} GB of weights, too many for ONNX: use format=safetensors.")
    step = PolicyStep(copy.deepcopy(policy)).cpu().eval()
    try:
        with _quiet():
            model = _converted(step)
    except Exception as error:  # torch has many for what it cannot convert
        reason = str(error.__cause__ or error).strip().partition("\n")[0]
        name = type(policy).__name__
        raise UserError(f"{name} cannot be exported to ONNX ({reason}): use format=safetensors.") from error
    for node in model.graph.node:
        del node.metadata_props[:]  # where in the sources it comes from, with paths of this machine
    entry = model.metadata_props.add()
    entry.key = KEY
    entry.value = json.dumps(contract)
    return bytes(model.SerializeToString())


def _converted(step: PolicyStep) -> Any:
    """Return the model of a step, for any number of agents."""
    state = step.policy.initial_state(2)  # torch would take 1 for a constant
    observations = torch.zeros(2, step.policy.observation_size, dtype=torch.uint8)
    agents = {0: torch.export.Dim(AGENTS)}
    shapes: list[Any] = [agents, agents]
    if state:
        shapes.append(tuple(agents for _ in state))
    program = torch.onnx.export(
        step,
        (observations, torch.ones(2, dtype=torch.bool), *state),
        input_names=[*INPUTS, *(f"state_{k}" for k in range(len(state)))],
        output_names=[*OUTPUTS, *(f"next_state_{k}" for k in range(len(state)))],
        dynamic_shapes=tuple(shapes),
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    return program.model_proto


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what torch says about itself, such as operators of libraries that are not installed, off the terminal."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
