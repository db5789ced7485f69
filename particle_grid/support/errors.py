"""Errors that a user can cause and correct. Any other exception is a bug in this program or in a user's task."""

import difflib
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


class UserError(ValueError):
    """A mistake of the user's: one sentence that names the value, the reason and the remedy.

    Args:
        message: the sentence.
        remedy: a second sentence that says what to do, if the first does not.
    """

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(f"{message} {remedy}".rstrip())
        self.remedy = remedy


class UserTypeError(UserError, TypeError):
    """A value of the wrong type."""


class UserRuntimeError(UserError, RuntimeError):
    """Something that cannot be done now, or that failed while it was done."""


@contextmanager
def refusing_exit() -> Iterator[None]:
    """Turn an exit of the program, which a user's class has no reason to request, into UserRuntimeError."""
    try:
        yield
    except SystemExit as error:
        frame, line = list(traceback.walk_tb(error.__traceback__))[-1]
        name = Path(frame.f_code.co_filename).name
        function = frame.f_code.co_qualname.replace("<module>", "the module")
        raise UserRuntimeError(
            f"{function} ({name}, line {line}) ends the program with SystemExit({error.code!r}): raise another error, "
            f"or leave it out."
        ) from error


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the known word that a misspelt one resembles most, or None if it resembles none."""
    return next(iter(difflib.get_close_matches(word, list(known), n=1)), None)


def unknown(what: str, word: str, known: Iterable[str]) -> str:
    """Return the sentence about an unknown word: the nearest known one, and all of them."""
    words = sorted(known)
    near = nearest(word, words)
    hint = f" Did you mean {near}?" if near else ""
    return f"There is no {what}.{hint} There are: {', '.join(words) or 'none'}."
