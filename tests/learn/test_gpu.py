"""What is captured on a GPU computes what plain torch computes there. On a CPU, the same steps run uncaptured."""

import copy
from dataclasses import replace

import pytest
import torch

from particle_grid.learn.fast.gpu import Compiled, compiled
from particle_grid.learn.gpu.graphs import WARM_UP, Graph
from particle_grid.learn.gpu.pinned import DeviceCopy, arrays_in_block, host_memory
from particle_grid.learn.policy import POLICIES
from tests.learn.networks import lively
from tests.learn.toy import SPACES
from tests.learn.training import SMALL, make, stir, weights

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
everywhere = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=needs_gpu)])
MANY = replace(SMALL, minibatch=16, total_steps=4096)  # four optimiser steps an epoch, so that the last are replayed


def trained(device, iterations=1, name="conv_lstm", form="discrete", **settings):
    """Return a trainer after some iterations."""
    run = make(name, form, replace(MANY, device=device, **settings))
    stir(run)
    for _ in range(iterations):
        run._iterate()
    return run


@everywhere
@pytest.mark.parametrize("form", SPACES)
@pytest.mark.parametrize("name", POLICIES)
def test_captured_steps_compute_what_plain_ones_do(name, form, device):
    plain = trained(device, name=name, form=form, fast="off", graphs="off")
    steps = trained(device, name=name, form=form, fast="off", graphs="on")
    torch.testing.assert_close(weights(steps), weights(plain), rtol=1e-4, atol=1e-5)
    for buffer in ("obs", "actions", "rewards", "truncations"):
        assert torch.equal(getattr(steps.buffer, buffer), getattr(plain.buffer, buffer))
    graphs = [step.graph for _, step in steps.updater.steps.values()]
    assert all(graph is not None for graph in graphs) == (device == "cuda")


@everywhere
@pytest.mark.parametrize("fast", ["fp32", "bf16"])
@pytest.mark.parametrize("form", SPACES)
def test_a_policy_that_does_not_learn_has_ratios_of_one(form, fast, device):
    run = trained(device, form=form, fast=fast, graphs="on", learning_rate=0.0)
    assert abs(run.scalars["policy/kl"]) < 1e-4
    assert run.scalars["policy/clip_fraction"] == 0


@everywhere
def test_a_run_resumes_with_captured_steps(device):
    whole = trained(device, iterations=3, graphs="on")
    rest = make(config=whole.config, seed=1)
    rest.load_state_dict(copy.deepcopy(whole.state_dict()))
    for run in (whole, rest):
        run._iterate()
    torch.testing.assert_close(weights(rest), weights(whole), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@everywhere
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_is_compiled_within_its_tolerance(name, dtype, device):
    policy = lively(kind=name).to(device)
    network, how = compiled(policy, dtype, torch.device(device), {"backend": "aot_eager"} if device == "cpu" else {})
    assert isinstance(network, Compiled), how


@needs_gpu
def test_a_failed_capture_leaves_a_generator_that_works():
    generator = torch.Generator("cuda").manual_seed(0)
    drawn = []

    def waits():
        drawn.append(torch.rand(1, generator=generator, device="cuda").item())

    step = Graph(waits, generator)
    for _ in range(WARM_UP):
        step()
    with pytest.warns(RuntimeWarning, match="could not be captured"):
        step()
    step()
    generator.manual_seed(0)
    assert [torch.rand(1, generator=generator, device="cuda").item() for _ in drawn] == drawn


@needs_gpu
def test_buffers_for_a_gpu_are_page_locked_and_reach_it():
    arrays = list(arrays_in_block({"a": ((5, 3), "u1"), "b": ((5,), "f4")}).values())
    arrays[1][:] = 2
    there = DeviceCopy(arrays, torch.device("cuda"))
    there.fetch()
    assert there.copies[0][1].is_pinned()
    assert host_memory([4], torch.int32).is_pinned()
    assert there.tensors[1].tolist() == [2] * 5
