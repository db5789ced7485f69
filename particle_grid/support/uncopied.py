"""What cannot be copied says so."""

from typing import ClassVar, NoReturn, SupportsIndex


class Uncopied:
    """Has threads of its own, and views of what others write: a copy would go on with what these held when it was made.
    So copies and pickles are refused, and `instead` says what to do."""

    instead: ClassVar[str]

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:  # copy.copy, copy.deepcopy and pickle begin here
        raise TypeError(f"A {type(self).__name__} cannot be copied or pickled: {self.instead}.")
