"""Action recognition on EPIC-Kitchens and Kinetics, scored by accuracy."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from eventful.counting import Observer
from eventful.datasets import Clip, EpicKitchens, Kinetics
from eventful.evaluation.runners.frames import Runner
from eventful.evaluation.scores import Arrays, Scores
from eventful.evaluation.settings import Setting
from eventful.evaluation.task import Task
from eventful.models.vivit import ViViT, tubelets
from eventful.policies import FramePolicy, Skip

_PAPER = {"epic": ("vivit_b_epic", 320), "kinetics": ("vivit_b_kinetics", 224)}


@final
class ActionTask(Task[Clip]):
    r"""ViViT on clips: top-1, as the paper reports it, and top-5.

    The spatial model is eventful. The views of a clip are batch rows of one stream, reset before
    each clip, so that every view's first pair of frames is computed in full. The temporal model
    and the classifier run dense on what it gives; logits are averaged over the views. Operations
    are those of all three, for all views; the time of a step is the spatial model's, for one pair
    of frames of every view.

    As in the paper the class token competes with the others for being updated.

    Args:
        name: "epic" or "kinetics".
        model: The model, dense.
        data: The clips.

    Raises:
        ValueError: The data set has another number of classes, frames or pixels than the model.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from eventful import TopR
        >>> from eventful.datasets import Views
        >>> from eventful.video import Writer
        >>> model = ViViT(classes=2, img_size=16, frames=4, dim=24, heads=3, depth=2).eval()
        >>> rows = "label,youtube_id,time_start,time_end,split\nzumba,a,0,1,val\nski,b,0,1,val"
        >>> with tempfile.TemporaryDirectory() as root:
        ...     _ = Path(root, "val.csv").write_text(rows)
        ...     with Writer(f"{root}/a_000000_000001.mp4", rate=25) as writer:
        ...         for level in range(8):
        ...             writer.write(np.full((16, 24, 3), 20 * level, np.uint8))
        ...     data = Kinetics(root, views=Views(frames=4, size=16, stride=1))
        ...     task = ActionTask("kinetics", model, data)
        ...     found, operations = task.run(task.runner(Setting("incremental", TopR(1))), data[0])
        >>> found["logits"].shape, task.score([found])["top5"]
        ((2,), 100.0)
    """

    per = "video"
    measures = ("top1", "top5")

    def __init__(self, name: str, model: ViViT, data: EpicKitchens | Kinetics) -> None:
        self.name = name
        self.model = self._vivit = model
        self.data = self._clips = data
        self.paper = _PAPER.get(name)
        patch = model.spatial.patch_embed.patch
        self.tokens = 1 + (data.views.size // patch) ** 2
        _check(model, data)

    def identity(self) -> dict[str, Any]:
        """Root, split, table and views."""
        data = self._clips
        places = {"root": str(data.root.resolve()), "table": str(data.table.resolve())}
        return places | {"split": data.split, "views": str(data.views)}

    def runner(self, setting: Setting) -> Runner:
        """On the spatial model.

        Raises:
            ValueError: The policy follows motion, which pairs of frames do not show.
        """
        if isinstance(setting.policy, FramePolicy) and not isinstance(setting.policy, Skip):
            raise ValueError(
                f"{setting.policy} follows the motion of pictures, and the model takes pairs of "
                f"them; here a policy such as top:512 or skip:2 is needed"
            )
        if setting.policy is not None:
            setting = replace(setting, options={"prefix": "gated", **setting.options})
        return Runner(self._vivit.spatial, setting)

    def run(self, runner: Runner, video: Clip) -> tuple[dict[str, np.ndarray], int]:
        """Classify a clip by all its views."""
        runner.start()
        views = [view.frames for view in video]
        if not views:
            return {}, 0
        clips = tubelets(torch.stack(views)).unbind(1)
        logits, operations = self._classify(torch.stack([runner(x) for x in clips], dim=1))
        label = np.array(video.target.label)
        return {"logits": logits.float().cpu().numpy(), "label": label}, operations

    @torch.inference_mode()
    def _classify(self, tokens: Tensor) -> tuple[Tensor, int]:
        """Logits (classes,) from (views, clips, dim), and what they took."""
        with Observer() as observer:
            logits = self._vivit.classify(tokens[None])[0]
        return logits, observer.total

    def score(self, found: Iterable[Arrays]) -> Scores:
        """The share of clips whose class is the first guess, and among the first five."""
        places = [_place(arrays) for arrays in found if arrays]
        if not places:
            return dict.fromkeys(self.measures)
        return {
            name: 100 * sum(place < best for place in places) / len(places)
            for name, best in (("top1", 1), ("top5", 5))
        }

    def describe(self, found: Arrays) -> dict[str, int | None]:
        """Whether it was scored, its class, and the first guess."""
        if not found:
            return {"scored": 0, "label": None, "guess": None}
        return {"scored": 1, "label": int(found["label"]), "guess": int(found["logits"].argmax())}


def _place(found: Arrays) -> int:
    """At which place of the guesses the class is, from 0; of equal ones the lower class is first.

    Example:
        >>> _place({"logits": np.array([0.5, 2.0, 0.5]), "label": np.array(2)})
        2
    """
    order = np.argsort(-found["logits"], kind="stable")
    return int(np.flatnonzero(order == found["label"])[0])


def _check(model: ViViT, data: EpicKitchens | Kinetics) -> None:
    classes, views = model.head.out_features, data.views
    if data.classes != classes:
        raise ValueError(
            f"{data.table} has {data.classes} classes and the model {classes}; use the complete "
            f"table, or labels would be wrong"
        )
    if views.frames != model.frames:
        raise ValueError(f"views have {views.frames} frames and the model takes {model.frames}")
    if views.size % model.spatial.patch_embed.patch:
        raise ValueError(f"views of {views.size} pixels do not divide into the model's patches")
