"""Dense frames held against each other: what each would have shown in the place of another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

from eventful.motion import Flow, Picture, View, rank
from eventful.policies import Auto
from eventful.stream.costs import Costs
from eventful.stream.frames import Frames
from eventful.stream.gain import SHARES
from eventful.stream.layout import Layout
from eventful.stream.measure import counted_costs
from eventful.stream.plan import Check, Choice, Decision
from eventful.stream.schedule import chosen
from eventful.stream.stream import Stream
from eventful.stream.taps import Taps, Tokens


@final
class Probe:
    """Computes what a stream would show of frames whose dense outputs are known.

    It uses what the stream uses, so that the errors are those that its dense frames would find. A
    recomputed token counts as exact, which it nearly is.

    Args:
        stream: Of one row, under `Auto(max_error=...)`, a first frame behind it.

    Raises:
        ValueError: It is under another policy, has run no frame, or has several rows.

    Example:
        >>> import timm, eventful
        >>> model = timm.create_model("vit_tiny_patch16_224", img_size=64, num_classes=5).eval()
        >>> stream = Stream(eventful.convert(model))
        >>> a, b = torch.rand(2, 1, 3, 64, 64)
        >>> _ = stream(a)
        >>> probe = Probe(stream)
        >>> first, _ = probe.outputs, stream.reset([0])
        >>> _ = stream(b)
        >>> pictures = [probe.picture(frame) for frame in (a, b)]
        >>> check = probe.moved(pictures, [first, probe.outputs])[1]
        >>> check.held > 0
        True
    """

    def __init__(self, stream: Stream) -> None:
        engine = stream._engine
        needs = "a probe needs a stream of one row under Auto(max_error=...) that has run a frame"
        if not isinstance(engine, Frames) or not isinstance(engine.policy, Auto):
            raise ValueError(needs)
        if engine.costs is None or engine.rows != 1:
            raise ValueError(needs)
        self._engine, self._intake, self._flow = engine, stream._intake, Flow()
        self.costs: Costs = engine.costs
        repeats = self.costs.held < self.costs.carried and engine._last is not None
        self.counted = counted_costs(engine.bound.account, engine.taps.special, 1, repeats)

    @property
    def layout(self) -> Layout:
        """How the model's blocks hang together."""
        assert self._engine.layout is not None
        return self._engine.layout

    @property
    def outputs(self) -> dict[str, Tensor]:
        """(1, tokens, dim) by tap, of the stream's last dense frame."""
        return {name: rows[0].clone() for name, rows in self._engine.taps.dense.items()}

    def picture(self, frame: Tensor) -> Picture:
        """A frame, as the stream takes it, at the size that motion is found at."""
        (picture,) = Picture.each(self._flow.smaller(self._intake.picture(frame)))
        return picture

    def view(self, picture: Picture) -> View:
        """Something to see later frames against."""
        return View.of(self._flow, self.layout.grid, picture)

    def moved(
        self, pictures: Sequence[Picture], outputs: Sequence[Tokens | None], level: int = 0
    ) -> dict[int, Check]:
        """What later frames would show, were the first dense and no other.

        Args:
            pictures: Of frames that follow each other.
            outputs: Of each, its dense outputs; None where they are not known. The first are.
            level: Which share of the patches is recomputed on each frame, of `gain.SHARES`. It
                ends at the first frame whose outputs are not known.

        Returns:
            By the number of frames since the first, for all those whose outputs are known, what a
            dense frame there would show.
        """
        first = outputs[0]
        assert first is not None
        layout, patches = self.layout, self.layout.grid[0] * self.layout.grid[1]
        taps = Taps(layout.prefix, layout.grid, self._engine.taps.norms, layout.suffix)
        taps.start(first, None)
        view, found = self.view(pictures[0]), {}
        count = int(SHARES[level] * patches)
        for age, (picture, exact) in enumerate(zip(pictures, outputs, strict=True)):
            if not age:
                continue
            look = view.look(picture)
            if exact is not None:
                compared = taps.compare(exact, 0, look)
                found[age] = Check(*compared, wanted=rank(look).flatten())
            if count and exact is None:
                break
            view.saw(picture, look)
            if count and exact is not None:
                picked = chosen(rank(look).flatten(), Choice("partial", tokens=count))
                shown = taps.show([look], next(iter(exact.values())).dtype)
                for name, tokens in shown.items():
                    tokens[:, picked + layout.prefix] = exact[name][:, picked + layout.prefix]
                taps.keep(shown, [Decision("partial", "", look, picked)])
                mask = torch.zeros(1, patches, dtype=torch.bool, device=picked.device)
                view.computed(picture, look, mask.index_fill(1, picked, True).view(1, *layout.grid))
        return found
