"""Output that degrades instead of ending a command, so that results do not depend on a terminal."""

import codecs
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

PLAIN = {"±": "+-", "…": "..."}  # for encodings that lack them; any other character becomes "?"


def _plain(error: UnicodeError) -> tuple[str, int]:
    """Return the replacement of characters that an encoding lacks, and where encoding continues."""
    assert isinstance(error, UnicodeEncodeError)
    return "".join(PLAIN.get(letter, "?") for letter in error.object[error.start : error.end]), error.end


codecs.register_error("particle_grid.plain", _plain)


class Output:
    """A text stream that writes to another one until that fails, because its reader has ended or the disk is full."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with self._unbroken():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._unbroken():
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @contextmanager
    def _unbroken(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())  # also redirects what is buffered, which Python flushes at the end
            os.close(nowhere)
            if not isinstance(error, BrokenPipeError):  # `| head` does this on purpose
                with suppress(OSError):
                    print(f"Output cannot be written ({error.strerror}) and is omitted from here on.", file=sys.stderr)


@contextmanager
def lasting_output() -> Iterator[None]:
    """Let stdout and stderr degrade: neither a character nor a closed pipe ends what runs in this context."""
    before = sys.stdout, sys.stderr
    errors = [(stream, stream.errors) for stream in before if isinstance(stream, io.TextIOWrapper)]
    for stream, _ in errors:
        stream.reconfigure(errors="particle_grid.plain")
    lasting: list[Any] = [Output(stream) if stream else stream for stream in before]  # None if closed from the start
    sys.stdout, sys.stderr = lasting
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            if stream:
                stream.flush()
        sys.stdout, sys.stderr = before
        for stream, old in errors:
            stream.reconfigure(errors=old)
