"""Live cameras: one model over many of them, one budget, one page.

`Watcher` does it all; `eventful watch` is its command. Needs the extra `live`.
"""

try:
    import av as _av  # noqa: F401
    import pyarrow as _pyarrow  # noqa: F401
except ImportError as error:
    raise ImportError(
        "eventful.live needs PyAV and PyArrow; pip install 'eventful-transformers[live]'"
    ) from error

from eventful.live.board import Board, CameraStatus, Point, Result, Status
from eventful.live.feeds import Limits
from eventful.live.outputs import JsonLines, Output, ParquetFolder
from eventful.live.sources import Source
from eventful.live.watcher import Watcher

__all__ = [
    "Board",
    "CameraStatus",
    "JsonLines",
    "Limits",
    "Output",
    "ParquetFolder",
    "Point",
    "Result",
    "Source",
    "Status",
    "Watcher",
]
