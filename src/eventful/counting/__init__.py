"""Operation counts by the paper's rules, from outside the blocks."""

from eventful.counting.observer import Observer, outside
from eventful.counting.operations import (
    BlockSize,
    Operations,
    block_operations,
    chosen_operations,
    dense_operations,
    frame_operations,
    original_size,
    state_values,
)

__all__ = [
    "BlockSize",
    "Observer",
    "Operations",
    "block_operations",
    "chosen_operations",
    "dense_operations",
    "frame_operations",
    "original_size",
    "outside",
    "state_values",
]
