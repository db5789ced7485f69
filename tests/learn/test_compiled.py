"""Policies compiled for a GPU compute the same as their modules, or are not used."""

import pytest
import torch

from particle_grid.learn.fast import compare, compiled
from particle_grid.learn.fast.gpu import Compiled
from particle_grid.learn.policy import POLICIES
from tests.learn.networks import inputs, lively

CPU = torch.device("cpu")


@pytest.mark.parametrize("kind", POLICIES)
def test_every_policy_compiles_for_gpus_to_one_graph_with_the_same_results(kind):
    """Run on the CPU: the policy is traced and differentiated as for a GPU, but executed by torch."""
    policy = lively(kind=kind)
    options = {"backend": "aot_eager"}
    network, how = compiled(policy, "fp32", CPU, options)
    assert isinstance(network, Compiled)
    assert "compiled for cpu, in fp32" in how
    assert compare(policy, network) < 1e-5
    network, _ = compiled(policy, "bf16", CPU, options)
    assert isinstance(network, Compiled)
    assert 1e-4 < compare(policy, network) < 0.1  # the largest error, of one parameter's gradient
    with torch.no_grad():
        out, value, state = network(*inputs(policy, 1, 8)[:2], policy.initial_state(8))
    assert {x.dtype for x in (out, value, *state)} == {torch.float32}


def test_a_policy_that_cannot_be_compiled_runs_in_plain_torch_with_the_reason():
    def broken(graph, examples):
        raise RuntimeError("no compiler here.\nAnd much more.")

    policy = lively(kind="mlp")
    network, how = compiled(policy, "fp32", CPU, {"backend": broken})
    assert network is policy
    assert "cannot be compiled" in how
    assert how.count("\n") == 0
    assert all(x.grad is None for x in policy.parameters())
