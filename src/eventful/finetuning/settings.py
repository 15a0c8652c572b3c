"""How the temporal model is trained."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Loss = Literal["logits", "probabilities"]


@dataclass(frozen=True)
class Settings:
    """Settings of `finetune`: AdamW at a constant rate, cross entropy on the mean over views.

    Args:
        epochs: Passes over the cache.
        learning_rate: Of AdamW.
        batch_size: Videos a step.
        weight_decay: Of AdamW.
        dropout: Share of features dropped in front of the classifier.
        loss: What cross entropy takes: "logits", or "probabilities" as in the code that the paper
            published, which puts a softmax in front of a cross entropy that has its own. Gradients
            of videos that are far off are smaller then.
        seed: Of shuffling and dropout; each epoch draws from its own.
        check: Videos whose loss has to fall over the first epoch, see `finetune`.

    Raises:
        ValueError: A number is out of its range.

    Example:
        >>> from dataclasses import replace
        >>> replace(EPIC, epochs=1).learning_rate
        1e-05
    """

    epochs: int
    learning_rate: float
    batch_size: int
    weight_decay: float = 0.05
    dropout: float = 0.5
    loss: Loss = "logits"
    seed: int = 0
    check: int = 256

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "check"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"learning_rate must be above 0, got {self.learning_rate}")
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(f"weight_decay must be at least 0, got {self.weight_decay}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be from 0 to below 1, got {self.dropout}")
        if self.loss not in ("logits", "probabilities"):
            raise ValueError(f"loss must be 'logits' or 'probabilities', got {self.loss!r}")


EPIC = Settings(epochs=5, learning_rate=1e-5, batch_size=8, loss="probabilities")
KINETICS = Settings(epochs=10, learning_rate=2e-6, batch_size=16, loss="probabilities")
PRESETS = {"epic": EPIC, "kinetics": KINETICS}
