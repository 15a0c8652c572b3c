"""The model of all cameras: converted for each shape of frames, with one set of weights."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from typing import Any, ClassVar, final

from torch import nn

import eventful
from eventful import runtimes
from eventful.outputs import Network
from eventful.policies import FramePolicy
from eventful.stream.together import Together

Shape = tuple[int, int]


@final
class Models:
    """Makes streams for frames of a shape.

    Args:
        build: Makes the network for frames of a height and a width.
        runtime: What runs frames after the first.
        scene_cuts: Start over at scene cuts.

    Attributes:
        passes: Which frames of all cameras share.
    """

    SPARE: ClassVar[int] = 2  # networks that no camera uses, for one whose size goes back
    FAILED: ClassVar[int] = 8  # of which the errors are remembered
    AGAIN: ClassVar[float] = 10.0  # seconds until one that cannot be made is tried again

    def __init__(
        self, build: Callable[[int, int], Network], runtime: runtimes.Name, scene_cuts: bool
    ) -> None:
        self._build = build
        self._runtime: runtimes.Name = runtime
        self._cuts = eventful.SceneCuts() if scene_cuts else None
        self.passes = Together()
        self._networks: dict[Shape, Network] = {}
        self._failed: dict[Shape, tuple[float, Exception]] = {}

    def network(self, shape: Shape, policy: FramePolicy) -> Network:
        """The network for frames of a shape, loaded once.

        Raises:
            ValueError: It does not convert, or does not take frames of this shape.
        """
        if shape not in self._networks:
            failed = self._failed.get(shape)
            if failed is not None and time.monotonic() < failed[0] + self.AGAIN:
                raise failed[1].with_traceback(None)  # to try is slow, and all cameras would wait
            try:
                self._networks[shape] = self._made(shape, policy)
            except Exception as error:
                self._failed[shape] = time.monotonic(), error
                self._failed = dict([*self._failed.items()][-self.FAILED :])
                raise
        return self._networks[shape]

    def _made(self, shape: Shape, policy: FramePolicy) -> Network:
        network = self._build(*shape)
        for other in self._networks.values():
            share_weights(network.model, other.model)
        eventful.convert(network.model, policy)
        return network

    def stream(self, shape: Shape, policy: FramePolicy) -> eventful.Stream:
        """A new stream for frames of a shape."""
        network = self.network(shape, policy)
        return eventful.Stream(
            network.model,
            policy=policy,
            normalize=network.normalize,
            method=network.method,
            scene_cuts=self._cuts,
            runtime=self._runtime,
        )

    def types(self, shape: Shape) -> Mapping[str, Any] | None:
        """The columns of the outputs for frames of a shape; None if there is no network for it."""
        network = self._networks.get(shape)
        if network is None:
            return None
        return {name: kind for head in network.heads for name, kind in head.types.items()}

    def keep(self, shapes: Collection[Shape]) -> None:
        """Forget networks for other shapes than these but a few, so that memory does not grow."""
        for shape in [shape for shape in self._networks if shape not in shapes][: -self.SPARE]:
            del self._networks[shape]


def share_weights(model: nn.Module, other: nn.Module) -> None:
    """Let a model use another's parameters wherever they are equal.

    Example:
        >>> one, two = nn.Linear(3, 5), nn.Linear(3, 5)
        >>> _ = two.load_state_dict(one.state_dict())
        >>> share_weights(two, one)
        >>> two.weight is one.weight
        True
    """
    theirs = dict(other.named_parameters())
    for prefix, module in model.named_modules():
        for name, own in list(module._parameters.items()):
            same = theirs.get(f"{prefix}.{name}" if prefix else name)
            if own is not None and same is not None and own.shape == same.shape and own.equal(same):
                module._parameters[name] = same
