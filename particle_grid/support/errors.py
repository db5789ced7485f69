"""Errors that a user can cause and correct. Any other exception is a bug in this program or in a user's task."""

import difflib
from collections.abc import Iterable


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


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the known word that a misspelt one resembles most, or None if it resembles none."""
    return next(iter(difflib.get_close_matches(word, list(known), n=1)), None)


def unknown(what: str, word: str, known: Iterable[str]) -> str:
    """Return the sentence about an unknown word: the nearest known one, and all of them."""
    words = sorted(known)
    near = nearest(word, words)
    hint = f" Did you mean {near}?" if near else ""
    return f"There is no {what}.{hint} There are: {', '.join(words) or 'none'}."
