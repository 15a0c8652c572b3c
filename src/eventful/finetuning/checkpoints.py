"""Checkpoints of a training run: weights after each epoch, and what is needed to go on."""

from __future__ import annotations

import os
import pickle
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from eventful.finetuning.files import read_tensors, write_tensors, write_whole
from eventful.finetuning.settings import Settings
from eventful.models.vivit import ViViT

_STATE = "training.pt"
_PARTS = ("temporal.", "head.")
_DAMAGED = pickle.UnpicklingError, RuntimeError, EOFError, LookupError, AttributeError, TypeError
_DAMAGED += (ValueError,)


@dataclass
class State:
    """Where a run is.

    Attributes:
        epoch: Epochs done.
        history: What each of them gave.
        start: Loss of the checked videos before the first one.
        optimizer: The optimizer's state dict.
    """

    epoch: int
    history: list[dict[str, Any]]
    start: float
    optimizer: dict[str, Any]


def load_finetuned(model: ViViT, path: str | os.PathLike[str]) -> ViViT:
    """Put the weights of a checkpoint `epoch-<number>.safetensors` into a model, in place.

    Args:
        model: Of the same size; its spatial model stays as it is.
        path: The file.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is damaged, or of another model.

    Example:
        >>> import tempfile
        >>> options = {"classes": 2, "img_size": 32, "frames": 4, "dim": 24, "heads": 3, "depth": 2}
        >>> path = Path(tempfile.mkdtemp(), "epoch-001.safetensors")
        >>> save_weights(ViViT(**options), path)
        >>> _ = load_finetuned(ViViT(**options), path)
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint {path}")
    weights, _ = read_tensors(path)
    own = _own(model)
    wrong = list(own.keys() ^ weights.keys())
    wrong += [key for key in own.keys() & weights.keys() if own[key].shape != weights[key].shape]
    if wrong:
        raise ValueError(
            f"{path} is of another model: {', '.join(sorted(wrong)[:3])} (of {len(wrong)}) do not "
            f"fit; it must hold temporal.* and head.* of a model of this size"
        )
    model.load_state_dict(weights, strict=False)
    return model


def save_weights(model: ViViT, path: Path) -> None:
    """Write the temporal model's and the classifier's weights."""
    write_tensors(_own(model), path)


def weights_path(folder: Path, epoch: int) -> Path:
    """Where the weights after an epoch are, or those that training started from (epoch 0)."""
    return folder / (f"epoch-{epoch:03}.safetensors" if epoch else "start.safetensors")


def save(model: ViViT, state: State, settings: Settings, fingerprint: str, folder: Path) -> None:
    """Write a checkpoint. The weights come first: the state names only what is complete."""
    save_weights(model, weights_path(folder, state.epoch))
    content = vars(state) | {"settings": asdict(settings), "cache": fingerprint}
    write_whole(folder / _STATE, lambda temporary: torch.save(content, temporary))


def resume(model: ViViT, settings: Settings, fingerprint: str, folder: Path) -> State | None:
    """Read the last checkpoint and put its weights into the model; None if there is none.

    Where more epochs are done than the settings ask for, this is the checkpoint of their number.

    Raises:
        ValueError: It is damaged, or of other settings, or of another cache.
    """
    path = folder / _STATE
    if not path.exists():
        return None
    content = _read(path)
    theirs, ours = (dict(x, epochs=None) for x in (content["settings"], asdict(settings)))
    differ = [name for name in ours if ours[name] != theirs.get(name)]
    if differ:
        name = differ[0]
        raise ValueError(
            f"{folder} holds a run with {name}={theirs.get(name)}, and this one has "
            f"{name}={ours[name]}; use another folder"
        )
    if content["cache"] != fingerprint:
        raise ValueError(f"{folder} holds a run on another cache; use another folder")
    epoch = min(content["epoch"], settings.epochs)
    load_finetuned(model, weights_path(folder, epoch))
    return State(epoch, content["history"][:epoch], content["start"], content["optimizer"])


def _own(model: ViViT) -> dict[str, torch.Tensor]:
    return {k: v for k, v in model.state_dict().items() if k.startswith(_PARTS)}


def _read(path: Path) -> dict[str, Any]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about what is refused below
            content = torch.load(path, map_location="cpu", weights_only=True)
        if content.keys() >= {"epoch", "history", "start", "optimizer", "settings", "cache"}:
            return content
    except _DAMAGED as error:
        raise ValueError(
            f"{path} is refused: it is damaged or holds more than tensors and numbers; delete it "
            f"to start again"
        ) from error
    raise ValueError(f"{path} is no state of a training run; use another folder")
