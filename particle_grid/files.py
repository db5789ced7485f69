"""Files written so that no crash, and no full disk, leaves half of one."""

import os
from pathlib import Path


def check_place(path: Path) -> None:
    """Raises ValueError where no file can be written, as far as can be told beforehand."""
    if not path.parent.is_dir():
        raise ValueError(f"{path} cannot be written: there is no folder {path.parent}. Make it first.")
    if path.is_dir():
        raise ValueError(f"{path} cannot be written: it is a folder. Choose another name.")
    if not os.access(path.parent, os.W_OK):
        raise ValueError(f"{path} cannot be written: the folder {path.parent} is read-only. Choose another one.")


def write(path: str | Path, content: bytes | memoryview) -> None:
    """Writes a file in the place of `path`, in one step, when all of it is safely on the disk.

    Raises OSError in one sentence if it cannot be written: the old file is untouched then. One process at a time: what
    one that was killed has left is overwritten by the next."""
    temporary = Path(path).with_name(f".{Path(path).name}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise OSError(
            f"{path} could not be written ({error.strerror or error}), and what was there before is untouched: see to "
            f"the folder and its free space."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
