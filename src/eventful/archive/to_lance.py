"""The rows of an archive as one Lance data set."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pyarrow as pa
from pyarrow import dataset

from eventful.outputs.rows import writing

ROWS = 1000  # of a batch


def to_lance(folder: str | os.PathLike[str]) -> Path:
    """Write all rows of an archive's Parquet files to `frames.lance` beside them.

    Memory stays that of a few batches. The data set appears whole, in the place of an older one.

    Args:
        folder: The archive.

    Returns:
        Where the data set is.

    Raises:
        ModuleNotFoundError: Lance is not installed; the message has the pip line.
        OutputError: It cannot be written.
    """
    try:
        import lance  # noqa: PLC0415  # pyright: ignore[reportMissingImports] - in no extra
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "Lance is not installed; pip install pylance", name="lance"
        ) from error
    out, part = Path(folder, "frames.lance"), Path(folder, ".frames.lance.part")
    found = dataset.dataset(sorted(map(str, Path(folder, "frames").glob("*/*.parquet"))))
    batches = found.scanner(batch_size=ROWS, batch_readahead=1, fragment_readahead=1)
    reader = pa.RecordBatchReader.from_batches(found.schema, batches.to_batches())
    with writing(out):
        shutil.rmtree(part, ignore_errors=True)
        lance.write_dataset(reader, str(part))
        shutil.rmtree(out, ignore_errors=True)
        os.replace(part, out)
    return out
