"""Pickles that can hold arrays and nothing else: reading one never runs code from it."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

_DAMAGED = (  # what the unpickler raises on files cut short or full of something else
    pickle.UnpicklingError,
    EOFError,
    LookupError,
    AttributeError,
    TypeError,
    ValueError,
    MemoryError,
    OverflowError,
)


def read_pickle(path: Path) -> Any:
    """Read a pickle of arrays, numbers, strings, lists and dicts, such as Detectron2's `.pkl`.

    Args:
        path: The file.

    Returns:
        What it holds; arrays are NumPy's.

    Raises:
        ValueError: It names anything that such a pickle does not need, or is damaged. Nothing in
            it has run.

    Example:
        >>> import pickle, tempfile
        >>> path = Path(tempfile.mkdtemp(), "model.pkl")
        >>> _ = path.write_bytes(pickle.dumps({"model": {"weight": np.ones(3)}}))
        >>> read_pickle(path)["model"]["weight"]
        array([1., 1., 1.])
    """
    with path.open("rb") as file:
        try:
            return _ArrayUnpickler(file, encoding="latin1").load()
        except _RefusedError as error:
            raise ValueError(f"{path} is refused: {error}") from None
        except _DAMAGED as error:
            raise ValueError(
                f"{path} is damaged: {error or type(error).__name__}; it may have been cut short, "
                f"so get it again and compare its size"
            ) from error


class _RefusedError(ValueError):
    """The pickle asks for something that it may not have."""


class _ArrayUnpickler(pickle.Unpickler):
    """Knows the few names in `_ALLOWED`."""

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        """Look a global name up."""
        if (module_name, global_name) not in _ALLOWED:
            raise _RefusedError(
                f"it names {module_name}.{global_name}, and a pickle of arrays needs no such "
                f"thing. Nothing in it has run. If you trust the file, load it where it was made "
                f"and save its tensors with safetensors"
            )
        return _ALLOWED[module_name, global_name]

    def persistent_load(self, pid: Any) -> Any:
        """Refuse references to what lies outside the file."""
        raise _RefusedError(f"it refers to an object outside itself, {pid!r}")


def _latin1(text: str, encoding: str) -> bytes:
    """Stands for `_codecs.encode`, by which protocol 2 writes bytes."""
    if encoding not in ("latin1", "latin-1"):
        raise _RefusedError(f"it encodes bytes as {encoding!r}, expected 'latin1'")
    return text.encode("latin1")


def _from_buffer(buffer: bytes, dtype: Any, shape: tuple[int, ...], order: Any) -> np.ndarray:
    """Stands for NumPy's `_frombuffer`, by which protocol 5 writes arrays."""
    return np.frombuffer(buffer, dtype=dtype).reshape(shape, order=order)


_ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("_codecs", "encode"): _latin1,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}
for _core in ("numpy.core", "numpy._core"):  # its name before and since NumPy 2
    _ALLOWED[f"{_core}.multiarray", "_reconstruct"] = np.empty(0).__reduce__()[0]
    _ALLOWED[f"{_core}.multiarray", "scalar"] = np.float32(0).__reduce__()[0]
    _ALLOWED[f"{_core}.numeric", "_frombuffer"] = _from_buffer
