"""Steps that can be captured as CUDA graphs compute what the plain rollout and update compute.

On a CPU they are called instead of replayed. tests/learn/test_gpu.py compares what was captured.
"""

from contextlib import contextmanager, nullcontext
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from particle_grid.learn import checkpoint
from particle_grid.learn.collect import EnvSplit, RolloutBuffer
from particle_grid.learn.distributed import ProcessGroup
from particle_grid.learn.gpu.graphs import WARM_UP, Graph, GraphCollector, GraphUpdater, use_graphs
from particle_grid.learn.heads import HEADS
from particle_grid.learn.policy import POLICIES, Policy, make_policy
from particle_grid.learn.update import Updater
from particle_grid.support.errors import UserError
from tests.learn.test_update import Fixed
from tests.learn.toy import SPACES, Toy
from tests.learn.training import SMALL, Record, make, stir, weights

PLAIN = replace(SMALL, fast="off", graphs="off")
STEPS = replace(SMALL, graphs="on")
BUFFERS = ("obs", "starts", "actions", "logp", "values", "rewards", "terminals", "truncations")
CPU = torch.device("cpu")


def train(config, name, form, iterations=3, **options):
    """Return a trainer after some iterations, and its scalars."""
    record = Record()
    run = make(name, form, config, loggers=[record], **options)
    stir(run)
    for _ in range(iterations):
        run._iterate()
    return run, record.scalars


def check_same(plain, steps, **tolerances):
    """Check that two trainers hold the same rollout and weights, to the bit by default."""
    exact = {"rtol": 0, "atol": 0} | tolerances
    for name in BUFFERS:
        torch.testing.assert_close(getattr(steps.buffer, name), getattr(plain.buffer, name), **exact)
    torch.testing.assert_close(steps.collector.state, plain.collector.state, **exact)
    torch.testing.assert_close(weights(steps), weights(plain), **exact)


@pytest.mark.parametrize("optimiser", ["adam", "muon"])
@pytest.mark.parametrize("form", SPACES)
@pytest.mark.parametrize("name", POLICIES)
def test_captured_steps_compute_the_plain_rollout_and_update_to_the_bit(name, form, optimiser, monkeypatch):
    monkeypatch.setattr("particle_grid.learn.optimiser.FusedAdam.applies", lambda parameters: False)
    plain, expected = train(replace(PLAIN, optimiser=optimiser), name, form)
    steps, scalars = train(replace(STEPS, optimiser=optimiser), name, form)
    assert (type(steps.collector), type(steps.updater)) == (GraphCollector, GraphUpdater)
    check_same(plain, steps)
    for ours, theirs in zip(scalars, expected, strict=True):  # means are summed in another order
        assert ours.keys() == theirs.keys()
        for tag in ours:
            assert ours[tag] == pytest.approx(theirs[tag], rel=1e-5, abs=1e-6) or tag.startswith("perf/"), tag


def test_with_two_splits_they_differ_by_the_rounding_of_a_bootstrap_in_two_parts():
    plain, _ = train(PLAIN, "conv_lstm", "continuous", iterations=1, splits=2)
    steps, _ = train(STEPS, "conv_lstm", "continuous", iterations=1, splits=2)
    check_same(plain, steps, rtol=1e-5, atol=1e-5)


def test_uneven_minibatches_are_not_padded():
    """Eight agents in minibatches of 3, 3 and 2."""
    uneven = {"minibatch": 24, "epochs": 2}
    plain, _ = train(replace(PLAIN, **uneven), "conv", "discrete")
    steps, _ = train(replace(STEPS, **uneven), "conv", "discrete")
    check_same(plain, steps)
    assert sorted(steps.updater.steps) == [2, 3]


def test_opponents_play_as_in_a_plain_rollout():
    theirs = [True, False, False, True, False, False, False, False]
    options = {"opponents": lambda env: Fixed(theirs, [2, 0])}
    plain, _ = train(PLAIN, "conv_lstm", "discrete", **options)
    steps, _ = train(STEPS, "conv_lstm", "discrete", **options)
    check_same(plain, steps)


def test_a_run_resumes_bit_for_bit_also_from_a_plain_one(tmp_path):
    for before, after in ((STEPS, STEPS), (PLAIN, STEPS), (STEPS, PLAIN)):
        whole = make(config=before)
        whole.run()
        cut = make(config=before, path=tmp_path / "c.pt")
        cut.loggers = [Record(lambda step, run=cut: setattr(run, "interrupted", step == 128))]
        assert cut.run().steps == 128
        rest = make(config=after, seed=1)
        rest.load_state_dict(checkpoint.load(tmp_path / "c.pt"))
        rest.run()
        assert torch.equal(weights(rest), weights(whole))


class Watched(TorchDispatchMode):
    """Collects the names of all operations."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.add(function.overloadpacket.__name__)
        return function(*args, **(kwargs or {}))


@pytest.fixture
def no_values(monkeypatch):
    """Return the device `meta`, whose tensors have no values: it refuses what depends on one, and other devices."""
    monkeypatch.setattr(torch, "_fused_adam_", lambda *args, **kwargs: None)  # the only operation that meta lacks
    monkeypatch.setattr(Policy, "decide", lambda self, x: (self.actor(x), self.critic(x).squeeze(-1)))  # and autocast
    monkeypatch.setattr(torch.Tensor, "nonzero", lambda x: torch.arange(len(x), device=x.device)[:, None])
    return torch.device("meta")


@pytest.mark.parametrize(("form", "head"), [("discrete", "auto"), *(("continuous", head) for head in HEADS)])
@pytest.mark.parametrize("name", POLICIES)
def test_no_captured_step_waits_for_the_host_or_mixes_devices(name, form, head, no_values):
    policy = make_policy(name, 1, SPACES[form], hidden=16, head=head).to(no_values)
    buffer = RolloutBuffer(8, 8, policy.observation_size, policy.head, no_values)
    generator = torch.Generator()
    env = Toy(8, SPACES[form])
    split = EnvSplit(env, None, 0, None)
    collector = GraphCollector([split], policy, policy, policy.head.sample, buffer, generator, lambda: None)
    learning = torch.ones(8, dtype=torch.bool, device=no_values)
    updater = GraphUpdater(
        policy,
        policy,
        None,
        buffer,
        learning,
        learning,
        replace(STEPS, second_team_weight=2.0),
        generator,
        ProcessGroup(),
    )
    updater.optimiser.learning_rate = updater.rate
    steps = collector.of_split[split]
    with Watched() as watched:
        with torch.no_grad():
            steps._act_once()
            steps._record_once()
        updater._prepare()
        updater._step(torch.arange(3, device=no_values))
    assert "index_copy_" in watched.names
    assert "lift_fresh" not in watched.names  # torch.tensor(...), which copies from the host
    assert {x.device for x in updater.sums.values()} == {no_values}


class Driver:
    """Stands for a GPU: a stream, a generator and graphs that replay by calling what was captured."""

    def __init__(self, monkeypatch, failure=None):
        self.done = []
        self.failure = failure
        stream = SimpleNamespace(wait_stream=lambda other: None)
        graph = lambda: SimpleNamespace(register_generator_state=self.use("register"), replay=self.use("replay"))  # noqa: E731
        fakes = {"Stream": lambda: stream, "current_stream": lambda: stream, "stream": lambda x: nullcontext()}
        for name, fake in (fakes | {"CUDAGraph": graph, "graph": self.capture}).items():
            monkeypatch.setattr(torch.cuda, name, fake)
        self.device = torch.device("cuda")

    def use(self, name):
        return lambda *args: self.done.append(name)

    def clone_state(self):
        return "before"

    def graphsafe_set_state(self, state):
        self.done.append(f"state {state}")

    @contextmanager
    def capture(self, graph, stream):
        self.done.append("capture")
        yield
        if self.failure:
            raise RuntimeError(self.failure)


def test_a_step_is_called_until_it_is_warm_then_captured_once_and_replayed(monkeypatch):
    driver = Driver(monkeypatch)
    step = Graph(driver.use("call"), driver)
    for _ in range(WARM_UP + 2):
        step()
    assert driver.done == ["call"] * WARM_UP + ["register", "capture", "call", "replay", "replay"]


def test_a_step_that_cannot_be_captured_is_called_each_time_and_says_so_once(monkeypatch):
    driver = Driver(monkeypatch, "operation not permitted when stream is capturing\nmore")
    step = Graph(driver.use("call"), driver)
    message = r"operation not permitted when stream is capturing\). To avoid the attempt, set trainer.graphs=off"
    with pytest.warns(RuntimeWarning, match=message) as caught:
        [step() for _ in range(WARM_UP + 3)]
    assert len(caught) == 1
    assert driver.done == ["call"] * WARM_UP + ["register", "capture", "call", "state before", *["call"] * 3]


@pytest.mark.parametrize(
    ("mode", "fast", "device", "size", "expected"),
    [
        ("auto", "auto", "cuda", 1, True),
        ("auto", "bf16", "cuda:1", 1, True),
        ("auto", "off", "cuda", 1, False),
        ("auto", "auto", "cuda", 2, False),
        ("auto", "auto", "cpu", 1, False),
        ("off", "auto", "cuda", 1, False),
        ("on", "off", "cuda", 1, True),
        ("on", "auto", "cpu", 1, True),
    ],
)
def test_steps_are_captured_on_a_gpu_unless_settings_or_processes_forbid_it(mode, fast, device, size, expected):
    config = replace(SMALL, graphs=mode, fast=fast)
    assert use_graphs(config, torch.device(device), ProcessGroup(0, size)) == expected


def test_several_processes_that_are_told_to_capture_are_refused():
    with pytest.raises(UserError, match="graphs=on does not apply to 2 processes: use auto or off"):
        use_graphs(STEPS, CPU, ProcessGroup(0, 2))


def test_the_default_on_a_cpu_is_the_plain_rollout_and_update():
    run = make()
    assert type(run.collector).__name__ == "Collector"
    assert type(run.updater) is Updater
