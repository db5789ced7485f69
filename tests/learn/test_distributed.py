"""Two processes that learn together compute what one process would with the agents of both."""

import random
import socket
from dataclasses import replace
from typing import ClassVar

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from particle_grid.learn import checkpoint
from particle_grid.learn.config import TrainerConfig
from particle_grid.learn.distributed import ProcessGroup, joined
from particle_grid.learn.policy import make_policy
from particle_grid.learn.ppo import ppo_loss
from particle_grid.learn.trainer import Trainer
from tests.learn.toy import SPACES, Toy
from tests.learn.training import Record

T = 5
N = 24
COEFFICIENTS = {"clip": 0.2, "value_coef": 0.5, "entropy_coef": 0.01}


def batch():
    """Return a random batch of N agents. The first half is truncated more often."""
    generator = torch.Generator().manual_seed(0)
    cells = torch.randint(0, 7, (T, N, 9), generator=generator)
    obs = torch.cat([cells, torch.randint(0, 256, (T, N, 7), generator=generator)], -1).to(torch.uint8)
    actions = torch.randint(0, 3, (T, N, 2), generator=generator, dtype=torch.int32)
    old, advantage, returns = torch.randn(3, T, N, generator=generator)
    valid = torch.rand(T, N, generator=generator) > torch.linspace(0.6, 0, N)
    return obs, actions, old - 2, advantage, returns, valid


def gradient(agents, group):
    """Return the gradient and statistics of the loss on some agents of the batch, summed over the group."""
    torch.manual_seed(0)
    policy = make_policy("conv", 1, SPACES["discrete"], hidden=16)
    share = [x[:, agents] for x in batch()]
    obs, actions, old, advantage, returns, valid = share
    out, value, _ = policy(obs, torch.zeros(obs.shape[:2], dtype=torch.bool), ())
    logp, entropy = policy.head.log_prob_and_entropy(out, actions)
    loss, shares = ppo_loss(logp, entropy, value, old, advantage, returns, valid, **COEFFICIENTS, total=group.sum)
    loss.backward()
    whole = group.sum(torch.cat([x.grad.flatten() for x in policy.parameters()]))
    return whole, torch.stack([group.sum(x.clone()) for x in shares.values()])


def gradient_of_a_share(group):
    """Return the same for the agents of one of two processes, as arrays."""
    share = torch.arange(N).tensor_split(group.size)[group.rank]
    return [x.numpy() for x in gradient(share, group)]


def updated(group):
    """Return the weights after an update in which the processes of a group share the rollout of N agents."""
    torch.manual_seed(0)
    share = torch.arange(N).tensor_split(group.size)[group.rank]
    envs = [Toy(n, SPACES["discrete"], ends=0.1, reward=lambda obs, _: obs[:, 0] / 7) for n in (N, len(share))]
    policy = make_policy("conv_lstm", 1, SPACES["discrete"], hidden=16)
    config = TrainerConfig(
        rollout_length=T, minibatch=N * T, epochs=4, learning_rate=1e-2, device="cpu", threads=1, fast="fp32"
    )
    whole = Trainer(envs[0], policy, config)
    whole.rollout()
    run = Trainer(envs[1], policy, config, group=group)
    for name, x in vars(run.buffer).items():
        if name == "state":
            run.buffer.state = tuple(y[share] for y in whole.buffer.state)
        else:
            x.copy_(getattr(whole.buffer, name)[:, share])
    run.update()
    return {name: x.clone() for name, x in policy.state_dict().items()}


def together(target, tmp_path, *arguments):
    """Call a function in two processes, and return the result of the first."""
    context = mp.get_context("spawn")
    queue = context.SimpleQueue()
    store = tmp_path / f"store{len(list(tmp_path.iterdir()))}"
    processes = [context.Process(target=joining, args=(target, rank, store, queue, *arguments)) for rank in (0, 1)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0]
    return queue.get()


def joining(target, rank, store, queue, *arguments):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    result = target(ProcessGroup(rank, 2), *arguments)
    if rank == 0:
        queue.put(result)
    dist.barrier()
    dist.destroy_process_group()


def test_two_processes_give_the_gradient_of_one_with_the_joined_batch(tmp_path):
    got = together(gradient_of_a_share, tmp_path)
    expected = gradient(torch.arange(N), ProcessGroup())
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(torch.from_numpy(a), b, rtol=1e-5, atol=1e-6)


def trained(group, path, cut, resume):
    """Train to the end, or until a logger interrupts the first process after `cut` steps."""
    torch.manual_seed(0)
    env = Toy(8, SPACES["discrete"], ends=0.1)
    policy = make_policy("conv_lstm", 1, env.single_action_space, hidden=16)
    config = TrainerConfig(
        total_steps=128 * 6, rollout_length=8, minibatch=32, learning_rate=1e-2, device="cpu", threads=1, seed=0
    )
    run = Trainer(env, policy, config, path=path if group.rank == 0 else None, group=group)
    if resume:
        run.load_state_dict(checkpoint.load(path))
    run.loggers = [Record(lambda step: setattr(run, "interrupted", step == cut and group.rank == 0))]
    return run.run().steps


@pytest.mark.slow
def test_interrupted_and_resumed_processes_end_like_uninterrupted_ones(tmp_path):
    cut = 128 * random.randrange(1, 6)
    whole = tmp_path / "whole.pt"
    parts = tmp_path / "parts.pt"
    assert together(trained, tmp_path, whole, 0, False) == 128 * 6
    assert together(trained, tmp_path, parts, cut, False) == cut
    assert together(trained, tmp_path, parts, 0, True) == 128 * 6
    assert whole.read_bytes() == parts.read_bytes(), f"cut at {cut}"
    with pytest.raises(ValueError, match="checkpoint has processes=2 and this run has processes=1"):
        trained(ProcessGroup(), whole, 0, True)


def test_a_checkpoint_of_one_process_is_refused_by_several(tmp_path):
    path = tmp_path / "c.pt"
    trained(ProcessGroup(), path, 0, False)
    with pytest.raises(ValueError, match="checkpoint has processes=1 and this run has processes=2"):
        trained(ProcessGroup(1, 2), path, 0, True)


def test_a_single_process_sums_nothing():
    x = torch.tensor([1.0, 2.0])
    assert ProcessGroup().sum(x).tolist() == [1, 2]


EXCHANGES = {
    "all_reduce": lambda group: group.sum(torch.zeros(1)),
    "broadcast_object_list": lambda group: group.share(""),
    "send": lambda group: group.gather({}, torch.device("cpu")),
    "recv": lambda group: replace(group, rank=0).gather({}, torch.device("cpu")),
}


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_a_process_says_that_another_one_has_ended(monkeypatch, exchange):
    def closed(*_):
        raise RuntimeError("[/pytorch/pair.cc:537] Read error [10.0.0.1]:554: Connection reset by peer. Check logs.")

    for name in EXCHANGES:
        monkeypatch.setattr(dist, name, closed if name == exchange else lambda *_: None)
    reason = r"ended or cannot be reached \(Read error \[10.0.0.1\]:554: Connection reset by peer\): see what it"
    with pytest.raises(ValueError, match=reason):
        EXCHANGES[exchange](ProcessGroup(1, 2))


def test_a_process_without_the_variables_of_torchrun_says_so(monkeypatch):
    for name in ("RANK", "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("MASTER_PORT", "29500")
    with (
        pytest.raises(ValueError, match="WORLD_SIZE=2 is set without RANK, MASTER_ADDR: start the processes with"),
        joined(cuda=False),
    ):
        pass


def test_a_task_of_srun_whose_port_is_in_use_says_so(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with socket.socket() as server:
        server.bind(("", 0))
        server.listen()
        port = server.getsockname()[1]
        srun = {"SLURM_PROCID": 0, "SLURM_NTASKS": 2, "MASTER_ADDR": "localhost", "MASTER_PORT": port}
        for name, value in srun.items():
            monkeypatch.setenv(name, str(value))
        with pytest.raises(ValueError, match=rf"Port {port} cannot be used on this machine \(.*\): set MASTER_"):
            joined(cuda=False).__enter__()


@pytest.mark.parametrize("rank", [0, 1])
def test_a_task_of_srun_whose_first_host_is_unknown_says_so_at_once(rank, monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    for name, value in {"SLURM_PROCID": rank, "SLURM_NTASKS": 2, "MASTER_ADDR": "no.such.host.invalid"}.items():
        monkeypatch.setenv(name, str(value))
    with pytest.raises(ValueError, match=r"is on no\.such\.host\.invalid according to MASTER_ADDR"):
        joined(cuda=False).__enter__()


class Doubled(ProcessGroup):
    """One of two processes, the other of which always has the same numbers. Records the sizes of what they exchange."""

    sizes: ClassVar[list[int]] = []

    def sum(self, x):
        self.sizes.append(x.numel())
        return x.mul_(2)


@pytest.mark.parametrize("fast", ["off", "fp32"])
@pytest.mark.parametrize(("own", "steps"), [(False, 4), (True, 2)], ids=["shared", "per process"])
def test_processes_exchange_moments_and_gradients_once_per_minibatch_and_statistics_once(fast, own, steps):
    torch.manual_seed(0)
    env = Toy(8, SPACES["discrete"])
    policy = make_policy("conv_lstm", 1, env.single_action_space, hidden=16)
    config = TrainerConfig(
        rollout_length=8, minibatch=32, minibatch_per_process=own, device="cpu", threads=1, fast=fast
    )
    run = Trainer(env, policy, config, group=Doubled(0, 2))
    run.rollout()
    Doubled.sizes.clear()
    statistics = run.update()
    gradient = run.updater.optimiser.gradient.numel()
    assert Doubled.sizes == [4, gradient] * steps + [len(statistics) - 1]  # the learning rate needs no exchange


def test_a_process_on_a_gpu_joins_the_group_with_the_gpu_of_its_local_rank(monkeypatch):
    torchrun = {"RANK": 5, "LOCAL_RANK": 1, "WORLD_SIZE": 8, "MASTER_ADDR": "localhost", "MASTER_PORT": 29500}
    for name, value in torchrun.items():
        monkeypatch.setenv(name, str(value))
    calls = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: calls.append(device))
    monkeypatch.setattr(dist, "init_process_group", lambda backend, device_id: calls.append((backend, device_id)))
    monkeypatch.setattr(dist, "destroy_process_group", lambda: None)
    with joined(cuda=True) as group:
        assert group == ProcessGroup(5, 8)
    gpu = torch.device("cuda", 1)
    assert calls == [gpu, ("nccl", gpu)]


def test_a_minibatch_too_small_to_share_is_refused():
    config = TrainerConfig(rollout_length=8, minibatch=8, device="cpu")
    env = Toy(space=SPACES["discrete"])
    policy = make_policy("conv", 1, env.single_action_space, hidden=16)
    with pytest.raises(ValueError, match="minibatch=8 is too small to share among 2 processes: give 16 or more"):
        Trainer(env, policy, config, group=ProcessGroup(0, 2))
    Trainer(env, policy, replace(config, minibatch_per_process=True), group=ProcessGroup(0, 2))
