"""Where results go: lines of JSON, or Parquet files that each appear whole."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, ClassVar, final

import numpy as np
import pyarrow as pa

from eventful.live.board import Result
from eventful.outputs.rows import Rows, writing

FIELDS = (
    pa.field("camera", pa.string(), nullable=False),
    pa.field("frame", pa.int64(), nullable=False),
    pa.field("time", pa.float64(), nullable=False),
    pa.field("arrived", pa.float64(), nullable=False),
    pa.field("kind", pa.string(), nullable=False),
    pa.field("estimated_error", pa.float32()),
    pa.field("latency_ms", pa.float32(), nullable=False),
)


class Output(ABC):
    """Takes the results of all cameras, in one thread."""

    @abstractmethod
    def write(self, result: Result, types: Mapping[str, pa.DataType]) -> None:
        """Take a result.

        Args:
            result: The result.
            types: Of its values, by column.

        Raises:
            OutputError: It cannot be written, such as on a full disk.
        """

    @abstractmethod
    def close(self) -> None:
        """Finish what is open."""


def row(result: Result) -> dict[str, Any]:
    """A result as one level of columns."""
    return {
        "camera": result.camera,
        "frame": result.frame,
        "time": result.time,
        "arrived": result.arrived,
        "kind": result.kind,
        "estimated_error": result.estimate,
        "latency_ms": result.latency_ms,
        **result.values,
    }


@final
class JsonLines(Output):
    """A line of JSON for each result.

    Args:
        path: A file, to which lines are added, after one that a crash cut short too; None for
            standard output.

    Raises:
        OutputError: It cannot be written.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path or Path("standard output")
        with writing(self._path):
            self._file = sys.stdout if path is None else path.open("a", encoding="utf-8")
            if path is not None and _cut_short(path):
                self._file.write("\n")

    def write(self, result: Result, types: Mapping[str, pa.DataType]) -> None:
        """Write a line."""
        with writing(self._path):
            line = {name: _plain(value) for name, value in row(result).items()}
            self._file.write(json.dumps(line, allow_nan=False) + "\n")
            self._file.flush()

    def close(self) -> None:
        """Close the file."""
        if self._file is not sys.stdout:
            with writing(self._path):
                self._file.close()


def _cut_short(path: Path) -> bool:
    """Whether a file ends within a line."""
    if not path.is_file() or path.stat().st_size == 0:
        return False
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"


def _plain(value: Any) -> Any:
    """What JSON can hold of a value; null where a number is none or infinite."""
    if isinstance(value, np.ndarray) and value.dtype.kind == "f":
        value = np.round(value.astype(np.float64), 6)
        finite = np.isfinite(value)
        value = value if finite.all() else np.where(finite, value, None)
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and not math.isfinite(value) else value


@final
class ParquetFolder(Output):
    """Parquet files in a folder, a new one every so often; each appears when it is whole.

    Args:
        folder: The folder.
        seconds: Of results in a file, at most. So much is lost if the machine fails.
        about: Provenance for the files' metadata.

    Raises:
        OutputError: It cannot be written.
    """

    ROWS: ClassVar[int] = 100_000  # of a file, at most

    def __init__(self, folder: Path, seconds: float = 300.0, about: Any = None) -> None:
        self._folder, self._seconds, self._about = folder, seconds, about
        self._rows: Rows | None = None
        self._schema: pa.Schema | None = None
        self._count, self._begun, self._files = 0, 0.0, 0
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)

    def write(self, result: Result, types: Mapping[str, pa.DataType]) -> None:
        """Add a row."""
        schema = pa.schema(
            [*FIELDS, *(pa.field(name, kind) for name, kind in types.items())],
            metadata={b"eventful": json.dumps(self._about or {}).encode()},
        )
        old = time.monotonic() - self._begun > self._seconds or self._count >= self.ROWS
        if self._rows is not None and (old or schema != self._schema):
            self.close()
        if self._rows is None:
            now = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S")
            name = f"{now}-{os.getpid()}-{self._files:04d}.parquet"  # none takes another's place
            self._rows, self._schema = Rows(self._folder / name, schema), schema
            self._count, self._begun, self._files = 0, time.monotonic(), self._files + 1
        self._rows.add(row(result))
        self._count += 1

    def close(self) -> None:
        """Finish the file that is open."""
        rows, self._rows = self._rows, None
        if rows is not None:
            rows.__exit__(None, None, None)
