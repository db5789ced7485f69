"""The optimiser: clip the gradients, then take a step of Adam, or of Muon for matrices and of Adam for the rest.

Adam (Kingma and Ba 2015) divides the running mean of each gradient by its running RMS. Muon (Jordan et al. 2024)
replaces the running mean of a matrix's gradients by the nearest matrix whose singular values are all 1, so that each
direction makes the same progress. All matrices take part, also those of actor and critic. Steps are scaled to the RMS
that Adam's have (Liu et al. 2025), so that the rates of both can be compared.

The nearest matrix is found by three odd polynomials of fifth degree, each optimal for the singular values that the one
before leaves (Polar Express: Amsel et al. 2025). They bring singular values above LEAST within 0.27 of 1, as Jordan's
five polynomials do (0.32); those below grow by 78 at most, instead of by 485. In two runs of
`group` they learnt as well as torch's. All factors are polynomials of the smaller Gram matrix, so the matrix itself is
multiplied only twice.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple

import numba
import numpy as np
import torch
from torch import Tensor, nn

from particle_grid.learn.config import TrainerConfig
from particle_grid.support.errors import UserError
from particle_grid.support.jit import Pool

BETA1 = 0.9  # of Adam's running mean of gradients
BETA2 = 0.999  # of Adam's running mean of squared gradients
MOMENTUM = 0.9  # of Muon's running mean of gradients
ADAM_RMS = 0.2  # typical RMS of a step of Adam with rate 1
LEAST = 0.01  # singular values above this share of the matrix's norm become nearly 1
# Coefficients of x, x**3 and x**5 in each polynomial. `tests/learn/test_optimiser.py` finds them.
POLYNOMIALS = np.array(
    [
        [8.093369, -23.62043, 17.446152],
        [3.6365855, -2.7219267, 0.5365463],
        [2.6613, -1.9771545, 0.4526164],
    ],
    np.float32,
)
TINY_NORM = 1e-6  # is added to the norm of the gradient, as in torch
TINY = 1e-7  # least norm that a matrix is divided by
PART = 1024  # gradients whose squares are added in one piece, so that sums do not depend on the number of threads
LARGEST = 1024  # rows or columns, whichever are fewer, of matrices for which the kernel is faster than torch

Moments = dict[str, Tensor]


class Slot(NamedTuple):
    """What belongs to one parameter. gradient: its part of the flat gradient. moments: what is saved of it."""

    parameter: nn.Parameter
    gradient: Tensor
    moments: Moments


class Optimiser:
    """Clips gradients and updates parameters.

    Args:
        parameters: of one dtype and on one device. As in torch, those without a gradient are left as they are.
        config: the settings.
        threads: that share the matrices of Muon. The result does not depend on their number.

    Raises:
        UserError: for parameters of several dtypes.

    Attributes:
        name: `adam` or `muon`.
        learning_rate: of the next steps. A CUDA graph reads it from a tensor, f32[], at each replay.
        gradient: the gradients of all parameters, one after the other, and padding.
        gradients: the views of it that belong to each parameter. A backward pass may write there, and make them the
            `grad` of the parameters; other gradients are copied.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], config: TrainerConfig, threads: int = 1) -> None:
        self.parameters = list(parameters)
        self.config = config
        self.name = config.optimiser
        self.learning_rate: float | Tensor = config.learning_rate
        self.gradient, self.gradients = flat_gradients(self.parameters)
        self.padding = self.gradient[sum(x.numel() for x in self.parameters) :]
        adam: list[Slot] = []
        muon: list[Slot] = []
        self.slots = []
        for parameter, gradient in zip(self.parameters, self.gradients, strict=True):
            matrix = self.name == "muon" and parameter.ndim == 2
            slot = Slot(parameter, gradient, muon_moments(parameter) if matrix else adam_moments(parameter))
            self.slots.append(slot)
            (muon if matrix else adam).append(slot)
        self.adam = Adam(adam, config.adam_eps)
        self.muon = Muon(muon, threads)
        self.fused = FusedAdam(adam, config.adam_eps) if not muon and FusedAdam.applies(self.parameters) else None

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    def attach(self) -> None:
        """Let backward passes that write to the memory of `grad` write to the flat gradient."""
        for parameter, gradient in zip(self.parameters, self.gradients, strict=True):
            parameter.grad = gradient if parameter.requires_grad else None

    @torch.no_grad()
    def step(self, total: Callable[[Tensor], Tensor]) -> Tensor:
        """Update the parameters, and return the norm of the gradient before clipping.

        Args:
            total: sums a tensor over processes, in place.
        """
        self._collect()
        total(self.gradient)
        if self.fused and all(x.grad is not None for x in self.parameters):
            return torch.tensor(self.fused.step(self.gradient, self.config.max_grad_norm, float(self.learning_rate)))
        norm = torch.linalg.vector_norm(torch.linalg.vector_norm(self.gradient.view(-1, PART), dim=1))
        self.gradient.mul_((self.config.max_grad_norm / (norm + TINY_NORM)).clamp(max=1.0))
        wait = self.muon.start(self.learning_rate * self.config.muon_scale)
        self.adam.step(self.learning_rate)
        wait()
        return norm

    def _collect(self) -> None:
        """Copy gradients that are elsewhere to the flat gradient."""
        self.padding.zero_()  # clipping a gradient of NaN made it NaN
        for parameter, gradient in zip(self.parameters, self.gradients, strict=True):
            if parameter.grad is None:
                gradient.zero_()
            elif parameter.grad is not gradient:
                gradient.copy_(parameter.grad)

    def state_dict(self) -> dict[str, Any]:
        """Return the name and the moments of each parameter. They are not copied."""
        return {"name": self.name, "state": {number: slot.moments for number, slot in enumerate(self.slots)}}

    @torch.no_grad()
    def load_moments(self, state: Mapping[int, Mapping[str, Tensor]]) -> None:
        """Load the moments of all parameters, or of none before the first step."""
        for number, slot in enumerate(self.slots):
            for name, moment in slot.moments.items():
                moment.copy_(state[number][name]) if state else moment.zero_()


def flat_gradients(parameters: list[nn.Parameter]) -> tuple[Tensor, list[Tensor]]:
    """Return memory for all gradients, zeros, whose size is a multiple of PART, and a view of it for each parameter."""
    if len({x.dtype for x in parameters}) > 1:
        dtypes = ", ".join(sorted({str(x.dtype) for x in parameters}))
        raise UserError(f"The policy has weights in {dtypes}: convert them to one dtype, such as with policy.float().")
    size = sum(x.numel() for x in parameters)
    flat = parameters[0].new_zeros(-(-size // PART) * PART)
    views = []
    first = 0
    for x in parameters:
        views.append(flat.as_strided(x.shape, torch.empty_like(x).stride(), first))  # laid out like the parameter
        first += x.numel()
    return flat, views


def adam_moments(parameter: Tensor) -> Moments:
    """Return Adam's moments before the first step, under torch's names."""
    step = torch.zeros((), device=parameter.device)
    return {
        "step": step,
        "exp_avg": torch.zeros_like(parameter, requires_grad=False),
        "exp_avg_sq": torch.zeros_like(parameter, requires_grad=False),
    }


def muon_moments(parameter: Tensor) -> Moments:
    """Return Muon's running mean before the first step, under torch's name."""
    return {"momentum_buffer": torch.zeros_like(parameter, requires_grad=False)}


class Adam:
    """Takes the same steps as `torch.optim.Adam(fused=True)`, without its bookkeeping."""

    def __init__(self, slots: list[Slot], eps: float) -> None:
        self.slots = slots
        self.eps = eps

    def step(self, rate: float | Tensor) -> None:
        """Update the parameters that have gradients."""
        live = [slot for slot in self.slots if slot.parameter.grad is not None]
        if not live:
            return
        steps = [slot.moments["step"] for slot in live]
        torch._foreach_add_(steps, 1)
        torch._fused_adam_(
            [slot.parameter for slot in live],
            [slot.gradient for slot in live],
            [slot.moments["exp_avg"] for slot in live],
            [slot.moments["exp_avg_sq"] for slot in live],
            [],
            steps,
            lr=rate,  # type: ignore[arg-type]  # a number or a tensor
            beta1=BETA1,
            beta2=BETA2,
            weight_decay=0.0,
            eps=self.eps,
            amsgrad=False,
            maximize=False,
        )


class FusedAdam:
    """Clips gradients and takes a step of Adam on all parameters in one compiled call.

    Differs from `Adam` in rounding only. The moments of the slots become parts of two flat arrays.
    """

    def __init__(self, slots: list[Slot], eps: float) -> None:
        from particle_grid.learn.fast.kernels import adam  # only if needed, since it loads compiled kernels

        self.norm = adam.norm
        self.kernel = adam.step
        self.eps = np.float32(eps)
        self.parameters = [slot.parameter for slot in slots]
        size = sum(x.numel() for x in self.parameters)
        self.arrays: tuple[np.ndarray, ...] = ()
        self.addresses: list[int] = []  # the addresses of the parameters when `arrays` was made
        self.steps = torch.zeros(len(slots))
        self.means = torch.zeros(size)
        self.squares = torch.zeros(size)
        first = 0
        for number, (parameter, _, moments) in enumerate(slots):
            end = first + parameter.numel()
            moments["step"] = self.steps[number]
            moments["exp_avg"] = self.means[first:end].view_as(parameter)
            moments["exp_avg_sq"] = self.squares[first:end].view_as(parameter)
            first = end

    @staticmethod
    def applies(parameters: list[nn.Parameter]) -> bool:
        """Return whether the kernel applies to parameters."""
        if numba.config.DISABLE_JIT:
            return False
        return all(x.device.type == "cpu" and x.dtype == torch.float32 and x.is_contiguous() for x in parameters)

    def step(self, gradient: Tensor, largest: float, rate: float) -> float:
        """Update the parameters, and return the norm of the gradient before clipping.

        Args:
            gradient: f32[at least n], of all parameters, one after the other.
            largest: norm above which the gradient is scaled down.
            rate: the learning rate.
        """
        d = gradient.numpy()
        norm = self.norm(d)
        self.steps += 1
        steps = self.steps.numpy()
        rates = rate / (1 - BETA1**steps)
        roots = (1 - BETA2**steps) ** -0.5
        scale = np.float32(min(1.0, largest / (norm + TINY_NORM)))
        moments = self.means.numpy(), self.squares.numpy()
        betas = np.float32(BETA1), np.float32(BETA2)
        self.kernel(
            self._arrays(), d, *moments, scale, rates.astype(np.float32), roots.astype(np.float32), self.eps, *betas
        )
        return norm

    def _arrays(self) -> tuple[np.ndarray, ...]:
        """Return the parameters as flat arrays."""
        addresses = [x.data_ptr() for x in self.parameters]
        if addresses != self.addresses:
            self.arrays = tuple(x.detach().view(-1).numpy() for x in self.parameters)
            self.addresses = addresses
        return self.arrays


class Muon:
    """Takes steps of Muon: by a compiled kernel, each matrix in one thread, or else in plain torch."""

    def __init__(self, slots: list[Slot], threads: int) -> None:
        self.slots = sorted(slots, key=lambda slot: -slot.parameter.numel())  # the most work first
        self.kernel: Callable[..., None] | None = None
        self.pool: Pool | None = None
        self.scratch: deque[np.ndarray] = deque()  # scratch memory of the kernel, one for each thread
        if slots and not numba.config.DISABLE_JIT and all(has_kernel(slot.parameter) for slot in slots):
            from particle_grid.learn.fast.kernels import muon  # only if needed, since it loads compiled kernels

            self.kernel = muon.step
            size = max(muon.scratch_size(*slot.parameter.shape) for slot in slots)
            self.scratch.extend(np.zeros(size, np.float32) for _ in range(threads))
            if threads > 1:
                self.pool = Pool(threads, torch.set_flush_denormal, True)  # as in the thread that updates

    def start(self, rate: float | Tensor) -> Callable[[], object]:
        """Start to update the matrices that have gradients, and return a function that waits for the end."""
        live = [slot for slot in self.slots if slot.parameter.grad is not None]
        if self.pool:
            return partial(list, self.pool.map(partial(self._step, rate), live))
        for slot in live:
            self._step(rate, slot)
        return lambda: None

    def _step(self, rate: float | Tensor, slot: Slot) -> None:
        """Update one matrix."""
        rate = rate * (ADAM_RMS * max(slot.parameter.shape) ** 0.5)
        if not self.kernel:
            plain_step(slot, rate)
            return
        arrays = [x.detach().numpy() for x in (slot.parameter, slot.gradient, slot.moments["momentum_buffer"])]
        scratch = self.scratch.pop()
        try:
            self.kernel(*arrays, np.float32(MOMENTUM), np.float32(float(rate)), POLYNOMIALS, scratch)
        finally:  # Ctrl-C may arrive here
            self.scratch.append(scratch)


def has_kernel(matrix: Tensor) -> bool:
    """Return whether the compiled kernel applies to a matrix."""
    return matrix.device.type == "cpu" and matrix.dtype == torch.float32 and min(matrix.shape) <= LARGEST


def plain_step(slot: Slot, rate: float | Tensor) -> None:
    """Update one matrix in plain torch, with Nesterov's momentum."""
    mean = slot.moments["momentum_buffer"].lerp_(slot.gradient, 1 - MOMENTUM)
    slot.parameter.sub_(rate * orthogonal(slot.gradient.lerp(mean, MOMENTUM)))


def orthogonal(x: Tensor) -> Tensor:
    """Return a matrix with all singular values brought near 1."""
    gram = x.t() @ x if len(x) >= x.shape[1] else x @ x.t()
    norm = gram.trace().sqrt().clamp(min=TINY)
    gram = gram / norm**2
    root = identity = torch.eye(len(gram), dtype=x.dtype, device=x.device)
    for a, b, c in POLYNOMIALS.tolist():
        factor = a * identity + b * gram + c * gram @ gram
        root = factor @ root
        gram = factor @ (factor @ gram)
    x = x / norm
    return x @ root if len(x) >= x.shape[1] else root @ x
