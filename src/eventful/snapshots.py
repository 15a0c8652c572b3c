"""Snapshot files: what a stream remembers, tied to the model that it belongs to."""

from __future__ import annotations

import hashlib
import os
import pickle
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from eventful.blocks import EventfulBlock
from eventful.policies import KeepAll, Policy, Threshold, TopFraction, TopR, parse

_KEYS = {
    "digest",
    "model",
    "frame",
    "tensors",
    "turns",
    "policies",
    "histories",
    "grids",
    "state_dtype",
    "pending",
    "outside",
    "counts",
}


def describe(module: nn.Module, blocks: Mapping[str, EventfulBlock]) -> dict[str, Any]:
    """Describe what a snapshot depends on: options, shapes and a digest of all weights."""
    weights = module.state_dict()
    return {
        "options": {name: str(block.options) for name, block in blocks.items()},
        "shapes": {name: list(tensor.shape) for name, tensor in weights.items()},
        "weights": digest(weights.values()),
    }


def digest(tensors: Iterable[Tensor]) -> str:
    """Sum up the bytes of tensors, so that a change of any of them shows."""
    total = hashlib.blake2b(digest_size=16)
    for tensor in tensors:
        total.update(
            tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
        )
    return total.hexdigest()


def check(saved: Mapping[str, Any], model: Mapping[str, Any]) -> None:
    """Compare two descriptions.

    Raises:
        ValueError: They differ; the message says in what.
    """
    for part, what in (("options", "was converted otherwise"), ("shapes", "is another")):
        for name in saved[part].keys() | model[part].keys():
            theirs, ours = saved[part].get(name), model[part].get(name)
            if theirs != ours:
                raise ValueError(
                    f"the snapshot's model {what}: {name} is {theirs} there and {ours} here"
                )
    if saved["weights"] != model["weights"]:
        raise ValueError("the snapshot's model has the same shapes but other weights; load them")


def policy_texts(policies: Mapping[str, Policy]) -> dict[str, str]:
    """Write down the policies that have a text form."""
    known = (KeepAll, Threshold, TopFraction, TopR)
    return {name: str(policy) for name, policy in policies.items() if type(policy) in known}


def parse_policies(texts: Mapping[str, str]) -> dict[str, Policy]:
    """Read the policies back."""
    return {name: parse(text) for name, text in texts.items()}


def write(content: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Write a snapshot so that the file is either the old one or the whole new one."""
    folder = Path(path).parent
    handle, temporary = tempfile.mkstemp(dir=folder, prefix=Path(path).name, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            torch.save(dict(content), file)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def read(source: Mapping[str, Any] | str | os.PathLike[str]) -> Mapping[str, Any]:
    """Take a snapshot, or read it from a file without running any code in it.

    Raises:
        ValueError: It is not a snapshot.
    """
    if not isinstance(source, Mapping):
        source = _load(source)
    if not isinstance(source, Mapping) or set(source) != _KEYS:
        raise ValueError("this is not a snapshot that Stream.snapshot() has made")
    if digest(all_tensors(source["tensors"])) != source["digest"]:
        raise ValueError("the snapshot is damaged: its tensors are not those that were saved")
    return source


def all_tensors(tensors: Mapping[str, Mapping[str, Tensor]]) -> Iterator[Tensor]:
    """List the tensors of all blocks."""
    return (tensor for block in tensors.values() for tensor in block.values())


_DAMAGED = pickle.UnpicklingError, RuntimeError, EOFError, LookupError, AttributeError, TypeError
_DAMAGED += (ValueError,)


def _load(path: str | os.PathLike[str]) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except (*_DAMAGED, OSError) as error:
        raise ValueError(
            f"{os.fspath(path)} is refused: it is damaged, or holds code or objects that a "
            f"snapshot does not; write snapshots with Stream.snapshot(path)"
        ) from error
