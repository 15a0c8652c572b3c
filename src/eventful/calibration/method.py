"""Calibration: policies of their own for all gates, from a short clip."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import get_args

from torch import Tensor, nn

from eventful.calibration.allocation import Allocation, Kind, equally
from eventful.calibration.sensitivity import Sensitivity, predict, sensitivities, slopes
from eventful.calibration.target import STEPS, Target
from eventful.calibration.trials import Figures, Output, Policies, Trial, Trials
from eventful.policies import PerGate, Policy

KINDS: tuple[Kind, ...] = get_args(Kind)
WEIGHTS: Mapping[Kind, tuple[float, ...]] = {"threshold": (0.0, 0.5, 1.0), "top": (0.5, 1.0)}
EQUAL_PRICES = 1.0, 1000.0
PRICES = 1 / 64, 64.0
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Calibration:
    """What a calibration has found.

    Attributes:
        policy: For each gate its own; `eventful.convert` and `Stream.policy` take it.
        target: What was to be reached.
        kind: "threshold" or "top".
        reached: Whether it was, on the clip; otherwise these policies come closest.
        predicted: What trials of single gates foretell of them, added up.
        measured: What they give together.
        equal: What the same share of tokens at all gates gives under the same target.
    """

    policy: PerGate
    target: Target
    kind: Kind
    reached: bool
    predicted: Figures
    measured: Figures
    equal: Figures


def calibrate(
    model: nn.Module,
    frames: Iterable[Tensor],
    *,
    target_error: float | None = None,
    target_share: float | None = None,
    kind: Kind = "threshold",
    output: Output | None = None,
    normalize: bool = False,
    method: str = "forward",
    progress: Progress | None = None,
) -> Calibration:
    """Find policies for all gates that reach a target on a clip at the least error or cost.

    First the same share of tokens at all gates is found that reaches the target. There, every gate
    in turn lets half as many tokens through, which says what an operation saves of the error at
    each. Then one price of error divides the budget (`Allocation`), and is moved until the clip as
    a whole reaches the target, for several weights of what the gates' trials said. The best of all
    that was run is returned.

    The clip is run about as often as the model has gates, and 20 to 40 times more.

    Args:
        model: A converted model. The options it was converted with are those that the policies are
            for; the policy it was given plays no part.
        frames: A short clip of one scene, as `Stream` takes frames; ten to thirty are enough. They
            are kept meanwhile, and so are the dense model's outputs.
        target_error: Mean relative error of the output that is not to be exceeded, at the least
            operations.
        target_share: Share of the dense model's operations that is not to be exceeded, at the least
            error. Frames that are computed in full do not count, here as there.
        kind: "threshold": an error h for each gate. "top": a share of the tokens for each gate.
        output: Picks the tensor to compare from what the model returns; None takes it as it is.
        normalize: As of `Stream`.
        method: As of `Stream`.
        progress: Called with the runs of the clip that are done, and how many there are at most.

    Raises:
        ValueError: The model is not converted, nothing changes in the clip, it has fewer than two
            frames, or the target lies outside of 0 to 1.
        TypeError: What is compared is no tensor.

    Example:
        >>> import eventful, timm, torch
        >>> model = timm.create_model("vit_tiny_patch16_224", img_size=64, depth=1).eval()
        >>> _ = eventful.convert(model, eventful.KeepAll())
        >>> found = calibrate(model, torch.rand(3, 1, 3, 64, 64), target_share=0.6, kind="top")
        >>> found.reached, found.measured.share <= 0.6
        (True, True)
        >>> stream = eventful.Stream(model, policy=found.policy)
    """
    _check_kind(kind)
    target = Target(target_error, target_share)
    trials = Trials(model, frames, output or (lambda y: y), normalize, method)
    return Survey.of(trials, target, progress).calibrate(kind)


def _check_kind(kind: str) -> None:
    if kind not in KINDS:
        raise ValueError(f"kind is one of {', '.join(KINDS)}, got {kind!r}")


@dataclass(frozen=True)
class Survey:
    """What a clip says of a model's gates near a target; policies of each kind follow from it.

    Attributes:
        run: Runs policies on the clip.
        target: What is to be reached.
        equal: The equal share of tokens at all gates that comes closest to the target.
        found: What each gate does when it alone is given less.
    """

    run: Callable[[Policies], Trial]
    target: Target
    equal: Trial
    found: Mapping[str, Sensitivity]

    @classmethod
    def of(cls, trials: Trials, target: Target, progress: Progress | None = None) -> Survey:
        """Look for the equal share, and measure all gates there.

        Args:
            trials: Run policies on the clip.
            target: What is to be reached.
            progress: As of `calibrate`.
        """
        total = len(trials.gates) + STEPS * (1 + max(map(len, WEIGHTS.values())))
        run = _Runs(trials, total, progress)
        equal = target.best(
            target.search(lambda price: run(equally(trials.gates, 1 / price)), *EQUAL_PRICES)
        )
        return cls(run, target, equal, sensitivities(equal, run))

    def calibrate(self, kind: Kind) -> Calibration:
        """Find policies of a kind that reach the target, as `calibrate` says it."""
        _check_kind(kind)
        allocation = Allocation.of(self.equal, slopes(self.found))
        tried = [self.equal] if kind == "top" else []
        for weight in WEIGHTS[kind]:
            tried += self.target.search(
                lambda price, weight=weight: self.run(allocation.policies(kind, price, weight)),
                *PRICES,
            )
        best = self.target.best(tried)
        return Calibration(
            policy=PerGate(tuple(best.policies.items())),
            target=self.target,
            kind=kind,
            reached=self.target.met(best),
            predicted=predict(self.equal, self.found, best.policies),
            measured=best.figures,
            equal=self.equal.figures,
        )


class _Runs:
    """Runs policies, those that were run before not again, and says how far it is."""

    def __init__(self, trials: Trials, total: int, progress: Progress | None) -> None:
        self._trials, self._total, self._progress = trials, total, progress
        self._done: dict[tuple[tuple[str, Policy], ...], Trial] = {}

    def __call__(self, policies: Policies) -> Trial:
        key = tuple(policies.items())
        if key not in self._done:
            self._done[key] = self._trials.run(policies)
            if self._progress is not None:
                self._progress(len(self._done), self._total)
        return self._done[key]
