"""An exported ONNX model does what the policy does, in every task, action form, head and kind of policy."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from particle_grid.api import make_config
from particle_grid.env import ACTIONS
from particle_grid.exports import contract, onnx
from particle_grid.exports.exporter import export
from particle_grid.learn.heads import HEADS
from particle_grid.learn.policy import POLICIES, Policy, make_policy
from particle_grid.runs.build import build_policy
from particle_grid.runs.load import Checkpoint, load_shipped
from particle_grid.runs.results import Results
from particle_grid.sim.observation import FEATURES, decode
from particle_grid.sim.world import World
from particle_grid.support.errors import UserError
from tests.cases import CASES
from tests.exports.stepwise import assert_as_described, assert_same_steps, session_of
from tests.learn.toy import SPACES


def lively(kind, form, **options):
    """Return a small policy with weights that matter."""
    policy = make_policy(kind, 2, SPACES[form], hidden=16, **options)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return policy


def test_a_model_its_contract_and_its_card_describe_the_policy_that_was_exported(tmp_path, monkeypatch):
    config = make_config("task=center", "action=continuous", "policy=mlp", "policy.hidden=8", "policy.head=beta")
    policy = build_policy(config)
    saved = Checkpoint(config, 123, policy.state_dict())
    files = export(saved, policy, [tmp_path / "own.onnx"], Results())
    assert [path.name for path in files] == ["own.onnx", "own.md"]
    content = files[0].read_bytes()
    session, described = session_of(content)
    assert_same_steps(session, policy)
    assert_as_described(session, described)
    assert (described["config"], described["steps"]) == (config.to_dict(), 123)
    assert "scores" not in described
    assert str(Path(onnx.__file__).parents[2]).encode() not in content  # nothing of this machine
    card = files[1].read_text("utf-8")
    assert "licen" not in card.lower()  # that of this policy is unknown
    assert "score" not in card
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(re.search(r"```python\n(.*?)```", card, re.DOTALL)[1], names)
    assert names["action"].shape == (64, 2)


def test_the_features_of_the_contract_are_those_of_an_observation_in_their_order():
    assert len(contract.FEATURES) == FEATURES
    world = World(agents=1, vision=1, height=32, width=64)
    words = ("row in the field", "column in the field", "row within", "column within", "rows moved", "columns moved")
    base = np.full((1, 9 + FEATURES), 100, np.uint8)
    for k, text in enumerate(contract.FEATURES):
        changed = base.copy()
        changed[0, 9 + k] += 1
        one, other = decode(base, world), decode(changed, world)
        pairs = {"position": 0, "offset": 2, "displacement": 4, "reward": 6}
        for name, first in pairs.items():
            difference = np.atleast_1d((getattr(other, name) - getattr(one, name))[0])
            expected = np.arange(first, first + len(difference)) == k
            assert ((difference > 0) == expected).all()
        assert text.startswith((*words, "reward")[k])


@pytest.mark.slow
@pytest.mark.parametrize(("task", "action"), CASES)
def test_every_shipped_policy_takes_the_same_steps_as_a_model(task, action, tmp_path):
    saved = load_shipped(task, action)
    policy = build_policy(saved.config, saved.weights)
    file = export(saved, policy, [tmp_path / "model.onnx"], Results())[0]
    session, described = session_of(file.read_bytes())
    assert_same_steps(session, policy)
    assert_as_described(session, described)
    assert described["scores"] == {"sampled": {"mean_normalised_score": saved.score}}


@pytest.mark.slow
@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("kind", POLICIES)
def test_every_kind_of_policy_takes_the_same_steps_as_a_model(kind, action):
    policy = lively(kind, action)
    assert_same_steps(session_of(onnx.encode(policy, {}))[0], policy)


@pytest.mark.slow
@pytest.mark.parametrize("head", HEADS)
def test_every_head_gives_the_same_actions_as_a_model(head):
    policy = lively("mlp", "continuous", head=head)
    assert type(policy.head) in contract.SAMPLING
    assert_same_steps(session_of(onnx.encode(policy, {}))[0], policy)


NORMAL = [
    ("gaussian",),
    ("squashed",),
    ("snapped",),
    ("snapped", "policy.move_entropy=true"),
    ("capg", "policy.shared_std=true", "policy.log_std_init=-1.5"),  # hardly any sample is clipped
]


@pytest.mark.parametrize("head", NORMAL, ids=" ".join)
def test_the_contract_of_a_normal_head_holds_its_standard_deviation(head):
    name, *options = head
    settings = ("task=center", "action=continuous", "policy=mlp", "policy.hidden=8", f"policy.head={name}", *options)
    config = make_config(*settings)
    policy = build_policy(config)
    described = contract.describe(Checkpoint(config, 0, {}), policy, Results())["head_outputs"]
    generator = torch.Generator().manual_seed(0)
    samples = policy.head.sample(torch.zeros(100_000, 2), generator)[0]
    np.testing.assert_allclose(described["std"], samples.detach().std(0), rtol=0.02)


@pytest.mark.parametrize("head", ["probit", "capg"])
def test_the_contract_of_a_head_with_its_own_deviations_tells_how_to_compute_them(head):
    policy = lively("mlp", "continuous", head=head)
    config = make_config("task=center", "action=continuous", "policy=mlp", f"policy.head={head}")
    numbers = contract.describe(Checkpoint(config, 0, {}), policy, Results())["head_outputs"]["log_std"]
    out = torch.tensor([[0.0, 0.0, -0.7, 0.2]])
    raw = out[0, 2:]
    std = torch.exp(numbers["middle"] + numbers["reach"] * torch.tanh(raw + numbers["start"]))
    samples = policy.head.sample(out.expand(100_000, -1), torch.Generator().manual_seed(0))[0].detach()
    inside = policy.head.to_action(samples).abs() < (0.5 if head == "probit" else 1)
    expected = torch.special.erf((0.5 if head == "probit" else 1) / std / 2**0.5)
    torch.testing.assert_close(inside.float().mean(0), expected, rtol=0, atol=0.01)


class Contrary(Policy):
    """A policy that looks at its inputs to decide what to compute."""

    def forward(self, obs, starts, state):
        x = torch.zeros(*starts.shape, self.hidden)
        return *self.decide(x + 1 if starts.any() else x), state


@pytest.mark.slow
def test_a_policy_that_onnx_cannot_express_is_refused_with_another_choice():
    policy = Contrary(2, lively("mlp", "discrete").head, 8)
    with pytest.raises(UserError, match=r"Contrary cannot be exported to ONNX \(.+\): use format=safetensors\."):
        onnx.encode(policy, {})
