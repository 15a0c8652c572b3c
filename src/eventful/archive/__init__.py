"""Archives: a network over many videos, into Parquet files that resume exactly.

`run` does it all; `demo_network` and `token_network` are networks to run, and `Network` with its
heads makes others. Needs the extra `archive`; the engine "ray" needs the extra `ray`.
"""

try:
    import pyarrow as _pyarrow  # noqa: F401
except ImportError as error:
    raise ImportError(
        "eventful.archive needs PyArrow; pip install 'eventful-transformers[archive]'"
    ) from error

from eventful.archive.problems import Problem
from eventful.archive.run import Progress, Report, run
from eventful.archive.settings import Settings
from eventful.archive.sources import Source, find
from eventful.archive.tables import about
from eventful.outputs.heads import Boxes, Head, Mask, Patches, Pooled, Shown
from eventful.outputs.networks import Network, demo_network, token_network
from eventful.outputs.rows import OutputError

__all__ = [
    "Boxes",
    "Head",
    "Mask",
    "Network",
    "OutputError",
    "Patches",
    "Pooled",
    "Problem",
    "Progress",
    "Report",
    "Settings",
    "Shown",
    "Source",
    "about",
    "demo_network",
    "find",
    "run",
    "token_network",
]
