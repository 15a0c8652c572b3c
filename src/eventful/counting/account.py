"""A stream's account: what its frames take, beside what the unchanged model would."""

from __future__ import annotations

from collections.abc import Iterable

from eventful.block.bindings import Blocks, binding
from eventful.counting.operations import (
    BlockSize,
    Operations,
    chosen_operations,
    dense_operations,
    frame_operations,
    original_size,
)


class Account:
    """Counts the operations of a stream's blocks, whose sizes are known from the first frame on.

    Args:
        blocks: The stream's.

    Attributes:
        outside: Operations of a frame outside the blocks.
    """

    def __init__(self, blocks: Blocks) -> None:
        self._blocks = blocks
        self._sizes: dict[str, BlockSize] = {}
        self._originals: dict[str, Operations] = {}
        self._tokens = 0
        self.outside = 0

    def measure(self, tokens: int | None = None) -> None:
        """Read the sizes that operations depend on off the blocks, after their first frame.

        Args:
            tokens: N, where no gate or buffer says it.
        """
        self._sizes = {
            name: BlockSize.of(block, binding(block).grid) for name, block in self._blocks.items()
        }
        own, sampled = tokens or 0, False
        for name, block in self._blocks.items():
            if not sampled and tokens is None:
                own = binding(block).state.tokens
            sampled = sampled or block.options.sampling is not None
            size = original_size(block, binding(block).grid)
            self._originals[name] = dense_operations(size, own)
        self._tokens = own

    def used(self, flushed: Iterable[int]) -> Operations:
        """What the last run took, of which these batch rows were flushed."""
        used, rows = Operations(other=self.outside), list(flushed)
        for name, block in self._blocks.items():
            used += frame_operations(block, self._sizes[name], rows)
        return used

    def passed(self, active: int) -> Operations:
        """What the blocks take to compute so many tokens of one row, under a frame policy."""
        used = Operations()
        for name in self._blocks if active else ():
            whole = self._originals[name]
            size = self._sizes[name]
            used += (
                whole if active == self._tokens else chosen_operations(size, self._tokens, active)
            )
        return used

    def dense(self, batch: int) -> Operations:
        """What a frame of so many rows takes in the unchanged model."""
        dense = Operations(other=self.outside)
        for operations in self._originals.values():
            for _ in range(batch):
                dense += operations
        return dense
