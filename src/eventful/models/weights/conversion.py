"""Converts published checkpoints into safetensors files, and loads these."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from eventful.models.packaged import optional
from eventful.models.weights.checkpoint import Checkpoint, read_checkpoint
from eventful.models.weights.files import is_safetensors, read_metadata, read_safetensors, sha256
from eventful.models.weights.kinds import KINDS, Kind, find_kind, shapes_of
from eventful.models.weights.renaming import Fitted, Rename, Shapes, fit

FORMAT = "1"  # of the files that are written
_OUR_NAMES = [Rename("{rest}", "{rest}")]


@dataclass(frozen=True)
class Conversion:
    """What became of a checkpoint.

    Args:
        kind: Its kind.
        source: Its file.
        source_sha256: Of that file.
        target: The file that was written.
        used: Our names, and the checkpoint's.
        dropped: What the checkpoint held beside them, and why it was left out.
        prefix: What all its names began with, and was taken off.
        parameters: Numbers in the weights that were written.
    """

    kind: str
    source: Path
    source_sha256: str
    target: Path
    used: dict[str, str]
    dropped: dict[str, str]
    prefix: str
    parameters: int


def convert_checkpoint(
    kind: str,
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    model: nn.Module | None = None,
) -> Conversion:
    """Convert a published checkpoint into a safetensors file that `load` takes.

    No code in the checkpoint runs. Every name in it is used or left out for a stated reason. The
    file's metadata say what it was made from; it appears whole or not at all.

    Args:
        kind: A key of `KINDS`.
        source: The checkpoint: a `.pkl`, `.pth` or `.pyth` as published, or safetensors with the
            same names.
        target: Where to write, a name that ends in `.safetensors`.
        model: What the weights have to fit [the preset].

    Returns:
        Which names were used and which were left out.

    Raises:
        FileNotFoundError: There is no such checkpoint, or no such folder to write to.
        ValueError: The kind is unknown, the name to write to does not end in `.safetensors` or is
            the checkpoint's, or the checkpoint is damaged, holds code, or does not fit; the
            message lists what is missing, left over or of another shape, with near names.
        ModuleNotFoundError: safetensors is not installed.

    Example:
        >>> import tempfile, torch
        >>> from eventful.models.weights import convert_checkpoint
        >>> source = Path(tempfile.mkdtemp(), "model.pth")
        >>> torch.save({"model": {"backbone.net.pos_embd": torch.zeros(1, 197, 768)}}, source)
        >>> convert_checkpoint("vitdet_b", source, source.with_name("out.safetensors"))
        Traceback (most recent call last):
            ...
        ValueError: expected a kind out of ..., got 'vitdet_b'; do you mean 'vitdet_b_vid'?
    """
    found, source, target = find_kind(kind), Path(source), Path(target)
    _check_target(target, source)
    checkpoint = read_checkpoint(source)
    shapes = found.shapes() if model is None else shapes_of(model)
    fitted = _fit(found, checkpoint, shapes, others=model is None)
    digest = sha256(source)
    metadata = {"format": "pt", "eventful_weights": FORMAT, "kind": kind, "source": source.name}
    _write(fitted.weights, target, metadata | {"source_sha256": digest})
    return Conversion(
        kind=kind,
        source=source,
        source_sha256=digest,
        target=target,
        used=fitted.used,
        dropped=fitted.dropped | checkpoint.beside,
        prefix=checkpoint.prefix,
        parameters=sum(weight.numel() for weight in fitted.weights.values()),
    )


def load(model: nn.Module, path: str | os.PathLike[str]) -> nn.Module:
    """Load weights that `convert_checkpoint` has written, all of them and no others.

    Args:
        model: What they are for, such as `eventful.models.vitdet_b_vid()`; changed in place. If
            anything is wrong it stays as it was.
        path: The safetensors file.

    Returns:
        The model.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is another kind of file, damaged, or does not fit; the message lists what is
            missing, left over or of another shape, with near names.
        ModuleNotFoundError: safetensors is not installed.

    Example:
        >>> import tempfile
        >>> from safetensors.torch import save_file
        >>> from eventful.models.weights import load
        >>> path = Path(tempfile.mkdtemp(), "model.safetensors")
        >>> save_file(nn.Linear(3, 5).state_dict(), path)
        >>> load(nn.Linear(3, 5), path)
        Linear(in_features=3, out_features=5, bias=True)
    """
    path = Path(path)
    if not is_safetensors(path):
        raise ValueError(f"{path} is no safetensors file; run: eventful weights KIND {path} OUT")
    metadata = read_metadata(path)
    if metadata.get("eventful_weights", FORMAT) != FORMAT:
        raise ValueError(
            f"{path} has version {metadata['eventful_weights']} of the format, expected {FORMAT}; "
            f"convert the checkpoint again"
        )
    try:
        fitted = fit(read_safetensors(path), shapes_of(model), _OUR_NAMES)
    except ValueError as error:
        made_for = f", made for {metadata['kind']}," if "kind" in metadata else ""
        name = type(model).__name__
        raise ValueError(f"{path}{made_for} does not fit this {name}: {error}") from None
    model.load_state_dict(fitted.weights)
    return model


def _check_target(target: Path, source: Path) -> None:
    if target.suffix != ".safetensors":
        raise ValueError(f"expected a name to write to that ends in .safetensors, got {target}")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {target.parent} to write {target.name} to")
    if target.resolve() == source.resolve():
        raise ValueError(f"expected another name to write to than that of the checkpoint, {source}")


def _fit(kind: Kind, checkpoint: Checkpoint, shapes: Shapes, others: bool) -> Fitted:
    """Rename; where it does not fit, say so, and whether it fits another kind."""
    try:
        return fit(checkpoint.state, shapes, kind.rules, kind.drops)
    except ValueError as error:
        text = f"{checkpoint.path} does not fit {kind.name} ({kind.source}): {error}"
        fitting = [other.name for other in KINDS.values() if others and _fits(other, checkpoint)]
        hint = f"\nit fits {fitting[0]}" if fitting else ""
        raise ValueError(text + hint) from None


def _fits(kind: Kind, checkpoint: Checkpoint) -> bool:
    try:
        fit(checkpoint.state, kind.shapes(), kind.rules, kind.drops)
    except (ValueError, ImportError):  # the library of another kind's model may be missing
        return False
    return True


def _write(weights: Mapping[str, Tensor], target: Path, metadata: dict[str, str]) -> None:
    """Write a file so that it is either the old one or the whole new one."""
    save: Any = optional("safetensors.torch").save_file
    temporary = target.with_name(f".{target.name}.{os.getpid()}.part")
    apart = {name: weight.clone() for name, weight in weights.items()}  # no two share memory
    try:
        save(apart, temporary, metadata=metadata)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
