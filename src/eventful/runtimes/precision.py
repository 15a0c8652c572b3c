"""The numbers that a runtime's graphs compute with."""

from __future__ import annotations

from typing import Literal

Precision = Literal["float32", "bfloat16", "int8"]
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16", "int8")

# How far outputs may be off PyTorch's, relative, on the first frame: some hundred roundings of
# float32; of the others, what is further off is of no use, whatever the reason.
LIMITS: dict[Precision, float] = {"float32": 1e-3, "bfloat16": 0.1, "int8": 0.5}


def precision_named(name: str) -> Precision:
    """The precision of a name.

    Raises:
        ValueError: There is none of this name.
    """
    for known in PRECISIONS:
        if name == known:
            return known
    raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {name!r}")
