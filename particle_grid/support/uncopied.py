"""A base class of objects that refuse to be copied."""

from typing import ClassVar, NoReturn, SupportsIndex

from particle_grid.support.errors import UserTypeError


class Uncopied:
    """Refuses copies and pickles, and says what to do instead.

    Its subclasses own threads and share memory with other objects, so a copy would continue with stale data.

    Attributes:
        instead: what to do, as the end of a sentence.
    """

    instead: ClassVar[str]

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:  # copy.copy, copy.deepcopy and pickle call this
        raise UserTypeError(f"A {type(self).__name__} cannot be copied or pickled: {self.instead}.")
