"""Policies: what an agent sees, and remembers, to action outputs and a value.

All share one interface. `policy(obs, starts, state) -> (out, value, state)` takes T steps of N agents:
obs u8[T, N, row], starts bool[T, N] (obs[t] is the first of an episode: memory is zeroed before step t), and the state
of `policy.initial_state(N)`, a tuple of f32[N, hidden] or () without memory. It returns out f32[T, N, K] for
`policy.head`, value f32[T, N], and the state behind the last step.

A row of observations is (2 * vision + 1)**2 cell codes, row by row, then 7 features, all uint8.
"""

import inspect
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from gymnasium.spaces import Space
from torch import Tensor, nn

from particle_grid.learn.heads import Head, check_number, make_head
from particle_grid.support import registry

CELLS, FEATURES = 7, 7  # cell codes; uint8 features behind the window
MOST_UNITS = 16384  # a mistake rather than a wish beyond: an LSTM of so many cells has a thousand million weights
MOST_VISION = 64  # cells that an agent of any environment sees on each side
CHANNELS = 32
State = tuple[Tensor, ...]


def orthogonal(layer: nn.Module, gain: float = 1.0) -> None:
    """Orthogonal weights (Saxe et al. 2014), biases 0. torch's default leaves the signal too small to learn from."""
    for name, parameter in layer.named_parameters():
        if "bias" in name:
            nn.init.zeros_(parameter)
        else:
            nn.init.orthogonal_(parameter, gain)


def check_array(name: str, array: np.ndarray, dtype: type[np.generic], shape: tuple[int, ...]) -> None:
    """Raises ValueError for an array that is none of this kind and shape: compiled code would read beyond its end."""
    if not isinstance(array, np.ndarray) or array.dtype != dtype or array.shape != shape:
        kind = f"{array.dtype} {list(array.shape)}" if isinstance(array, np.ndarray) else type(array).__name__
        raise ValueError(
            f"{name} are {kind}, but the policy and its number of agents need {np.dtype(dtype)} {list(shape)}: make "
            f"the policy with the environment's vision, and give arrays of the environment."
        )


class Policy(nn.Module):
    """What every policy has: a head, and linear actor and critic on `hidden` numbers."""

    def __init__(self, vision: int, head: Head, hidden: int) -> None:
        super().__init__()
        self.side, self.hidden, self.head = 2 * vision + 1, hidden, head
        self.row = self.side**2 + FEATURES  # bytes of an observation
        self.actor, self.critic = nn.Linear(hidden, head.outputs), nn.Linear(hidden, 1)
        orthogonal(self.actor, 0.01)  # nearly uniform, or centred, actions at first
        orthogonal(self.critic)
        # as an embedding: twice as fast as F.one_hot, which goes through int64, and a code above 6 is an error
        self.register_buffer("codes", torch.eye(CELLS), persistent=False)

    def initial_state(self, n: int) -> State:
        """The memory of n agents at the start."""
        return ()

    def one_hot(self, obs: Tensor) -> Tensor:
        """u8[B, row] -> the window's cells f32[B, side * side, 7]."""
        return F.embedding(obs[:, : self.side**2].int(), self.get_buffer("codes"))

    def features(self, obs: Tensor) -> Tensor:
        """u8[B, row] -> the features behind the window, f32[B, 7] in [0, 1]."""
        return obs[:, self.side**2 :] / 255

    def decide(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """f32[..., hidden] -> outputs f32[..., K] and value f32[...]."""
        return self.actor(x), self.critic(x).squeeze(-1)


class ConvEncoder(nn.Module):
    """One-hot window f32[B, side * side, 7] -> f32[B, 32]: 5 x 5 patches at stride 3, then all patches at once."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side
        padding = 2 * (5 - side) % 3  # none at vision 5; else just what lets the patches reach every cell, both ways
        patches = (side + 2 * padding - 5) // 3 + 1
        self.conv1 = nn.Conv2d(CELLS, CHANNELS, 5, stride=3, padding=padding)
        self.conv2 = nn.Conv2d(CHANNELS, CHANNELS, patches)
        orthogonal(self.conv1, 2**0.5)
        orthogonal(self.conv2)

    def forward(self, cells: Tensor) -> Tensor:
        image = cells.unflatten(1, (self.side, self.side)).permute(0, 3, 1, 2)  # [B, 7, side, side], channels last
        return self.conv2(F.relu(self.conv1(image))).flatten(1)  # [B, 32, 1, 1] -> [B, 32]


class ConvLSTM(Policy):
    """Convolutions, a linear layer and an LSTM (Hochreiter and Schmidhuber 1997). The default.

    Between the second convolution and the gates everything is linear, so that it composes into one product.
    The bias of the forget gate starts at 0 as all biases do, which is what the learning rates were tried with. A bias
    of 1 (Gers et al. 2000) would remember for longer at first; the gate can learn to.
    """

    def __init__(self, vision: int, head: Head, hidden: int) -> None:
        super().__init__(vision, head, hidden)
        self.encoder = ConvEncoder(self.side)
        self.linear = nn.Linear(CHANNELS + FEATURES, hidden)
        self.lstm = nn.LSTMCell(hidden, hidden)
        orthogonal(self.linear)
        for weight in (self.lstm.weight_ih, self.lstm.weight_hh):
            for gate in weight.chunk(4):
                nn.init.orthogonal_(gate.data)
        nn.init.zeros_(self.lstm.bias_ih)
        nn.init.zeros_(self.lstm.bias_hh)

    def initial_state(self, n: int) -> State:
        """h and c, f32[n, hidden], zeros."""
        zeros = self.lstm.weight_hh.new_zeros(n, self.hidden)
        return zeros, zeros.clone()

    def forward(self, obs: Tensor, starts: Tensor, state: State) -> tuple[Tensor, Tensor, State]:
        flat = obs.flatten(0, 1)  # [T * N, row]
        x = torch.cat([self.encoder(self.one_hot(flat)), self.features(flat)], 1)
        into = self.lstm.weight_ih @ self.linear.weight
        bias = self.lstm.weight_ih @ self.linear.bias + self.lstm.bias_ih + self.lstm.bias_hh
        gates = F.linear(x, into, bias).unflatten(0, starts.shape)  # [T * N, 4 hidden] -> [T, N, 4 hidden]
        hidden, state = self.recur(gates, starts, state)
        return *self.decide(hidden), state

    def recur(self, gates: Tensor, starts: Tensor, state: State) -> tuple[Tensor, State]:
        """gates f32[T, N, 4 hidden]: the input's part of them, for all steps -> h f32[T, N, hidden] and the state."""
        (h, c), recurrent, steps = state, self.lstm.weight_hh.t(), []
        keep = (~starts).to(gates.dtype).unsqueeze(-1)  # [T, N, 1]
        for gates_t, keep_t in zip(gates.unbind(), keep.unbind(), strict=True):
            h, c = h * keep_t, c * keep_t
            i, f, g, o = torch.addmm(gates_t, h, recurrent).chunk(4, 1)
            c = torch.addcmul(f.sigmoid() * c, i.sigmoid(), g.tanh())
            h = o.sigmoid() * c.tanh()
            steps.append(h)
        return torch.stack(steps), (h, c)


class Conv(Policy):
    """The same convolutions, without memory."""

    def __init__(self, vision: int, head: Head, hidden: int) -> None:
        super().__init__(vision, head, hidden)
        self.encoder = ConvEncoder(self.side)
        self.linear = nn.Linear(CHANNELS + FEATURES, hidden)
        orthogonal(self.linear, 2**0.5)

    def forward(self, obs: Tensor, starts: Tensor, state: State) -> tuple[Tensor, Tensor, State]:
        flat = obs.flatten(0, 1)  # [T * N, row]
        x = torch.cat([F.relu(self.encoder(self.one_hot(flat))), self.features(flat)], 1)
        hidden = F.relu(self.linear(x)).unflatten(0, starts.shape)  # [T * N, hidden] -> [T, N, hidden]
        return *self.decide(hidden), state


class MLP(Policy):
    """Two layers on the one-hot window and the features, without memory."""

    def __init__(self, vision: int, head: Head, hidden: int) -> None:
        super().__init__(vision, head, hidden)
        self.linear1 = nn.Linear(self.side**2 * CELLS + FEATURES, hidden)
        self.linear2 = nn.Linear(hidden, hidden)
        orthogonal(self.linear1, 2**0.5)
        orthogonal(self.linear2, 2**0.5)

    def forward(self, obs: Tensor, starts: Tensor, state: State) -> tuple[Tensor, Tensor, State]:
        flat = obs.flatten(0, 1)  # [T * N, row]
        x = torch.cat([self.one_hot(flat).flatten(1), self.features(flat)], 1)  # [T * N, side * side * 7 + 7]
        hidden = F.relu(self.linear2(F.relu(self.linear1(x)))).unflatten(0, starts.shape)  # [T, N, hidden]
        return *self.decide(hidden), state


POLICIES = {"conv_lstm": ConvLSTM, "conv": Conv, "mlp": MLP}
OPTIONS: dict[str, Any] = {
    "hidden": 128,
    "head": "auto",
    "bins": 9,
    "log_std_min": -3.0,
    "log_std_max": 0.5,
    "log_std_init": -0.5,
    "init_action_rms": None,
}


def policy_class(name: str) -> type[Policy]:
    """The class of a policy: one of POLICIES, one that an installed package registers, or one at a place
    `my_package.my_module:MyPolicy`. Raises ValueError where there is none, or one that is no `Policy`."""
    if isinstance(name, str) and name in POLICIES:
        return POLICIES[name]
    place = name if registry.is_place(name) else registry.registered("policy").get(str(name))
    if place is None:
        known = [*POLICIES, *registry.registered("policy")]
        raise ValueError(
            f"There is no policy {name!r}. The policies are: {', '.join(known)}; my_module:MyPolicy names one of "
            f"your own."
        )
    kind = registry.load("policy", place, ("forward", "initial_state"))
    if not issubclass(kind, Policy):
        raise ValueError(f"The policy {place} is no particle_grid.learn.policy.Policy: derive it from that.")
    return kind


def options_of(kind: type[Policy]) -> dict[str, Any]:
    """The options of a policy's class with their defaults: OPTIONS, and what its constructor takes by keyword only."""
    parameters = inspect.signature(kind).parameters.values()
    return OPTIONS | {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def make_policy(name: str, vision: int, action_space: Space, **kwargs: Any) -> Policy:
    """A policy with fresh weights, drawn from torch's global generator: call `torch.manual_seed` before.

    name: as in `policy_class`. kwargs: hidden (units), for Box actions head (see `particle_grid.learn.heads`),
    bins (of the head of that name), and the bounds and the start of the normal heads' log_std: log_std_min,
    log_std_max, log_std_init. init_action_rms: the root mean square of the first actions along each axis, whatever the
    head; None: as it comes. Besides, what the policy's own constructor takes by keyword only.
    Raises ValueError, in one sentence, for an unknown name or option and for a value that cannot be.
    """
    kind = policy_class(name)
    known = options_of(kind)
    if unknown := [key for key in kwargs if key not in known]:
        raise ValueError(f"Policies have no option {unknown[0]!r}. The options are: {', '.join(known)}.")
    options = known | kwargs
    own = {key: options.pop(key) for key in known.keys() - OPTIONS.keys()}
    hidden, init_action_rms = options.pop("hidden"), options.pop("init_action_rms")
    if isinstance(vision, bool) or not isinstance(vision, int | np.integer) or not 1 <= vision <= MOST_VISION:
        raise ValueError(f"vision={vision!r} cannot be: give that of the environment, 1 to {MOST_VISION} cells.")
    if type(hidden) is not int or not 1 <= hidden <= MOST_UNITS:
        raise ValueError(f"hidden={hidden!r} is not a number of units: give a whole number from 1 to {MOST_UNITS}.")
    if init_action_rms is not None:
        check_number("policy.init_action_rms", init_action_rms, 0, 1)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the decomposition behind orthogonal weights rounds differently with more
    try:
        policy = kind(vision, make_head(action_space, **options), hidden, **own)
    finally:
        torch.set_num_threads(threads)
    if init_action_rms is not None:
        policy.actor.bias.data[:] = policy.head.init_bias(init_action_rms)
    return policy
