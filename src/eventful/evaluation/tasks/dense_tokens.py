"""Dense tokens of whole videos on disk, which every other setting is compared with."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import final
from urllib.parse import quote

import numpy as np
from torch import Tensor

_HEADER = 128  # bytes: what numpy writes for these shapes


@final
class DenseTokens:
    """A folder with the dense patch tokens of videos, float32, read through a memory map.

    Args:
        folder: Where to; made when the first video is written.

    Example:
        >>> import tempfile, torch
        >>> dense = DenseTokens(Path(tempfile.mkdtemp()))
        >>> dense.read("street") is None
        True
        >>> dense.write("street", [torch.full((1, 3, 2), 7.0), torch.zeros(1, 3, 2)])
        >>> dense.read("street").shape, dense.read("street")[0, 2].tolist()
        ((2, 3, 2), [7.0, 7.0])
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, video: str) -> np.ndarray | None:
        """A video's tokens (frames, tokens, dim); None if they have not been written.

        Raises:
            ValueError: The file is damaged.
        """
        path = self._path(video)
        if not path.exists():
            return None
        try:
            return np.load(path, mmap_mode="r")
        except (OSError, ValueError, EOFError) as error:
            raise ValueError(f"{path} is damaged ({error}); delete it, it is made again") from error

    def write(self, video: str, frames: Iterable[Tensor]) -> None:
        """Write a file that appears whole or not at all; none if there is no frame.

        Args:
            video: Its name.
            frames: Tokens (1, tokens, dim) of each frame.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        temporary = self._folder / f".{os.getpid()}.part"
        try:
            shape = _write_raw(temporary, frames)
            if shape is not None:
                _put_header(temporary, shape)
                os.replace(temporary, self._path(video))
        finally:
            temporary.unlink(missing_ok=True)

    def _path(self, video: str) -> Path:
        return self._folder / f"{quote(video, safe='')}.npy"


def _write_raw(path: Path, frames: Iterable[Tensor]) -> tuple[int, ...] | None:
    """Write values behind room for a header, since the number of frames is known at the end."""
    count, shape = 0, None
    with path.open("wb") as file:
        file.write(b" " * _HEADER)
        for tokens in frames:
            values = tokens[0].detach().float().cpu().numpy()
            shape = values.shape
            file.write(np.ascontiguousarray(values, "<f4").tobytes())
            count += 1
    return None if shape is None else (count, *shape)


def _put_header(path: Path, shape: tuple[int, ...]) -> None:
    with path.open("r+b") as file:
        about = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, about)
        assert file.tell() == _HEADER
