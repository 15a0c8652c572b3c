"""A tiny network for archives, and an archive in a process of its own: VIDEOS OUT COSTS."""

import json
import os
import sys
import time
from functools import partial
from pathlib import Path
from typing import ClassVar

import torch

from eventful import archive
from tests.evaluation import annotated_data as data


def network(height, width, pause=0.0):
    """Embeddings of a whole frame and of its patches, and a mask; `pause` makes frames slow."""
    torch.manual_seed(0)  # weights that no seed sets would differ from worker to worker
    whole = data.network((height, width))

    def tokens(output):
        time.sleep(pause)
        return output[:, 1:]

    def mask(output):
        return whole.decoder(output[:, 1:], (height // 14, width // 14))

    heads = archive.Pooled(tokens, 24), archive.Patches(tokens, 24, 14), archive.Mask(mask)
    return archive.Network(whole.backbone, heads, method="forward_features")


def slow_network(height, width):
    """The same, slow enough to be disturbed."""
    return network(height, width, pause=0.05)


def dying(height, width):
    """A network whose worker dies on frames of the upright video."""
    made = network(height, width)

    class Dies(archive.Head):
        types: ClassVar = {}

        def values(self, output, shown):
            if shown.native == (112, 80):
                os._exit(3)
            return {}

    return archive.Network(made.model, (*made.heads, Dies()), made.method)


if __name__ == "__main__":
    torch.set_num_threads(1)
    videos, out, options = sys.argv[1:]
    archive.run([videos], Path(out), partial(network, pause=0.005), **json.loads(options))
