"""What the rest of a model reads of its blocks, noted whoever runs it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from eventful.block.block import eventful_blocks, tokens_of
from eventful.block.state import Frame
from eventful.block.work import ShapesError
from eventful.policies import Skip
from eventful.stream import Stream, compiled
from eventful.stream.bound import Bound
from eventful.stream.layout import Layout, reader_norm


class Taps:
    """Notes what blocks give to readers outside them.

    Args:
        model: A converted model.
        layout: How its blocks hang together.
        method: The method that runs.
    """

    def __init__(self, model: nn.Module, layout: Layout, method: str) -> None:
        self.layout = layout
        bound = Bound(model, method, Frame(*compiled.steps(False), None))
        self._norms = {name: reader_norm(bound, name) for name in layout.taps}
        self._blocks = eventful_blocks(model)
        self._last: dict[str, Tensor] = {}

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Note outputs, of the model and of streams that are made in here."""
        blocks = {block.name: block for block in self._blocks.values()}
        handles = [
            blocks[name].register_forward_hook(self._hook(name)) for name in self.layout.taps
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _hook(self, name: str) -> Callable[..., None]:
        def note(module: nn.Module, args: Any, output: Any) -> None:
            self._last[name] = tokens_of(output).detach()

        return note

    @torch.inference_mode()
    def read(self, before: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """What was read on the last frame: (tokens, dim) by tap, after the reader's norm.

        Args:
            before: What a stream showed before; it still does where no block ran.
        """
        found = {
            name: self._norms[name](x.flatten(0, -2)).float() for name, x in self._last.items()
        }
        self._last = {}
        return found or dict(before or {})

    def patches(self, read: Mapping[str, Tensor]) -> tuple[Tensor, tuple[int, int]]:
        """The patch tokens (patches, dim) of the last tap, and their grid."""
        tokens, layout = read[self.layout.taps[-1]], self.layout
        tokens = tokens[layout.prefix : len(tokens) - layout.suffix]
        height, width = layout.grid
        return tokens, layout.grid if height * width == len(tokens) else (1, len(tokens))


def error(shown: Mapping[str, Tensor], dense: Mapping[str, Tensor]) -> float:
    """||y - dense|| / ||dense|| (Frobenius), the largest of all taps.

    Example:
        >>> error({"a": torch.tensor([3.0, 5.0])}, {"a": torch.tensor([3.0, 4.0])})
        0.20000000298023224
    """
    off = [(shown[name] - dense[name]).norm() / dense[name].norm() for name in dense]
    return float(torch.stack(off).max())


def found(model: nn.Module, frame: Tensor, inputs: Mapping[str, Any], method: str) -> Layout:
    """How a converted model's blocks hang together, from one frame.

    Where the blocks are of several shapes the last block is the tap, and there is no grid (1, 0).

    Raises:
        ValueError: The model cannot run the frame, or a block is not its original.
    """
    stream = Stream(model, policy=Skip(2), scene_cuts=None, method=method)
    try:
        stream(frame, **inputs)
    except ShapesError:
        last = [*eventful_blocks(model).values()][-1]
        return Layout((1, 0), 0, (last.name,), frozenset())
    assert stream.layout is not None
    return stream.layout
