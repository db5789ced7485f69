"""Compare an exported model with the policy that it was made from."""

import json

import numpy as np
import onnxruntime
import torch

from tests.learn.networks import inputs

TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}  # of float32 sums in another order; docs/export.md states it


def session_of(content):
    """Return a session that runs a model, and the contract in its metadata."""
    session = onnxruntime.InferenceSession(content)
    return session, json.loads(session.get_modelmeta().custom_metadata_map["particle_grid"])


@torch.no_grad()
def assert_same_steps(session, policy, steps=4):
    """Assert that model and policy agree for several numbers of agents, over steps with resets."""
    for n in (1, 2, 33):
        obs, starts, state = inputs(policy, steps, n)
        fed = {f"state_{k}": x.numpy() for k, x in enumerate(state)}
        for t in range(steps):
            out, value, state = policy(obs[t : t + 1], starts[t : t + 1], state)
            fed |= {"observations": obs[t].numpy(), "starts": starts[t].numpy()}
            action, *others = session.run(None, fed)
            for got, expected in zip(others, (out[0], value[0], *state), strict=True):
                np.testing.assert_allclose(got, expected.numpy(), **TOLERANCE)
            mode = policy.head.to_action(
                policy.head.mode(torch.from_numpy(others[0]))
            )  # without ties that rounding breaks
            assert action.dtype == mode.numpy().dtype
            np.testing.assert_allclose(action, mode.numpy(), **TOLERANCE)
            fed = {f"state_{k}": x for k, x in enumerate(others[2:])}


def assert_as_described(session, contract):
    """Assert that a model has exactly the inputs and outputs that its contract describes."""
    kinds = {"tensor(uint8)": "uint8", "tensor(bool)": "bool", "tensor(float)": "float32", "tensor(int32)": "int32"}
    found = {x.name: (kinds[x.type], x.shape) for x in (*session.get_inputs(), *session.get_outputs())}
    described = {key: contract[key] for key in ("observations", "starts", "action", "head_outputs", "value")}
    for each in contract["state"]:
        described |= {each["input"]: each, each["output"]: each}
    assert found == {name: (each["dtype"], each["shape"]) for name, each in described.items()}
