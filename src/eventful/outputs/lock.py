"""A folder that one process at a time writes to."""

from __future__ import annotations

import os
import weakref
from pathlib import Path
from typing import final

from eventful.outputs.rows import OutputError

NAME = ".lock"


@final
class Lock:
    """Holds a folder until it is let go, or the process ends, however that ends.

    The folder is made if it is not there. The file in it stays: to remove it would let two hold it.

    Args:
        folder: The folder.
        holder: Who else may hold it, for the message.

    Raises:
        ValueError: Somebody else holds it, in this process or another.
        OutputError: It cannot be written to.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> lock = Lock(folder, "another run")
        >>> try:
        ...     Lock(folder, "another run")
        ... except ValueError as error:
        ...     print(str(error).replace(str(folder), "FOLDER"))
        another run is writing to FOLDER; wait for it, or name another folder
        >>> lock.release()
        >>> Lock(folder, "another run").release()
    """

    def __init__(self, folder: Path, holder: str) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(folder / NAME, os.O_RDWR | os.O_CREAT)
        except OSError as error:
            raise OutputError(
                error.errno, f"{folder} cannot be written to ({error.strerror}); name another"
            ) from error
        self._end = weakref.finalize(self, os.close, handle)
        if not _taken(handle):
            self.release()
            raise ValueError(
                f"{holder} is writing to {folder}; wait for it, or name another folder"
            )

    def release(self) -> None:
        """Let go of the folder; a second time does nothing."""
        self._end()


def _taken(handle: int) -> bool:
    try:
        import fcntl  # noqa: PLC0415 - not on Windows, where folders are not locked
    except ModuleNotFoundError:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
