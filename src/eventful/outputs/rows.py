"""Rows as Parquet: a file that is written piece by piece and appears whole."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, final

import numpy as np
import pyarrow as pa
from pyarrow import parquet

GROUP_BYTES = 32 << 20  # of values, in a row group
GROUP_ROWS = 5000


class OutputError(OSError):
    """A folder of outputs cannot be written to, such as on a full disk.

    Example:
        >>> issubclass(OutputError, OSError)
        True
    """


def to_array(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """Values of a column as an Arrow array, embeddings without a Python object for each number.

    Args:
        values: (n,) arrays for a fixed-size list of n, (m, n) for a list of them; else what Arrow
            takes.
        kind: The column's type.

    Example:
        >>> to_array([np.ones(2, np.float16)], pa.list_(pa.float16(), 2)).to_pylist()
        [[1.0, 1.0]]
    """
    if pa.types.is_fixed_size_list(kind):
        return _fixed(np.stack(values), kind)
    if pa.types.is_list(kind) and pa.types.is_fixed_size_list(kind.value_type):
        ends = np.cumsum([0, *map(len, values)], dtype=np.int32)
        inner = _fixed(np.concatenate(values), kind.value_type)
        return pa.ListArray.from_arrays(pa.array(ends), inner, type=kind)
    return pa.array(values, kind)


def _fixed(values: np.ndarray, kind: Any) -> pa.Array:
    if values.shape[1:] != (kind.list_size,):
        raise ValueError(f"expected rows of {kind.list_size} numbers, got {values.shape[1:]}")
    flat = pa.array(np.ascontiguousarray(values).ravel(), kind.value_type)
    return pa.FixedSizeListArray.from_arrays(flat, type=kind)


def _bytes(values: Mapping[str, Any]) -> int:
    return sum(getattr(value, "nbytes", 8) for value in values.values())


@final
class Rows:
    """A Parquet file that appears under its name when all its rows are written.

    Memory stays that of one row group. Use it in a `with` block; an error leaves nothing behind.

    Args:
        path: The file.
        schema: Its schema.

    Raises:
        OutputError: It cannot be written, such as on a full disk.

    Example:
        >>> import tempfile
        >>> about = {"model": "demo"}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with Rows(Path(folder, "a.parquet"), pa.schema({"x": pa.int32()})) as rows:
        ...         rows.add({"x": 3})
        ...     parquet.read_table(f"{folder}/a.parquet").to_pylist()
        [{'x': 3}]
    """

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._path, self._schema = path, schema
        self._part = path.with_name(f".{path.name}.{os.getpid()}.part")
        self._rows: list[dict[str, Any]] = []
        self._held = 0
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._part.open("wb")
            self._writer = parquet.ParquetWriter(self._file, schema, compression="zstd")

    def add(self, row: dict[str, Any]) -> None:
        """Add a row."""
        self._rows.append(row)
        self._held += _bytes(row)
        if self._held >= GROUP_BYTES or len(self._rows) >= GROUP_ROWS:
            self._flush()

    def _flush(self) -> None:
        columns = [
            to_array([row[field.name] for row in self._rows], field.type) for field in self._schema
        ]
        with writing(self._path):
            self._writer.write_table(pa.table(columns, schema=self._schema))
        self._rows, self._held = [], 0

    def __enter__(self) -> Rows:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                if self._rows:
                    self._flush()
                with writing(self._path):
                    self._writer.close()
                    self._file.flush()
                    os.fsync(self._file.fileno())
                    self._file.close()
                    os.replace(self._part, self._path)
        finally:
            self._abandon()

    def _abandon(self) -> None:
        """Leave nothing of a file that is not whole."""
        if not self._file.closed:
            for close in (self._writer.close, self._file.close):
                try:
                    close()
                except (OSError, pa.ArrowException):
                    continue  # the disk is full still
        self._part.unlink(missing_ok=True)


@final
class writing:  # noqa: N801 - reads as a statement
    """Errors of the system within are the folder's, not a video's.

    Args:
        path: What is written.

    Raises:
        OutputError: In place of any other `OSError`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, OSError):
            why = error.strerror or str(error)
            raise OutputError(
                error.errno,
                f"cannot write {self._path}: {why}; make room and run the same command again, "
                f"which goes on where this one ended",
            ) from error
