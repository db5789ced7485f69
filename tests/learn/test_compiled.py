"""Policies compiled for a GPU compute the same as their modules, or are not used.

These tests run on the CPU: policies are traced and differentiated as for a GPU, but executed by torch.
"""

import warnings
from dataclasses import replace

import pytest
import torch

from particle_grid.learn import trainer
from particle_grid.learn.fast.compare import compare
from particle_grid.learn.fast.gpu import Compiled, compiled
from particle_grid.learn.policy import POLICIES, Policy
from tests.learn.networks import inputs, lively
from tests.learn.toy import SPACES
from tests.learn.training import SMALL, Record, make, stir

CPU = torch.device("cpu")
TRACED = {"backend": "aot_eager"}
DTYPES = (torch.float32, torch.bfloat16)


@pytest.mark.parametrize("kind", POLICIES)
def test_every_policy_compiles_to_one_graph_with_the_same_results(kind):
    policy = lively(kind=kind)
    network, how = compiled(policy, torch.float32, CPU, TRACED)
    assert isinstance(network, Compiled)
    assert "compiled for cpu, in fp32" in how
    assert compare(policy, network) < 1e-5
    network, how = compiled(policy, torch.bfloat16, CPU, TRACED)
    assert isinstance(network, Compiled), how
    assert 1e-4 < compare(policy, network) < 0.1  # the largest error, of one parameter's gradient
    with torch.no_grad():
        out, value, state = network(*inputs(policy, 1, 8)[:2], policy.initial_state(8))
    assert {x.dtype for x in (out, value, *state)} == {torch.float32}


@pytest.mark.parametrize("kind", POLICIES)
def test_outputs_and_values_are_not_rounded_to_bf16(kind):
    policy = lively(kind=kind)
    out, value, _ = Compiled(policy, torch.bfloat16, CPU, TRACED)(*inputs(policy, 2, 64))
    for x in (out, value):
        assert (x != x.bfloat16()).float().mean() > 0.9


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("form", SPACES)
@pytest.mark.parametrize("kind", POLICIES)
def test_the_first_minibatches_after_a_rollout_have_ratios_of_one(kind, form, dtype, monkeypatch):
    """Without learning, this holds for all minibatches. They are computed in other shapes than the rollout."""
    monkeypatch.setattr(trainer, "accelerate", lambda policy, *rest: compiled(policy, dtype, CPU, TRACED))
    record = Record()
    run = make(kind, form, replace(SMALL, learning_rate=0.0), loggers=[record])
    assert isinstance(run.network, Compiled)
    stir(run)
    run.run()
    assert max(abs(x["policy/kl"]) for x in record.scalars) < 1e-4
    assert max(x["policy/clip_fraction"] for x in record.scalars) == 0


def test_a_network_that_differs_by_more_than_rounding_is_not_used(monkeypatch):
    """A gradient that is 5% too large in a single layer is such a difference, in either precision."""
    decide = Policy.decide

    def edited(self, x):
        out, value = decide(self, x)
        if torch.compiler.is_compiling():
            value = value + 0.05 * (value - value.detach())
        return out, value

    monkeypatch.setattr(Policy, "decide", edited)
    for dtype in DTYPES:
        policy = lively()
        network, how = compiled(policy, dtype, CPU, TRACED)
        assert network is policy
        assert "compiled, it differs by" in how


def broken(graph, examples):
    raise RuntimeError("no compiler here.\nAnd much more.")


def test_a_policy_that_cannot_be_compiled_runs_in_plain_torch_with_the_reason():
    policy = lively(kind="mlp")
    network, how = compiled(policy, torch.float32, CPU, {"backend": broken})
    assert network is policy
    assert "cannot be compiled" in how
    assert how.count("\n") == 0
    assert all(x.grad is None for x in policy.parameters())


def test_any_number_of_policies_can_be_compiled_in_one_process():
    """Torch allows eight variants of a module's code, and each policy here needs three."""
    for _ in range(4):
        policy = lively(kind="mlp", hidden=16)
        network, how = compiled(policy, torch.float32, CPU, {"backend": "eager"})
        assert isinstance(network, Compiled), how
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for steps in (1, 2):
                network(*inputs(policy, steps, 8))


def test_beyond_the_limit_of_shapes_the_policy_takes_over_and_says_so_once():
    policy = lively(kind="mlp", hidden=16)
    network, _ = compiled(policy, torch.float32, CPU, {"backend": "eager"})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for steps in range(1, 13):
            given = inputs(policy, steps, 8)
            torch.testing.assert_close(network(*given), policy(*given))
    assert len(caught) == 1
    assert "plain torch from now on, which is slower: it cannot be compiled for inputs [" in str(caught[0].message)
