"""Text for terminals and command lines."""

from typing import Any


def printable(text: str) -> str:
    """Return a text with its control characters, which could steer a terminal, as escape sequences."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def as_written(value: Any) -> str:
    """Return a value as it is written on a command line."""
    if value is None:
        return "null"
    if isinstance(value, list | tuple):
        return f"[{','.join(map(as_written, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)


def first_line(text: str | None) -> str:
    """Return the first sentence of a docstring on one line, without an example after a colon."""
    return " ".join((text or "").split("\n\n")[0].split()).partition(": python -m")[0].rstrip(".")
