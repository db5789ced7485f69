"""Write files atomically, so that neither a crash nor a full disk leaves an incomplete one."""

import contextlib
import os
import secrets
import stat
import time
from pathlib import Path

from particle_grid.support.errors import UserError

TEMPORARY = ".particle_grid-"  # prefix of files that are being written
ABANDONED = 24 * 3600  # seconds after which such a file is abandoned: its process was killed


def check_place(path: Path, make: bool = False) -> None:
    """Raise UserError if no file can be written at a path, if that can be known in advance.

    Args:
        path: of the file.
        make: whether its folder is made before, if it does not exist.
    """
    folder = path.parent
    while make and not folder.exists():
        folder = folder.parent
    if not folder.is_dir():
        raise UserError(f"{path} cannot be written: there is no folder {path.parent}. Make it first.")
    if path.is_dir():
        raise UserError(f"{path} cannot be written: it is a folder. Choose another name.")
    if _is_special(path):
        raise UserError(f"{path} cannot be written: it is a device, a pipe or a socket. Choose another name.")
    if not os.access(folder, os.W_OK):
        raise UserError(f"{path} cannot be written: the folder {folder} is read-only. Choose another one.")


def write(path: str | Path, content: bytes | memoryview) -> None:
    """Replace the file `path` in one step, once all of the new content is safely on the disk.

    Any number of processes may write the same file at the same time: readers see one of the contents, whole. A file
    keeps its permissions.

    Raises:
        OSError: if it cannot be written, in one sentence. The old file is then untouched.
    """
    path = Path(path)
    temporary = temporary_path(path)
    try:
        _clear(path.parent)
        with temporary.open("xb") as file:  # never an existing file, and never through a link
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        replace(temporary, path)
    except OSError as error:
        raise OSError(
            f"{path} could not be written ({error.strerror or error}); any earlier content is untouched. Check the "
            f"folder and its free space."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def temporary_path(path: Path) -> Path:
    """Return the path of a new file in the same folder, with the same suffix and a name that nothing else uses."""
    return path.with_name(f"{TEMPORARY}{secrets.token_hex(8)}{path.suffix[:16].lower()}")


def replace(temporary: Path, path: Path) -> None:
    """Put a finished file in the place of `path`, with its permissions, so that a power loss cannot undo it.

    Raises:
        OSError: for a device, a pipe or a socket, which others use.
    """
    if _is_special(path):
        raise OSError("it is a device, a pipe or a socket, not a file")
    with contextlib.suppress(FileNotFoundError):
        old = path.lstat().st_mode
        if stat.S_ISREG(old):
            temporary.chmod(stat.S_IMODE(old))
    os.replace(temporary, path)
    if os.name == "posix":
        with contextlib.suppress(OSError):  # some file systems cannot; the file is in its place nevertheless
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)


def _is_special(path: Path) -> bool:
    """Return whether a path is something other than a file, a link or a folder."""
    if not os.path.lexists(path):
        return False
    mode = path.lstat().st_mode
    return not (stat.S_ISREG(mode) or stat.S_ISLNK(mode) or stat.S_ISDIR(mode))


def _clear(folder: Path) -> None:
    """Remove what killed processes left long ago: a run that is killed every day would fill its disk."""
    for path in folder.glob(f"{TEMPORARY}*"):
        with contextlib.suppress(OSError):  # another process was faster
            if time.time() - path.lstat().st_mtime > ABANDONED:
                path.unlink()
