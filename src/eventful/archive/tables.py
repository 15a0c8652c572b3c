"""The schema of an archive's rows, and the provenance that their files hold."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import pyarrow as pa
from pyarrow import parquet

ABOUT = b"eventful"  # the key of provenance in a file's metadata

FIELDS = (
    pa.field("video", pa.string(), nullable=False),
    pa.field("segment", pa.int32(), nullable=False),
    pa.field("frame", pa.int64(), nullable=False),
    pa.field("time", pa.float64(), nullable=False),
    pa.field("time_numerator", pa.int64(), nullable=False),
    pa.field("time_denominator", pa.int64(), nullable=False),
    pa.field("kind", pa.string(), nullable=False),
    pa.field("reason", pa.string(), nullable=False),
    pa.field("scene", pa.int32(), nullable=False),
    pa.field("tokens", pa.int32(), nullable=False),
    pa.field("estimated_error", pa.float32()),
)


def schema(types: Mapping[str, pa.DataType], about: Mapping[str, Any]) -> pa.Schema:
    """The schema of rows.

    Args:
        types: The columns of outputs.
        about: Provenance, in what JSON can hold.

    Raises:
        ValueError: A column of outputs has the name of another.
    """
    taken = {field.name for field in FIELDS}
    if taken & types.keys():
        raise ValueError(f"{', '.join(taken & types.keys())} is taken; name the column otherwise")
    fields = [*FIELDS, *(pa.field(name, kind) for name, kind in types.items())]
    return pa.schema(fields, metadata={ABOUT: json.dumps(about).encode()})


def about(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The provenance in the metadata of a Parquet file of an archive.

    Raises:
        ValueError: It has none.
    """
    metadata = parquet.read_schema(path).metadata or {}
    if ABOUT not in metadata:
        raise ValueError(f"{os.fspath(path)} is no file of an archive: it has no {ABOUT.decode()}")
    return json.loads(metadata[ABOUT])


def time_values(time: Fraction) -> dict[str, Any]:
    """The columns of an exact time in seconds.

    Example:
        >>> time_values(Fraction(1001, 30000))["time_denominator"]
        30000
    """
    return {
        "time": float(time),
        "time_numerator": time.numerator,
        "time_denominator": time.denominator,
    }
