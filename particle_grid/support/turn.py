"""A guard against two calls that change the same arrays at once."""

from particle_grid.support.errors import UserRuntimeError


class Turn:
    """Use as `with turn:` around everything that changes arrays.

    Kernels release the GIL, so two threads could write to the same cells. Entering raises UserRuntimeError instead of
    waiting if the turn is taken. Where speed matters, set and reset `taken` directly.
    """

    def __init__(self) -> None:
        self.taken = False

    def take(self) -> None:
        """Take the turn, or raise UserRuntimeError."""
        if self.taken:  # no thread can interfere here: Python switches threads at calls and backward jumps only
            raise UserRuntimeError(
                "This environment is in the middle of another call, by another thread or by its own task: let threads "
                "take turns, or give each its own environment (copy.deepcopy)."
            )
        self.taken = True

    __enter__ = take

    def __exit__(self, *_: object) -> None:
        self.taken = False
