"""A run that shares its machine, or its learning, with other processes is considerate of them."""

from contextlib import nullcontext
from dataclasses import dataclass, replace

import numba
import pytest
import torch
import torch.distributed as dist

from particle_grid import train
from particle_grid.experiments import training
from particle_grid.learn.config import TrainerConfig
from particle_grid.learn.distributed import ProcessGroup
from particle_grid.learn.trainer import Trainer
from particle_grid.settings.run_config import RunConfig

TINY = ["task=center", "world.agents=32", "world.height=32", "world.width=40", "world.lifespan=20", "policy.hidden=16"]
TINY += ["trainer.rollout_length=8", "trainer.minibatch=256", "trainer.threads=1", "trainer.total_steps=1"]
TINY += ["evaluations=1", "clips=0", "logger=[]"]


@pytest.fixture
def restored_threads():
    """Restore the number of threads of torch and Numba after a test."""
    before = torch.get_num_threads(), numba.get_num_threads()
    yield
    torch.set_num_threads(before[0])
    numba.set_num_threads(before[1])


@pytest.mark.usefixtures("restored_threads")
def test_processes_on_one_machine_share_its_cores(monkeypatch):
    for name, value in (("WORLD_SIZE", 10000), ("LOCAL_WORLD_SIZE", 10000), ("RANK", 0)):  # more than there are cores
        monkeypatch.setenv(name, str(value))
    training.use_threads(TrainerConfig())
    assert (numba.get_num_threads(), torch.get_num_threads()) == (1, 1)
    most = numba.config.NUMBA_NUM_THREADS
    training.use_threads(TrainerConfig(threads=most))  # a number in the settings is that of each process
    assert (numba.get_num_threads(), torch.get_num_threads()) == (most, most)


@pytest.mark.parametrize("size", [1, 2])
def test_baselines_are_measured_when_no_process_waits_for_the_first(size, call, monkeypatch):
    monkeypatch.setattr(training, "joined", lambda cuda: nullcontext(ProcessGroup(0, size)))
    monkeypatch.setattr(dist, "all_reduce", lambda x: None)
    monkeypatch.setattr(dist, "broadcast_object_list", lambda texts: None)
    monkeypatch.setattr(ProcessGroup, "gather", lambda *rest: [])
    order = []
    for owner, name in ((training, "baseline_for"), (Trainer, "run")):
        real = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *args, name=name, real=real: order.append(name) or real(*args))
    code, out, _ = call(train.main, *TINY)
    assert code == 0
    assert "policy, sampled" in out
    assert order == (["baseline_for", "run"] if size == 1 else ["run", "baseline_for"])


@dataclass(frozen=True)
class Second(ProcessGroup):
    """The second of two processes, which gets a text from the first."""

    rank: int = 1
    size: int = 2
    text: str = ""

    def share(self, text):
        return self.text or text


@pytest.mark.parametrize(
    ("settings", "key", "value", "first"),
    [
        ({"trainer": TrainerConfig(learning_rate=0.5)}, "trainer.learning_rate", "0.5", "0.002"),
        ({"policy_options": {"hidden": 16}}, "policy.hidden", "16", "None"),
    ],
)
def test_a_process_with_other_settings_than_the_first_is_refused(monkeypatch, settings, key, value, first):
    config = RunConfig(task="center", action="discrete", policy="mlp")
    training.check_alike(config, Second())
    texts = []
    monkeypatch.setattr(ProcessGroup, "share", lambda group, text: texts.append(text) or text)
    training.check_alike(config, ProcessGroup())
    message = f"Process 1 has {key}={value}, and the first one has {key}={first}: start all processes with the same"
    with pytest.raises(ValueError, match=message):
        training.check_alike(replace(config, **settings), Second(text=texts[0]))
