"""Detection of vehicles from a static camera, on the tokens of a frozen backbone."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, final

from torch import Tensor

from eventful.datasets import CDnet, Motion, Sample, Video
from eventful.datasets.cdnet import video_folders
from eventful.datasets.regions import moving_regions
from eventful.evaluation.measures.patches import Size
from eventful.evaluation.runners.tokens import Models
from eventful.evaluation.scores import Arrays, Scores
from eventful.evaluation.tasks.found_boxes import BoxJudge, drawn, precision
from eventful.evaluation.tasks.token_task import TokenTask
from eventful.models.detector import PatchDetector
from eventful.models.vehicles import vehicle_detector
from eventful.stream.snapshots import digest

VIDEO = "highway"
EVERY = 4
TRAINING = 0.6  # of the labelled frames, from the first on
BETWEEN = 0.05  # neither trained on nor scored, so that no vehicle is in both


def parts(labelled: range) -> tuple[range, range]:
    """The numbers of the labelled frames to train on, and of those to evaluate on.

    Example:
        >>> parts(range(470, 1701))
        (range(470, 1208), range(1270, 1701))
    """
    end, begin = (int(len(labelled) * share) for share in (TRAINING, TRAINING + BETWEEN))
    return labelled[:end], labelled[begin:]


def highway(root: Path, strict: bool = False) -> CDnet:
    """The video that the detector is trained on, alone.

    Args:
        root: The folder of CDnet, of its category "baseline", or of the video itself.
        strict: Raise at the first problem with a file.

    Raises:
        FileNotFoundError: It is not there.

    Example:
        >>> try:
        ...     highway(Path("nowhere"))
        ... except FileNotFoundError as error:
        ...     print(str(error).partition(";")[0])
        expected videos, folders that hold input/, at nowhere or up to two folders below
    """
    folders = video_folders(Path(root))
    found = [folder for folder in folders if folder.resolve().name == VIDEO]
    if not found:
        names = ", ".join(folder.name for folder in folders)
        raise FileNotFoundError(
            f"the detector of vehicles knows the camera of the video {VIDEO!r} alone, a folder of "
            f"that name at {root} or up to two folders below; found {names}"
        )
    return CDnet(found[0], strict=strict)


@final
class CDnetVehicles(TokenTask[Video[Motion]]):
    """Vehicles on CDnet's highway: average precision at an overlap of 0.5.

    The detector is trained on dense tokens of the first 60 % of the labelled frames. The last 35 %
    are run, every frame of them, and every 4th is scored. Boxes to find are those around connected
    moving regions, so that vehicles which hide a part of each other are one; what is small or of
    doubt counts neither way. The detector runs on scored frames alone and is not counted.

    Args:
        models: The model for each input size.
        data: Videos of that camera, see `highway`.
        folder: Where dense tokens are kept.
        size: The long side in pixels; the detector is trained at 518.
        frames: Frames of the evaluated part at most.
        detector: Another detector than the packaged one.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> from PIL import Image
        >>> from eventful.evaluation import combined, evaluate, report
        >>> from eventful.models.saliency import saliency_vit
        >>> root = Path(tempfile.mkdtemp(), "highway")
        >>> for part, name in (("input", "in{:06d}.jpg"), ("groundtruth", "gt{:06d}.png")):
        ...     (root / part).mkdir(parents=True)
        ...     for number in range(1, 21):
        ...         pixels = np.zeros((20, 30), np.uint8)
        ...         pixels[4:12, number : number + 8] = 255
        ...         Image.fromarray(pixels).save(root / part / name.format(number))
        >>> Image.new("L", (30, 20), 255).save(root / "ROI.bmp")
        >>> _ = (root / "temporalROI.txt").write_text("1 20")
        >>> task = CDnetVehicles(Models(saliency_vit), highway(root), root / "dense", size=42)
        >>> found = evaluate(task, combined(["dense", "input"], ["top:2"]), root / "out")
        >>> content = report(task, found, {"title": "CDnet"})
        >>> [(row["policy"], sorted(row["quality"])) for row in content["rows"]]
        [('top:2', ['map50'])]
        >>> content["dense"]["videos"][0]["frames"], content["dense"]["videos"][0]["scored"]
        (7, 2)
    """

    name = "cdnet-vehicles"
    measures = ("map50",)

    def __init__(
        self,
        models: Models,
        data: CDnet,
        folder: Path,
        size: int | None = None,
        frames: int | None = None,
        detector: PatchDetector | None = None,
    ) -> None:
        super().__init__(models, data, folder, size, frames)
        device = next(self.model.parameters()).device
        self.detector = (vehicle_detector() if detector is None else detector.eval()).to(device)
        self._part = {video.id: parts(data.labelled(at))[1] for at, video in enumerate(data)}

    def identity(self) -> dict[str, Any]:
        """Also the weights of the detector."""
        return {**super().identity(), "detector": digest(self.detector.state_dict().values())}

    def footage(self, video: Video[Motion]) -> Iterator[Sample[Motion]]:
        """The part to evaluate on."""
        part = self._part[video.id]
        frames = video.since(part.start)
        return islice((sample for sample in frames if sample.number in part), self.frames)

    def objects(self, target: Motion) -> Tensor:
        """What moves."""
        return target.moving

    def truth(self, sample: Sample[Motion]) -> Tensor:
        """Boxes to find, and in blue those of doubt."""
        assert sample.target is not None
        return drawn(sample.image, moving_regions(sample.target))

    def judge(self, video: Video[Motion], shape: Size) -> BoxJudge:
        """Collects what is found and what is there."""
        return BoxJudge(self.detector, self.grid(shape), shape, moving_regions, EVERY)

    def quality(self, found: Arrays) -> Scores:
        """Average precision, in percent; None without a vehicle."""
        return precision(found)
