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

from eventful.block import bindings
from eventful.block.bindings import Blocks, binding
from eventful.block.state import BlockState
from eventful.policies import FramePolicy, KeepAll, Policy, Threshold, TopFraction, TopR, parse
from eventful.policies.text import read_token_policy

_KEYS = {"model", "frame", "engine", "pending", "state_dtype", "outside", "counts"}


def describe(module: nn.Module, blocks: Blocks) -> dict[str, Any]:
    """Describe what a snapshot depends on: options, shapes and a digest of all weights."""
    weights = module.state_dict()
    return {
        "options": {name: str(block.options) for name, block in blocks.items()},
        "shapes": {name: list(tensor.shape) for name, tensor in weights.items()},
        "weights": digest(weights.values()),
    }


def capture(blocks: Blocks) -> dict[str, Any]:
    """Copy out what the blocks remember, with its digest."""
    states = {name: binding(block).state for name, block in blocks.items()}
    tensors = {
        name: {key: tensor.clone() for key, tensor in state.tensors().items()}
        for name, state in states.items()
    }
    return {
        "tensors": tensors,
        "turns": {name: int(s.attention.turn) for name, s in states.items() if s.attention},
        "policies": policy_texts(bindings.policies(blocks)),
        "grids": {name: binding(block).grid for name, block in blocks.items()},
        "digest": digest(all_tensors(tensors)),
    }


def copies(
    parts: Mapping[str, Mapping[str, Tensor]], device: torch.device | None = None
) -> dict[str, dict[str, Tensor]]:
    """Copy tensors; what is one tensor under several names stays one."""
    made: dict[int, Tensor] = {}
    for tensor in all_tensors(parts):
        if id(tensor) not in made:
            made[id(tensor)] = tensor.to(device, copy=True)
    return {
        part: {key: made[id(tensor)] for key, tensor in named.items()}
        for part, named in parts.items()
    }


def packed(tree: Any, tensors: dict[str, Tensor]) -> Any:
    """Write a model's output down for a file, its tensors apart.

    Args:
        tree: Tensors and plain values in dictionaries, lists and tuples.
        tensors: Gets the tensors, by number.

    Returns:
        What `unpacked` takes; None if the output holds something else.

    Example:
        >>> tensors = {}
        >>> unpacked(packed({"a": (torch.ones(2), 3)}, tensors), tensors)
        {'a': (tensor([1., 1.]), 3)}
    """
    if isinstance(tree, Tensor):
        tensors[str(len(tensors))] = tree
        return ["tensor", str(len(tensors) - 1)]
    if type(tree) in (bool, int, float, str):
        return ["value", tree]
    if type(tree) not in (dict, list, tuple):
        return None
    values = tree.values() if isinstance(tree, dict) else tree
    parts = [packed(value, tensors) for value in values]
    keys = list(tree) if isinstance(tree, dict) else None
    return None if None in parts else [type(tree).__name__, parts, keys]


def unpacked(structure: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Read back what `packed` wrote down."""
    if structure is None or structure[0] in ("tensor", "value"):
        return structure and (tensors[structure[1]] if structure[0] == "tensor" else structure[1])
    kind, parts, keys = structure
    values = [unpacked(part, tensors) for part in parts]
    return dict(zip(keys, values, strict=True)) if kind == "dict" else _KINDS[kind](values)


_KINDS: Mapping[str, Any] = {"list": list, "tuple": tuple}


def states_in(content: Mapping[str, Any], device: torch.device) -> dict[str, BlockState]:
    """Build what `capture` copied out anew, on a device."""
    return {
        name: BlockState.from_tensors(
            {key: tensor.to(device, copy=True) for key, tensor in tensors.items()},
            content["turns"].get(name, 0),
        )
        for name, tensors in content["tensors"].items()
    }


def frame_of(size: tuple[Any, ...]) -> list[Any]:
    """Write down a frame's shape and dtype."""
    shape, dtype, _, inputs = size
    return [list(shape), str(dtype), dict(inputs)]


def size_in(content: Mapping[str, Any], device: torch.device) -> tuple[Any, ...]:
    """Read the frame's shape and dtype back, and put the device beside them."""
    shape, dtype, inputs = content["frame"]
    return tuple(shape), getattr(torch, dtype.removeprefix("torch.")), device, inputs


def frame_policy_in(engine: Mapping[str, Any]) -> FramePolicy | None:
    """Read the frame policy of a stream back; None if it ran under token policies."""
    if "schedule" not in engine:
        return None
    policy = parse(engine["policies"][""])
    assert isinstance(policy, FramePolicy)
    return policy


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


def check_state_dtype(content: Mapping[str, Any], ours: torch.dtype | None) -> None:
    """Compare what references and buffers are kept in.

    Raises:
        ValueError: It differs.
    """
    if content["state_dtype"] != str(ours):
        raise ValueError(
            f"the snapshot is of a stream with state_dtype={content['state_dtype']}, this one "
            f"has {ours}; load it into a stream with the same"
        )


def check_size(saved: tuple[Any, ...], ours: tuple[Any, ...] | None) -> None:
    """Compare the frames of a snapshot with those that a stream runs already, if any.

    Raises:
        ValueError: They differ.
    """
    if ours is not None and ours != saved:
        raise ValueError(
            f"the snapshot is of frames {saved}, this stream runs {ours}; load it into a new stream"
        )


def policy_texts(policies: Mapping[str, Policy]) -> dict[str, str]:
    """Write down the policies that have a text form."""
    known = (KeepAll, Threshold, TopFraction, TopR)
    return {name: str(policy) for name, policy in policies.items() if type(policy) in known}


def parse_policies(texts: Mapping[str, str]) -> dict[str, Policy]:
    """Read the policies back."""
    return {name: read_token_policy(text) for name, text in texts.items()}


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
    if digest(all_tensors(source["engine"]["tensors"])) != source["engine"]["digest"]:
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
