"""What is kept of a model's output, frame by frame: heads, networks with heads, rows in Parquet.

Archives and live cameras write the same columns.
"""

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
    "Shown",
    "demo_network",
    "token_network",
]
