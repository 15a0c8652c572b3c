"""Files that are written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make a file beside the path, and put it in its place once it is complete."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_tensors(
    tensors: Mapping[str, Tensor], path: Path, about: dict[str, str] | None = None
) -> None:
    """Write tensors to a safetensors file.

    Example:
        >>> import tempfile, torch
        >>> path = Path(tempfile.mkdtemp(), "tokens.safetensors")
        >>> write_tensors({"tokens": torch.ones(2)}, path, {"video": "a"})
        >>> read_tensors(path)
        ({'tokens': tensor([1., 1.])}, {'video': 'a'})
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save = _safetensors("safetensors.torch").save_file
    write_whole(path, lambda temporary: save(plain, temporary, metadata=about))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a safetensors file: its tensors, and what was said about them.

    Raises:
        ValueError: It is damaged.
        FileNotFoundError: It is not there.
    """
    with _opened(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}, _about(file)  # noqa: SIM118


def read_about(path: Path) -> dict[str, str]:
    """Read what a safetensors file says about its tensors, and not the tensors.

    Raises:
        ValueError: It is damaged.
        FileNotFoundError: It is not there.
    """
    with _opened(path) as file:
        return _about(file)


def _about(file: Any) -> dict[str, str]:
    return file.metadata() or {}


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    safetensors = _safetensors("safetensors")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            yield file
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}); delete it and make it again") from error


def _safetensors(name: str) -> ModuleType:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "fine-tuning keeps its files with safetensors; pip install "
            "'eventful-transformers[eval]'",
            name="safetensors",
        ) from error
