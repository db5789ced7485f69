"""Policies map what agents see and remember to action outputs and values.

All policies share one interface, `policy(obs, starts, state) -> (out, value, state)`, for T steps of N agents:

- obs u8[T, N, observation size]: (2 * vision + 1)**2 cell codes, row by row, then 7 features.
- starts bool[T, N]: whether obs[t] is the first of an episode. The recurrent state is zeroed before such a step.
- state: the recurrent state, as `policy.initial_state(N)` returns it: a tuple of f32[N, hidden], or () without memory.
- out f32[T, N, K]: the inputs of `policy.head`.
- value f32[T, N].

The returned state is the one after the last step.
"""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from gymnasium.spaces import Space
from torch import Tensor, nn

from particle_grid.learn.heads import Head, make_head
from particle_grid.learn.heads.numbers import check_number
from particle_grid.support import registry
from particle_grid.support.errors import UserError
from particle_grid.support.renamed import successor

CELLS = 7  # cell codes
FEATURES = 7  # uint8 features after the window
CHANNELS = 32  # channels of the convolutions
MOST_UNITS = 16384  # an LSTM of this size has two billion weights; more is a mistake
MOST_VISION = 64  # cells that an agent of any environment sees on each side
RecurrentState = tuple[Tensor, ...]
Network = Callable[[Tensor, Tensor, RecurrentState], tuple[Tensor, Tensor, RecurrentState]]


def orthogonal(layer: nn.Module, gain: float = 1.0) -> None:
    """Set orthogonal weights (Saxe et al. 2014) and biases of 0: torch's defaults leave the signal too small."""
    for name, parameter in layer.named_parameters():
        if "bias" in name:
            nn.init.zeros_(parameter)
        else:
            nn.init.orthogonal_(parameter, gain)


def check_array(name: str, array: np.ndarray, dtype: type[np.generic], shape: tuple[int, ...]) -> None:
    """Raise UserError for an array of another dtype or shape: compiled code would read beyond its end."""
    if not isinstance(array, np.ndarray) or array.dtype != dtype or array.shape != shape:
        kind = f"{array.dtype} {list(array.shape)}" if isinstance(array, np.ndarray) else type(array).__name__
        raise UserError(
            f"{name} are {kind}, but the policy and its number of agents need {np.dtype(dtype)} {list(shape)}: make "
            f"the policy with the environment's vision, and give arrays of the environment."
        )


class Policy(nn.Module):
    """The base class of policies: a head, and a linear actor and critic on `hidden` numbers.

    Attributes:
        side: cells along each side of the window.
        observation_size: bytes of an observation.
    """

    def __init__(self, vision: int, head: Head, hidden: int) -> None:
        super().__init__()
        self.side = 2 * vision + 1
        self.hidden = hidden
        self.head = head
        self.observation_size = self.side**2 + FEATURES
        self.actor = nn.Linear(hidden, head.outputs)
        self.critic = nn.Linear(hidden, 1)
        orthogonal(self.actor, 0.01)  # nearly uniform, or centred, actions at first
        orthogonal(self.critic)
        # One-hot codes by embedding: twice as fast as F.one_hot, which needs int64, and a code above 6 is an error.
        self.register_buffer("codes", torch.eye(CELLS), persistent=False)

    def initial_state(self, n: int) -> RecurrentState:
        """Return the recurrent state of n agents at the start of an episode."""
        return ()

    def one_hot(self, obs: Tensor) -> Tensor:
        """Return the window of obs u8[B, observation size] as one-hot cells, f32[B, side * side, 7]."""
        return F.embedding(obs[:, : self.side**2].int(), self.get_buffer("codes"))

    def features(self, obs: Tensor) -> Tensor:
        """Return the features of obs u8[B, observation size], f32[B, 7] in [0, 1]."""
        return obs[:, self.side**2 :] / 255

    def decide(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return outputs f32[..., K] and value f32[...] for x [..., hidden].

        Autocast does not apply: in bfloat16, values around 3 are 0.016 apart, more than what one move changes.
        """
        x = x.to(self.actor.weight.dtype)
        with torch.autocast(x.device.type, enabled=False):
            return self.actor(x), self.critic(x).squeeze(-1)


class ConvEncoder(nn.Module):
    """Encodes one-hot windows f32[B, side * side, 7] as f32[B, 32]: 5 x 5 patches at stride 3, then all patches."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side
        padding = 2 * (5 - side) % 3  # 0 at vision 5; otherwise the least with which patches cover all cells evenly
        patches = (side + 2 * padding - 5) // 3 + 1
        self.conv1 = nn.Conv2d(CELLS, CHANNELS, 5, stride=3, padding=padding)
        self.conv2 = nn.Conv2d(CHANNELS, CHANNELS, patches)
        orthogonal(self.conv1, 2**0.5)
        orthogonal(self.conv2)

    def forward(self, cells: Tensor) -> Tensor:
        """Return the encoded windows."""
        image = cells.unflatten(1, (self.side, self.side)).permute(0, 3, 1, 2)  # [B, 7, side, side], channels last
        return self.conv2(F.relu(self.conv1(image))).flatten(1)  # [B, 32, 1, 1] -> [B, 32]


class ConvLSTM(Policy):
    """Convolutions, a linear layer and an LSTM (Hochreiter and Schmidhuber 1997). The default.

    Everything between the second convolution and the gates is linear, so it can be composed into one matrix. The
    bias of the forget gate starts at 0 like all biases; the learning rates were chosen with that. A bias of 1 (Gers et
    al. 2000) would make the memory longer at first, which the gate can also learn.
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

    def initial_state(self, n: int) -> RecurrentState:
        """Return h and c, f32[n, hidden], zeros."""
        zeros = self.lstm.weight_hh.new_zeros(n, self.hidden)
        return zeros, zeros.clone()

    def compose(self) -> tuple[Tensor, Tensor]:
        """Return the layers from the encoder and the features to the gates as one: weights and bias."""
        weights = self.lstm.weight_ih @ self.linear.weight
        return weights, self.lstm.weight_ih @ self.linear.bias + self.lstm.bias_ih + self.lstm.bias_hh

    def forward(
        self, obs: Tensor, starts: Tensor, state: RecurrentState, composed: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, Tensor, RecurrentState]:
        """Return outputs, values and the next recurrent state, see this module.

        Args:
            obs, starts, state: see this module.
            composed: what `compose` returns, if it is known.
        """
        flat = obs.flatten(0, 1)  # [T, N, observation size] -> [T * N, observation size]
        x = torch.cat([self.encoder(self.one_hot(flat)), self.features(flat)], 1)
        into, bias = composed or self.compose()
        gates = F.linear(x, into, bias).unflatten(0, starts.shape)  # [T * N, 4 hidden] -> [T, N, 4 hidden]
        hidden, state = self.recur(gates, starts, state)
        return *self.decide(hidden), state

    def recur(self, gates: Tensor, starts: Tensor, state: RecurrentState) -> tuple[Tensor, RecurrentState]:
        """Return h f32[T, N, hidden] of all steps, and the state after the last.

        Args:
            gates: f32[T, N, 4 hidden], what the inputs contribute to the gates.
            starts: bool[T, N].
            state: h and c before the first step.
        """
        h, c = state
        recurrent = self.lstm.weight_hh.t()
        steps = []
        keep = (~starts).to(gates.dtype).unsqueeze(-1)  # [T, N, 1]
        for gates_t, keep_t in zip(gates.unbind(), keep.unbind(), strict=True):
            h = h * keep_t
            c = c * keep_t
            all_gates = torch.addmm(gates_t, h, recurrent)  # [N, 4 hidden]
            i, f, g, o = all_gates.chunk(4, 1)
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

    def forward(self, obs: Tensor, starts: Tensor, state: RecurrentState) -> tuple[Tensor, Tensor, RecurrentState]:
        """Return outputs, values and the next recurrent state, see this module."""
        flat = obs.flatten(0, 1)  # [T, N, observation size] -> [T * N, observation size]
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

    def forward(self, obs: Tensor, starts: Tensor, state: RecurrentState) -> tuple[Tensor, Tensor, RecurrentState]:
        """Return outputs, values and the next recurrent state, see this module."""
        flat = obs.flatten(0, 1)  # [T, N, observation size] -> [T * N, observation size]
        x = torch.cat([self.one_hot(flat).flatten(1), self.features(flat)], 1)  # [T * N, side * side * 7 + 7]
        hidden = F.relu(self.linear2(F.relu(self.linear1(x)))).unflatten(0, starts.shape)  # [T, N, hidden]
        return *self.decide(hidden), state


POLICIES = {"conv_lstm": ConvLSTM, "conv": Conv, "mlp": MLP}
INIT_ACTIONS = ("rms", "moves")
OPTIONS: dict[str, Any] = {
    "hidden": 128,  # number of hidden units, also of the LSTM; the default makes about 150k parameters
    "head": "auto",  # distribution of continuous actions: hurdle (auto), bins, beta, gaussian, squashed, snapped, ...
    "bins": 9,  # number of values per axis with head=bins or jitter
    "log_std_min": -3.0,  # lower bound of a Gaussian's log standard deviation; below it, gradients explode
    "log_std_max": 0.5,  # upper bound; above it, nearly every sample is clipped at the ends of [-1, 1]
    "log_std_init": -0.5,  # initial value; a deviation of 0.6 covers most of the range with little clipping
    "shared_std": False,  # whether one deviation serves all observations with head=probit or capg, as in a Gaussian
    "move_entropy": False,  # whether the entropy with head=snapped is that of the moves instead of that of the sample
    "init_action_rms": None,  # RMS of the first actions along each axis, to start all heads alike (null: no change)
    "init_actions": "rms",  # what init_action_rms is: rms, or moves for the distribution of such discrete actions, too
}


def policy_class(name: str) -> type[Policy]:
    """Return the class of a policy.

    Args:
        name: one of POLICIES, a name that an installed package registers, or the place of a class,
            `my_package.my_module:MyPolicy`.

    Raises:
        UserError: if there is no such class, or if it does not derive from `Policy`.
    """
    if isinstance(name, str) and name in POLICIES:
        return POLICIES[name]
    place = name if registry.is_place(name) else registry.registered("policy").get(str(name))
    if place is None:
        raise registry.unknown_class("policy", str(name), [*POLICIES, *registry.registered("policy")])
    kind = registry.load("policy", place, ("forward", "initial_state"))
    if not issubclass(kind, Policy):
        raise UserError(
            f"The policy {place} does not derive from particle_grid.learn.policy.Policy: derive it from that."
        )
    return kind


def options_of(kind: type[Policy]) -> dict[str, Any]:
    """Return the options of a policy's class with their defaults.

    These are OPTIONS, and what the class takes by keyword only.
    """
    parameters = inspect.signature(kind).parameters.values()
    return OPTIONS | {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def make_policy(name: str, vision: int, action_space: Space, **kwargs: Any) -> Policy:
    """Return a policy with new weights, drawn from torch's global generator: call `torch.manual_seed` before.

    Args:
        name: as in `policy_class`.
        vision: cells that an agent sees on each side.
        action_space: as in `particle_grid.learn.heads.make_head`.
        **kwargs: options of the policy: `hidden`, the number of units; those of `make_head`; `init_action_rms`, the
            root mean square of the first actions along each axis, or None to leave it as it is; `init_actions`, one
            of INIT_ACTIONS: with `moves`, the nearest discrete moves are as likely as with discrete actions of this
            root mean square; and what the policy's own class takes by keyword only.

    Raises:
        UserError: for an unknown name or option, and for a value that is out of range.
    """
    kind = policy_class(name)
    defaults = options_of(kind)
    _check_options(vision, defaults, kwargs)
    options = defaults | kwargs
    own = {key: options.pop(key) for key in defaults.keys() - OPTIONS.keys()}
    hidden = options.pop("hidden")
    init_action_rms = options.pop("init_action_rms")
    init_actions = options.pop("init_actions")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # with more, the decomposition that makes weights orthogonal rounds differently
    try:
        policy = _constructed(name, kind, vision, make_head(action_space, **options), hidden, **own)
    finally:
        torch.set_num_threads(threads)
    if init_action_rms is not None:
        policy.actor.bias.data[:] = _first_outputs(policy.head, init_action_rms, init_actions == "moves")
    return policy


def _first_outputs(head: Head, rms: float, moves: bool) -> Tensor:
    """Return the outputs with which a head starts. Raise UserError if its author did not provide for moves."""
    if not moves:
        return head.init_bias(rms)
    if "moves" not in inspect.signature(head.init_bias).parameters:
        raise UserError(
            f"policy.init_actions=moves needs init_bias(rms, moves) of {type(head).__name__}: add the argument, or use "
            f"policy.init_actions=rms."
        )
    return head.init_bias(rms, moves=True)


def _constructed(name: str, kind: type[Policy], *arguments: Any, **own: Any) -> Policy:
    """Return a new policy. Raise UserError if its constructor takes other arguments, or omits that of `Policy`."""
    remedy = "let it be __init__(self, vision, head, hidden), with its own options by keyword only"
    registry.check_constructor("policy", name, kind, remedy, *arguments, **own)
    incomplete = f"The policy {name} lacks its parts: call super().__init__(vision, head, hidden) first."
    try:
        policy = kind(*arguments, **own)
    except AttributeError as error:
        if "Module.__init__()" in str(error):  # torch's message for parts that are set before it
            raise UserError(incomplete) from error
        raise
    if not hasattr(policy, "head"):
        raise UserError(incomplete)
    return policy


def _check_options(vision: object, defaults: dict[str, Any], given: dict[str, Any]) -> None:
    """Raise UserError for an unknown option and for a value that is out of range."""
    unknown = [key for key in given if key not in defaults]
    if unknown:
        new_name = successor("policy", unknown[0])
        if new_name:
            raise UserError(f"The policy option {unknown[0]} is now called {new_name}: use that name.")
        raise UserError(f"Policies have no option {unknown[0]!r}. The options are: {', '.join(defaults)}.")
    options = defaults | given
    hidden = options["hidden"]
    if isinstance(vision, bool) or not isinstance(vision, int | np.integer) or not 1 <= vision <= MOST_VISION:
        raise UserError(f"vision={vision!r} is invalid: give that of the environment, 1 to {MOST_VISION} cells.")
    if type(hidden) is not int or not 1 <= hidden <= MOST_UNITS:
        raise UserError(f"hidden={hidden!r} is not a number of units: give a whole number from 1 to {MOST_UNITS}.")
    if options["init_actions"] not in INIT_ACTIONS:
        raise UserError(f"policy.init_actions={options['init_actions']!r} is invalid: use {' or '.join(INIT_ACTIONS)}.")
    if options["init_actions"] == "moves" and options["init_action_rms"] is None:
        raise UserError("policy.init_actions=moves has no effect by itself: set policy.init_action_rms, too.")
    if options["init_action_rms"] is not None:
        check_number("policy.init_action_rms", options["init_action_rms"], 0, 1)
