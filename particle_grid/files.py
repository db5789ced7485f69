"""Files written so that no crash, and no full disk, leaves half of one."""

import os
from pathlib import Path


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
