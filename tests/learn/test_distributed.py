"""Two processes that learn together do what one would with the agents of both."""

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from particle_grid.learn.distributed import Group, ranks
from particle_grid.learn.policy import make_policy
from particle_grid.learn.ppo import ppo_loss
from particle_grid.learn.trainer import Trainer, TrainerConfig
from tests.learn.toy import SPACES, Toy

T, N = 5, 24
COEFFICIENTS = {"clip": 0.2, "value_coef": 0.5, "entropy_coef": 0.01}


def batch():
    """A made-up batch of N agents; those of the first half are truncated more often."""
    generator = torch.Generator().manual_seed(0)
    cells = torch.randint(0, 7, (T, N, 9), generator=generator)
    obs = torch.cat([cells, torch.randint(0, 256, (T, N, 7), generator=generator)], -1).to(torch.uint8)
    actions = torch.randint(0, 3, (T, N, 2), generator=generator, dtype=torch.int32)
    old, advantage, returns = torch.randn(3, T, N, generator=generator)
    valid = torch.rand(T, N, generator=generator) > torch.linspace(0.6, 0, N)
    return obs, actions, old - 2, advantage, returns, valid


def gradient(agents, group):
    """The gradient of the loss of some agents' part of the batch, summed over the group, and the statistics."""
    torch.manual_seed(0)
    policy = make_policy("conv", 1, SPACES["discrete"], hidden=16)
    obs, actions, old, advantage, returns, valid = (x[:, agents] for x in batch())
    out, value, _ = policy(obs, torch.zeros(obs.shape[:2], dtype=torch.bool), ())
    logp, entropy = policy.head.evaluate(out, actions)
    loss, shares = ppo_loss(logp, entropy, value, old, advantage, returns, valid, **COEFFICIENTS, total=group.sum)
    loss.backward()
    group.sum_gradients(policy)
    whole = torch.cat([x.grad.flatten() for x in policy.parameters()])
    return whole, torch.stack([group.sum(x.clone()) for x in shares.values()])


def half(rank, store, queue):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    agents = torch.arange(N)[rank * N // 2 : (rank + 1) * N // 2]
    got = gradient(agents, Group(rank, 2))
    if rank == 0:
        queue.put([x.numpy() for x in got])
    dist.barrier()
    dist.destroy_process_group()


def test_two_processes_give_the_gradient_of_one_with_the_joined_batch(tmp_path):
    context = mp.get_context("spawn")
    queue = context.SimpleQueue()
    processes = [context.Process(target=half, args=(rank, tmp_path / "store", queue)) for rank in (0, 1)]
    for process in processes:
        process.start()
    got = [torch.from_numpy(x) for x in queue.get()]
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    expected = gradient(torch.arange(N), Group())
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_alone_nothing_is_summed(monkeypatch):
    x = torch.tensor([1.0, 2.0])
    assert Group().sum(x).tolist() == [1, 2]
    for name in ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert ranks() == (0, 1, 1)


@pytest.mark.parametrize("rank", [0, 1])
def test_ranks_are_what_torchrun_says(monkeypatch, rank):
    for name, value in (("RANK", rank), ("WORLD_SIZE", 2), ("LOCAL_WORLD_SIZE", 2)):
        monkeypatch.setenv(name, str(value))
    assert ranks() == (rank, 2, 2)


def test_a_minibatch_too_small_to_share_is_refused():
    config = TrainerConfig(horizon=8, minibatch=8, device="cpu")
    env = Toy(space=SPACES["discrete"])
    policy = make_policy("conv", 1, env.single_action_space, hidden=16)
    with pytest.raises(ValueError, match="minibatch=8 is too small to share among 2 processes: give 16 or more"):
        Trainer(env, policy, config, group=Group(0, 2))
