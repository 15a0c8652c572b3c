"""Models without weights, and frames of noise for them: what `eventful inspect` looks at."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from eventful.cli.frame_costs import Trial, zeroed
from eventful.cli.subjects import check_name, check_size, input_size, patch_size
from eventful.convert import Where
from eventful.pretrained import Extras
from eventful.pretrained.inputs import Inputs
from eventful.pretrained.loading import outlined

_FRAME = 720, 1280  # of the video for which a processor is asked what it makes of a frame


def timm_trial(model: str, size: int | None, where: Where | None) -> tuple[Trial, int]:
    """A model of timm, and the side of its frames.

    Raises:
        ValueError: There is none of this name, or it does not take that size.
    """
    name = "vit_small_patch14_dinov2" if model == "demo" else model.removeprefix("timm:")
    check_name(name)
    built = _timm(name, size)
    side = input_size(built) if size is None else size
    if hasattr(built, "patch_embed"):
        check_size(side, patch_size(built))
    frames = torch.rand(2, 1, 3, side, side)
    return Trial(lambda: zeroed(_timm(name, size)), [*frames], where=where), side


def _timm(name: str, size: int | None) -> nn.Module:
    import timm  # noqa: PLC0415

    options: dict[str, Any] = {} if size is None else {"img_size": size}
    try:
        with torch.device("meta"):
            return timm.create_model(name, pretrained=False, **options).eval()
    except (TypeError, AssertionError, ValueError) as error:
        if size is not None and isinstance(error, AssertionError):
            check_size(size, patch_size(_timm(name, None)))
        raise ValueError(f"{name} cannot be built at size {size}: {error}") from error


def transformers_trial(
    model: str, task: str | None, where: Where | None
) -> tuple[Trial, list[int]]:
    """A model of transformers, and the height and width of its frames of a 16:9 video.

    Raises:
        ValueError: There is none of this name, or it is not for the task.
    """
    loaded, build = outlined(model, task)
    asks = "input_ids" in loaded.takes and loaded.method == "forward"
    inputs = Inputs(loaded, Extras(("a",) if asks else ()))
    noise = np.random.default_rng(0).integers(0, 256, (2, *_FRAME, 3), dtype=np.uint8)
    given = [inputs([frame] * loaded.clip) for frame in noise]
    trial = Trial(
        lambda: zeroed(build()),
        [one.frame for one in given],
        given[0].inputs,
        {"method": loaded.method, "pixels": inputs.pixels_of(given[0].frame)},
        where,
        inputs.name,
    )
    return trial, list(given[0].frame.shape[-2:])
