"""Values of heads and of boards as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

MOST = 4_096  # numbers of an array that are written out


def to_json(value: Any) -> bytes:
    """JSON of the value, in which NaN and infinity are null.

    Arrays of more than 4,096 numbers are given by their shape alone, and bytes by their number.

    Example:
        >>> to_json({"box": np.arange(3), "score": float("nan")})
        b'{"box":[0,1,2],"score":null}'
    """
    return json.dumps(_plain(value), separators=(",", ":"), allow_nan=False).encode()


def _plain(value: Any) -> Any:
    plain = value
    if isinstance(value, float):
        plain = value if math.isfinite(value) else None
    elif isinstance(value, Mapping):
        plain = {str(key): _plain(each) for key, each in value.items()}
    elif isinstance(value, list | tuple):
        plain = [_plain(each) for each in value]
    elif isinstance(value, bytes):
        plain = {"omitted": "bytes", "shape": [len(value)]}
    elif hasattr(value, "__array__"):  # of NumPy and PyTorch, scalars too
        array = np.asarray(value)
        large = {"omitted": str(array.dtype), "shape": list(array.shape)}
        plain = large if array.size > MOST else _plain(array.tolist())
    elif value is not None and not isinstance(value, bool | int | str):
        plain = str(value)
    return plain
