"""Run a list of checks, and print what each of them found."""

import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import torch
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor

from particle_grid.settings.errors import explain
from particle_grid.support.errors import UserError, refusing_exit

Subject = TypeVar("Subject")
INVALID = (UserError, HydraException, OmegaConfBaseException)  # what is raised for a class or a setting that is invalid


@dataclass(frozen=True)
class Check(Generic[Subject]):
    """One line of the list.

    what: what is checked, in words. test: returns a note that is printed beside "ok", or raises UserError with what is
    wrong. vital: whether the checks after it are pointless if it fails.
    """

    what: str
    test: Callable[[Subject], str]
    vital: bool = False


def examine(subject: Subject, file: str, checks: Sequence[Check[Subject]]) -> bool:
    """Run checks and print a line for each; return whether all of them passed.

    After a crash the list ends, because the next check would run the same code.

    Args:
        subject: what each check is called with.
        file: the path of the user's module. Tracebacks begin there.
        checks: the checks, in their order.
    """
    passed = True
    for check in checks:
        crashed = False
        try:
            with refusing_exit():
                note = check.test(subject)
        except INVALID as error:
            problem = explain(error)
        except Exception as error:
            print(own_traceback(error, file), end="")
            problem = _of_crash(error, file)
            crashed = True
        else:
            print(f"  ok     {check.what}{': ' if note else ''}{note}", flush=True)
            continue
        passed = False
        print(f"  wrong  {check.what}: {problem}", flush=True)
        if (crashed or check.vital) and check is not checks[-1]:
            print("         The checks after this one were left out.")
            break
    return passed


def expect(what: str, x: object, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> None:
    """Raise UserError unless x is a finite tensor of this shape and dtype.

    Args:
        what: what x is, in words.
        x: the value to check.
        shape: its shape.
        dtype: its dtype.
    """
    if not isinstance(x, Tensor) or x.dtype != dtype or x.shape != shape:
        kind = f"{_name(x.dtype)}{list(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
        raise UserError(f"{what} is {kind}: it should be {_name(dtype)}{list(shape)} here.")
    if not x.isfinite().all():
        raise UserError(f"{what} holds NaN or infinite numbers: look for a division, a logarithm or an exponential.")


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread: for small tensors, several wait for each other, above all beside other programs."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def own_traceback(error: Exception, file: str) -> str:
    """Return the traceback of an error from the first line of a file on, or all of it if it does not pass there."""
    step = error.__traceback__
    while step and step.tb_frame.f_code.co_filename != file:
        step = step.tb_next
    return "".join(traceback.format_exception(type(error), error, step or error.__traceback__))


def _of_crash(error: Exception, file: str) -> str:
    """Return the sentence about an error that is not a UserError."""
    inside = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    what = f"{type(error).__name__}: {' '.join(str(error).split())}"
    if inside:
        return f"{what}. Correct line {inside[-1].lineno} of {Path(file).name}, or what leads to it."
    return f"{what}. No line of {Path(file).name} raised it, so look for a value of a wrong type or shape there."
