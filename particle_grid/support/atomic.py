"""Files written so that no crash, and no full disk, leaves half of one."""

import contextlib
import os
import secrets
import stat
import time
from pathlib import Path

TEMPORARY = ".particle_grid-"  # how the names of files begin that are not finished
ABANDONED = 24 * 3600  # seconds after which nobody is still writing one: whoever began it was killed


def check_place(path: Path) -> None:
    """Raises ValueError where no file can be written, as far as can be told beforehand."""
    if not path.parent.is_dir():
        raise ValueError(f"{path} cannot be written: there is no folder {path.parent}. Make it first.")
    if path.is_dir():
        raise ValueError(f"{path} cannot be written: it is a folder. Choose another name.")
    if _is_special(path):
        raise ValueError(f"{path} cannot be written: it is a device, a pipe or a socket. Choose another name.")
    if not os.access(path.parent, os.W_OK):
        raise ValueError(f"{path} cannot be written: the folder {path.parent} is read-only. Choose another one.")


def write(path: str | Path, content: bytes | memoryview) -> None:
    """Replace the file `path` in one step, once all of the new content is safely on the disk.

    Any number of processes may write the same file at the same time: readers see one of the contents, whole. A file
    keeps its permissions.

    Raises OSError in one sentence if it cannot be written: the old file is untouched then."""
    path = Path(path)
    temporary = beside(path)
    try:
        _clear(path.parent)
        with temporary.open("xb") as file:  # never an existing file, and never through a link
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        replace(temporary, path)
    except OSError as error:
        raise OSError(
            f"{path} could not be written ({error.strerror or error}), and what was there before is untouched: see to "
            f"the folder and its free space."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def beside(path: Path) -> Path:
    """Return the path of a new file in the same folder, with the same suffix, that nobody else can know of."""
    return path.with_name(f"{TEMPORARY}{secrets.token_hex(8)}{path.suffix[:16].lower()}")


def replace(temporary: Path, path: Path) -> None:
    """Put a finished file in the place of `path`, with its permissions, so that a power loss cannot undo it.

    Raises OSError for a device, a pipe or a socket: others use it, and it would be gone."""
    if _is_special(path):
        raise OSError("it is a device, a pipe or a socket, not a file")
    with contextlib.suppress(FileNotFoundError):
        old = path.lstat().st_mode
        if stat.S_ISREG(old):
            temporary.chmod(stat.S_IMODE(old))
    os.replace(temporary, path)
    if os.name == "posix":
        with contextlib.suppress(OSError):  # some file systems cannot; the file is in its place all the same
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)


def _is_special(path: Path) -> bool:
    """Whether a path is of something that is neither a file, a link nor a folder."""
    if not os.path.lexists(path):
        return False
    mode = path.lstat().st_mode
    return not (stat.S_ISREG(mode) or stat.S_ISLNK(mode) or stat.S_ISDIR(mode))


def _clear(folder: Path) -> None:
    """Remove what killed processes have left long ago: a run that is killed every day would fill its disk."""
    for path in folder.glob(f"{TEMPORARY}*"):
        with contextlib.suppress(OSError):  # another process was faster
            if time.time() - path.lstat().st_mtime > ABANDONED:
                path.unlink()
