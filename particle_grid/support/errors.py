"""Errors that a user can cause and correct. Any other exception is a bug in this program or in a user's task."""


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
