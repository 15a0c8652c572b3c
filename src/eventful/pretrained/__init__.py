"""Models of transformers from a folder or a hub, on one's own video, beside their dense selves.

model = load("hf:path/or/name", "depth")      # the model, its processor, and what it gives
report = compare(model, frames, policies)     # dense and eventful, side by side
"""

from eventful.pretrained.compare import Compared, compare
from eventful.pretrained.inputs import Extras
from eventful.pretrained.loading import Loaded, load, source
from eventful.pretrained.tasks import TASKS

__all__ = ["TASKS", "Compared", "Extras", "Loaded", "compare", "load", "source"]
