"""The variants, and the models and grids that they are tested on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from tests.paper import models
from tests.paper.reference import Variant


@dataclass(frozen=True)
class Case:
    """A variant and the options of `convert` that ask for it."""

    variant: Variant
    options: Mapping[str, Any] = field(default_factory=dict)


def case(attention: str, *, stgt=False, before=False, **options) -> Case:
    """One case; `attention` is the package's name of the form."""
    form = {"cached": "full", "query_key": "query_key"}.get(attention, "dense")
    sampling = options.get("sampling", {})
    if isinstance(sampling, int):
        sampling = {f"blocks.{i}": sampling for i in range(models.DEPTH)}
    variant = Variant(
        form,
        stgt,
        before,
        options.get("pooling", 1),
        {int(name.removeprefix("blocks.")): kept for name, kept in sampling.items()},
        options.get("half_precision", False),
    )
    options |= {"attention": attention, "gate_before_norm": before}
    return Case(variant, options | {"gate": "stgt" if stgt else "token"})


GATED = {
    "full": case("cached"),
    "query-key": case("query_key"),
    "token-wise only": case("dense"),
    "incremental": case("incremental"),
    "STGT gate": case("dense", stgt=True),
    "STGT gate, query-key": case("query_key", stgt=True),
    "STGT gate, incremental": case("incremental", stgt=True),
    "gate before norm, full": case("cached", before=True),
    "gate before norm, token-wise only": case("dense", before=True),
    "gate before norm, incremental": case("incremental", before=True),
}
POOLED = {
    "spatiotemporal": case("cached", pooling=2),
    "pooled, query-key": case("query_key", pooling=2),
    "pooled, token-wise only": case("dense", pooling=2),
    "pooled, incremental": case("incremental", pooling=2),
}
SAMPLED = {
    f"sampled, {attention}": case(attention, sampling={"blocks.1": 11})
    for attention in ("cached", "query_key", "dense", "incremental")
}
SAMPLED |= {
    "sampled in all blocks, full": case("cached", sampling=11),
    "sampled in all blocks, incremental": case("incremental", sampling=11),
    "sampled, gate before norm": case("cached", before=True, sampling={"blocks.1": 11}),
}
HALF = {
    "half precision, full": case("cached", half_precision=True),
    "half precision, query-key": case("query_key", half_precision=True),
    "half precision, spatiotemporal": case("cached", half_precision=True, pooling=2),
    "half precision, sampled": case("cached", half_precision=True, sampling={"blocks.1": 11}),
}


def serves(name: str, variant: Variant) -> bool:
    """Whether the models of a clip take a variant: pooling needs a grid, sampling a class token."""
    if name in PLAIN:
        return variant.pooling == 1
    return not variant.sampling


@dataclass(frozen=True)
class Clip:
    """A model and the grid of the frames that it is given."""

    build: Callable[[], nn.Module]
    grid: tuple[int, int]
    method: str = "forward_features"
    channels: int = 3

    def frames(self, batch: int, count: int = 6) -> Tensor:
        return models.clip(self.grid, batch, count, self.channels)


PLAIN = {
    "plain, 3 x 5": Clip(lambda: models.plain((3, 5)), (3, 5)),
    "plain, square": Clip(lambda: models.plain((4, 4)), (4, 4)),
    "vivit, 3 x 5": Clip(lambda: models.vivit((3, 5)), (3, 5), "forward", 6),
}
WINDOWED = {
    "windows with padding, 3 x 5": Clip(lambda: models.windowed((3, 5)), (3, 5)),
    "windows with padding, square": Clip(lambda: models.windowed((4, 4), 3), (4, 4)),
    "windows that fit": Clip(lambda: models.windowed((6, 4)), (6, 4)),
    "resampled, 3 x 5": Clip(lambda: models.windowed((4, 4)), (3, 5)),
    "resampled, square": Clip(lambda: models.windowed((3, 5), 3), (5, 5)),
    "vitdet, 3 x 5": Clip(lambda: models.vitdet((3, 5)), (3, 5)),
    "vitdet, linear, 6 x 4": Clip(lambda: models.vitdet((4, 4), 3), (6, 4)),
    "vitdet, bicubic, 3 x 5": Clip(lambda: models.vitdet((4, 4), 2, "paper"), (3, 5)),
    "vitdet, bicubic, square": Clip(lambda: models.vitdet((4, 4), 3, "paper"), (5, 5)),
    "no relative positions": Clip(lambda: models.windowed((3, 5), use_rel_pos=False), (3, 5)),
}
CLIPS = PLAIN | WINDOWED
# The others are slow tests: a grid that is not square, padding, and bicubic positions are here.
QUICK = ("plain, 3 x 5", "windows with padding, 3 x 5", "vitdet, bicubic, square")
