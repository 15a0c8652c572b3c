"""Training of the temporal model and the classifier on cached spatial outputs."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import torch

from eventful.finetuning import checkpoints
from eventful.finetuning.cache import SpatialCache
from eventful.finetuning.checkpoints import State
from eventful.finetuning.evaluation import Accuracy, cross_entropy, evaluate, forward
from eventful.finetuning.settings import Settings
from eventful.models.vivit import ViViT

_ENOUGH = 50  # steps behind which the loss has to be lower


class LossError(ValueError):
    """The loss does not fall."""


class Step(NamedTuple):
    """How far training is.

    Attributes:
        epoch: Its number, from 1.
        step: Within the epoch, from 1.
        steps: In the epoch.
        loss: Mean over the step's videos, with dropout.
    """

    epoch: int
    step: int
    steps: int
    loss: float


@dataclass(frozen=True)
class Epoch:
    """What an epoch gave.

    Attributes:
        number: From 1.
        loss: Mean over its steps' videos, with dropout.
        checked_loss: Mean over the checked videos, behind the epoch and without dropout.
        top1: Of the validation cache, where there is one.
        top5: Likewise.
    """

    number: int
    loss: float
    checked_loss: float
    top1: float | None = None
    top5: float | None = None


def finetune(
    model: ViViT,
    cache: SpatialCache,
    settings: Settings,
    folder: str | os.PathLike[str],
    *,
    validation: SpatialCache | None = None,
    progress: Callable[[Step], None] | None = None,
) -> list[Epoch]:
    """Train the temporal model and the classifier, in place; the spatial model is left alone.

    After each epoch `epoch-<number>.safetensors` (weights, for `load_finetuned`) and `training.pt`
    (the rest) are written, and `start.safetensors` before the first. Where the folder holds a run
    already, its last checkpoint takes the place of the model's weights and training goes on from
    there, with the same result as if it had never stopped; more epochs may be asked for than
    before.

    Args:
        model: Put in eval mode at the end.
        cache: Of this model's spatial model.
        settings: Such as `EPIC` or `KINETICS`.
        folder: Where checkpoints go; made if it is not there.
        validation: Classified after each epoch.
        progress: Called after each step.

    Returns:
        What each epoch gave, those of earlier runs included.

    Raises:
        LossError: The loss is not finite, or is no lower after the first epoch than before it, on
            the same videos and without dropout. (Epochs of few steps count together up to 50.)
        ValueError: The cache is of another spatial model, or the folder holds another run.

    Example:
        >>> import tempfile, eventful
        >>> from eventful.finetuning import cache_spatial_outputs
        >>> _ = torch.manual_seed(0)
        >>> model = ViViT(classes=2, img_size=32, frames=4, dim=24, heads=3, depth=2).eval()
        >>> _ = eventful.convert(model.spatial, eventful.TopR(2), prefix="gated")
        >>> videos = [(f"video {i}", torch.rand(1, 4, 3, 32, 32), i) for i in range(2)]
        >>> cache = cache_spatial_outputs(model, videos, None, tempfile.mkdtemp())
        >>> settings = Settings(epochs=2, learning_rate=1e-4, batch_size=2)
        >>> [epoch.number for epoch in finetune(model, cache, settings, tempfile.mkdtemp())]
        [1, 2]
    """
    for held in (cache, validation):
        if held is not None:
            held.check_model(model)
    run = _Run(model, cache, settings, Path(folder))
    dropout, model.head_drop.p = model.head_drop.p, settings.dropout
    try:
        for number in range(run.state.epoch + 1, settings.epochs + 1):
            run.epoch(number, validation, progress)
    finally:
        model.head_drop.p = dropout
        model.eval()
    return [Epoch(**epoch) for epoch in run.state.history]


class _Run:
    """A training run, from its first or its last checkpoint on."""

    def __init__(self, model: ViViT, cache: SpatialCache, settings: Settings, folder: Path) -> None:
        self.model, self.cache, self.settings, self.folder = model, cache, settings, folder
        folder.mkdir(parents=True, exist_ok=True)
        self.fingerprint = cache.fingerprint()
        parameters = [*model.temporal.parameters(), *model.head.parameters()]
        self.optimizer = torch.optim.AdamW(
            parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        state = checkpoints.resume(model, settings, self.fingerprint, folder)
        if state is None:
            state = State(0, [], self._checked_loss(), self.optimizer.state_dict())
            self._save(state)
        self.optimizer.load_state_dict(state.optimizer)
        self.state = state

    def epoch(
        self,
        number: int,
        validation: SpatialCache | None,
        progress: Callable[[Step], None] | None,
    ) -> None:
        """Train for one epoch, check the loss, classify the validation videos, and write."""
        loss = self._train(number, progress)
        checked = self._checked_loss()
        if self._is_checked(number) and not checked < self.state.start:
            raise LossError(
                f"the loss does not fall: it was {self.state.start:.6g} at the start and is "
                f"{checked:.6g} after epoch {number}, over {self._checked_videos()} videos without "
                f"dropout. {_MEND}"
            )
        found: Accuracy | None = None
        if validation is not None:
            found = evaluate(self.model, validation, self.settings.batch_size)
        top1, top5 = (found.top1, found.top5) if found else (None, None)
        history = [*self.state.history, asdict(Epoch(number, loss, checked, top1, top5))]
        self.state = State(number, history, self.state.start, self.optimizer.state_dict())
        self._save(self.state)

    def _train(self, number: int, progress: Callable[[Step], None] | None) -> float:
        """Go through the cache once, in an order and with dropout that follow from the epoch."""
        settings, total = self.settings, 0.0
        self.model.temporal.train()
        self.model.head_drop.train()
        device = self.model.head.weight.device
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(settings.seed * 100_003 + number)
            batches = torch.randperm(len(self.cache)).split(settings.batch_size)
            for step, numbers in enumerate(batches, start=1):
                loss = self._step(numbers.tolist())
                if not math.isfinite(loss):
                    where = f"step {step} of epoch {number}"
                    raise LossError(f"the loss is {loss} at {where}. {_MEND}")
                total += loss * len(numbers)
                if progress is not None:
                    progress(Step(number, step, len(batches), loss))
        return total / len(self.cache)

    def _step(self, numbers: list[int]) -> float:
        logits, labels = forward(self.model, self.cache, numbers)
        loss = cross_entropy(logits, labels, self.settings.loss).mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def _is_checked(self, number: int) -> bool:
        """Whether this is the first epoch with enough steps behind it for the loss to show."""
        steps = -(-len(self.cache) // self.settings.batch_size)
        first = min(-(-_ENOUGH // steps), self.settings.epochs)
        return number == first

    def _checked_videos(self) -> int:
        return min(self.settings.check, len(self.cache))

    @torch.no_grad()
    def _checked_loss(self) -> float:
        """Mean loss of some videos, always the same, without dropout."""
        self.model.eval()
        generator = torch.Generator().manual_seed(self.settings.seed)
        order = torch.randperm(len(self.cache), generator=generator)[: self._checked_videos()]
        total = 0.0
        for numbers in order.split(self.settings.batch_size):
            logits, labels = forward(self.model, self.cache, numbers.tolist())
            total += cross_entropy(logits, labels, self.settings.loss).sum().item()
        return total / len(order)

    def _save(self, state: State) -> None:
        checkpoints.save(self.model, state, self.settings, self.fingerprint, self.folder)


_MEND = (
    "Try a tenth of the learning rate, or ten times as much if the two are nearly equal; look "
    "whether the labels fit the videos, and whether the model has the weights that it was trained "
    "with. Then start in a new folder."
)
