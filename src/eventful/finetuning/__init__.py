"""Fine-tuning of ViViT's temporal model on what an eventful spatial model gives it.

The spatial model is frozen, so it runs once over the videos and its class tokens are kept on disk
(`cache_spatial_outputs`); the temporal model and the classifier are then trained on these
(`finetune`), which is cheap. This is how the paper wins back accuracy on EPIC-Kitchens and
Kinetics.
"""

from eventful.finetuning.cache import CacheProgress, SpatialCache, cache_spatial_outputs
from eventful.finetuning.checkpoints import load_finetuned
from eventful.finetuning.evaluation import Accuracy, evaluate
from eventful.finetuning.settings import EPIC, KINETICS, PRESETS, Settings
from eventful.finetuning.shapes import MovingShapes
from eventful.finetuning.training import Epoch, LossError, Step, finetune

__all__ = [
    "EPIC",
    "KINETICS",
    "PRESETS",
    "Accuracy",
    "CacheProgress",
    "Epoch",
    "LossError",
    "MovingShapes",
    "Settings",
    "SpatialCache",
    "Step",
    "cache_spatial_outputs",
    "evaluate",
    "finetune",
    "load_finetuned",
]
