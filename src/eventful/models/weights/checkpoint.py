"""Checkpoints: where in a file the weights are, and what stands beside them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from eventful.models.weights.files import read_file

# Where training programs put the weights, and what they put beside them.
_STATES = ("model", "state_dict", "model_state", "model_state_dict")
_BESIDE = {
    "optimizer": "state of the optimizer",
    "optimizer_state": "state of the optimizer",
    "optimizer_states": "state of the optimizer",
    "optimizer_state_dict": "state of the optimizer",
    "scheduler": "state of the learning rate",
    "lr_schedulers": "state of the learning rate",
    "trainer": "state of the training loop",
    "scaler": "state of mixed precision",
    "model_ema_state": "averaged weights, beside those that are used",
}
_WRAPPERS = ("module.", "_orig_mod.", "model.")  # of DistributedDataParallel, compile, Lightning


@dataclass(frozen=True)
class Checkpoint:
    """The weights in a file.

    Args:
        path: The file.
        state: Name to tensor; an entry that is no tensor is kept as it is.
        prefix: What all names began with, and was taken off.
        beside: What else the file held, and why it is left out.
    """

    path: Path
    state: dict[str, Any]
    prefix: str = ""
    beside: dict[str, str] = field(default_factory=dict)


def read_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a file of PyTorch, a pickle of arrays, or safetensors, without running code in it.

    The content decides which of them it is, not the name. The weights may be wrapped: in an entry
    "model", "state_dict", "model_state" or "model_state_dict", and in a prefix that all names
    share ("module.", "model.", "_orig_mod.").

    Args:
        path: The file.

    Returns:
        Its weights on the CPU.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is something else, damaged, holds code, or holds tensors in a place that is
            not known.
        ModuleNotFoundError: It is a safetensors file, and safetensors is not installed.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "model.pth")
        >>> torch.save({"model": {"module.weight": torch.ones(3)}, "iteration": 7}, path)
        >>> checkpoint = read_checkpoint(path)
        >>> checkpoint.state, checkpoint.prefix, checkpoint.beside
        ({'weight': tensor([1., 1., 1.])}, 'module.', {'iteration': 'holds no weights'})
    """
    path = Path(path)
    content = read_file(path)
    try:
        state, beside = _find_state(content, path)
    except RecursionError:
        raise ValueError(f"{path} is refused: something in it holds itself") from None
    state, prefix = _strip(state)
    return Checkpoint(path, {key: _tensor(value) for key, value in state.items()}, prefix, beside)


def _find_state(content: Any, path: Path) -> tuple[Mapping[str, Any], dict[str, str]]:
    """Unwrap the weights, and say of all else why it is left out."""
    if not isinstance(content, Mapping) or not all(isinstance(key, str) for key in content):
        raise ValueError(f"{path} holds a {type(content).__name__}, expected names and tensors")
    states = [name for name in _STATES if isinstance(content.get(name), Mapping)]
    if not states:
        return content, {}
    if len(states) > 1:
        raise ValueError(f"{path} holds weights in {' and in '.join(states)}; keep one of them")
    others = {key: value for key, value in content.items() if key != states[0]}
    reasons = {key: _why(key, value, path) for key, value in others.items()}
    state, beside = _find_state(content[states[0]], path)
    return state, reasons | beside


def _why(key: str, value: Any, path: Path) -> str:
    """Why an entry beside the weights is left out."""
    if key in _BESIDE:
        return _BESIDE[key]
    if _holds_tensors(value):
        raise ValueError(
            f"{path} holds tensors in {key!r} beside the weights, and what they are is not known; "
            f"take them out, or save the weights alone"
        )
    return "holds no weights"


def _holds_tensors(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(map(_holds_tensors, value.values()))
    if isinstance(value, list | tuple):
        return any(map(_holds_tensors, value))
    return isinstance(value, Tensor | np.ndarray)


def _strip(state: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """Take off what all names begin with."""
    stripped, prefix = dict(state), ""
    while wrapper := next((w for w in _WRAPPERS if _all_start(stripped, w)), ""):
        stripped = {key.removeprefix(wrapper): value for key, value in stripped.items()}
        prefix += wrapper
    return stripped, prefix


def _all_start(state: Mapping[str, Any], wrapper: str) -> bool:
    return bool(state) and all(key.startswith(wrapper) for key in state)


def _tensor(value: Any) -> Any:
    """An array as a tensor; what is neither stays what it is."""
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiub":
        return value
    native = value.dtype.newbyteorder("=")
    return torch.from_numpy(value.astype(native, order="C"))  # a copy, which may be written to
