"""Files of weights: what kind of file it is, and what it holds."""

from __future__ import annotations

import hashlib
import pickle
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eventful.models.packaged import optional
from eventful.models.weights.pickles import read_pickle

_LEGACY_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # a pickled magic number comes first
_LONGEST_HEADER = 100_000_000  # of a safetensors file, in bytes; the format's own limit

_DAMAGED = pickle.UnpicklingError, RuntimeError, EOFError, LookupError, AttributeError, TypeError
_DAMAGED += ValueError, OSError


def sha256(path: Path) -> str:
    """Sum up a file that may be larger than memory.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "empty")
        >>> path.touch()
        >>> sha256(path)[:8]
        'e3b0c442'
    """
    total = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            total.update(block)
    return total.hexdigest()


def is_safetensors(path: Path) -> bool:
    """Whether a file begins as safetensors do.

    Raises:
        FileNotFoundError: There is no such file.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "model.safetensors")
        >>> torch.save({}, path)
        >>> is_safetensors(path)
        False
    """
    head = _head(path)
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= _LONGEST_HEADER


def _head(path: Path) -> bytes:
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    with path.open("rb") as file:
        return file.read(64)


def _format(path: Path) -> str:
    head = _head(path)
    if is_safetensors(path):
        return "safetensors"
    if head.startswith((b"PK\x03\x04", _LEGACY_TORCH)):
        return "torch"
    if head.startswith(b"\x80"):
        return "pickle"
    raise ValueError(
        f"{path} is no checkpoint: {_guess(head)}; expected a .pth or .pyth of PyTorch, a .pkl of "
        f"arrays, or .safetensors"
    )


def _guess(head: bytes) -> str:
    """What a file is that is no checkpoint."""
    if not head:
        return "it is empty"
    if head.lstrip().startswith(b"<"):
        return "it is a web page, as a download that asks for confirmation leaves one"
    if head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ")):
        return "it is compressed; unpack it first"
    return f"it begins with {head[:8]!r}"


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Read all tensors of a safetensors file.

    Raises:
        ValueError: It is damaged.

    Example:
        >>> import tempfile
        >>> from safetensors.torch import save_file
        >>> path = Path(tempfile.mkdtemp(), "model.safetensors")
        >>> save_file({"weight": torch.ones(3)}, path)
        >>> read_safetensors(path)
        {'weight': tensor([1., 1., 1.])}
    """
    with _opened(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping


def read_metadata(path: Path) -> dict[str, str]:
    """Read what a safetensors file says of itself.

    Raises:
        ValueError: It is damaged.

    Example:
        >>> import tempfile
        >>> from safetensors.torch import save_file
        >>> path = Path(tempfile.mkdtemp(), "model.safetensors")
        >>> save_file({"weight": torch.ones(3)}, path, metadata={"kind": "vivit_b_epic"})
        >>> read_metadata(path)
        {'kind': 'vivit_b_epic'}
    """
    with _opened(path) as file:
        return file.metadata() or {}


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    safetensors = optional("safetensors")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            yield file
    except safetensors.SafetensorError as error:
        raise ValueError(
            f"{path} is damaged: {error}; it may have been cut short, so get it again and compare "
            f"its size"
        ) from error


def _read_torch(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old files about the way they are stored
            return torch.load(path, map_location="cpu", weights_only=True)
    except _DAMAGED as error:
        raise ValueError(f"{path} is refused: {_reason(error)}") from error


def _reason(error: BaseException) -> str:
    """What `torch.load` found, in a line and without its advice to load the file regardless."""
    text = " ".join(str(error).split()) or type(error).__name__
    refused = re.search(r"GLOBAL (\S+)", text)
    if not refused:
        detail = text.rpartition("WeightsUnpickler error: ")[2].partition(" In PyTorch 2.6,")[0]
        return f"it is damaged or no file of PyTorch ({detail[:160]})"
    return (
        f"it names {refused[1]}, and a file of tensors needs no such thing. Nothing in it has run. "
        f"If you trust the file, and it is not cut short, load it where it was made and save its "
        f"tensors with safetensors"
    )


def read_file(path: Path) -> Any:
    """Read a file of PyTorch, a pickle of arrays, or safetensors, whatever it is called.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is something else, damaged, or holds code, none of which has run.
        ModuleNotFoundError: It is a safetensors file, and safetensors is not installed.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "model.pkl")
        >>> torch.save({"iteration": 7}, path)
        >>> read_file(path)
        {'iteration': 7}
    """
    return _READERS[_format(path)](path)


_READERS = {"torch": _read_torch, "pickle": read_pickle, "safetensors": read_safetensors}
