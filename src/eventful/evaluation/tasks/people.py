"""Detection of people in a scene that the detector has not seen, on tokens of a frozen backbone."""

from __future__ import annotations

from pathlib import Path
from typing import Any, final

from torch import Tensor

from eventful.datasets import Mot, MotVideo, Sample
from eventful.datasets.regions import Regions
from eventful.evaluation.measures.patches import Size
from eventful.evaluation.runners.tokens import Models
from eventful.evaluation.scores import Arrays, Scores
from eventful.evaluation.tasks.found_boxes import BoxJudge, drawn, precision
from eventful.evaluation.tasks.token_task import TokenTask
from eventful.models.detector import PatchDetector
from eventful.models.people import LONG_SIDE, people_detector
from eventful.stream.snapshots import digest

VIDEO, TABLE = "TUD-Campus.mp4", "TUD-Campus-gt.txt"


def campus(root: Path, strict: bool = False) -> Mot:
    """The video in `root`, or in a folder `mot` below it.

    Args:
        root: The folder.
        strict: Raise at the first problem with a file.

    Raises:
        FileNotFoundError: It is not there.

    Example:
        >>> try:
        ...     campus(Path("nowhere"))
        ... except FileNotFoundError as error:
        ...     print(str(error).partition(";")[0])
        expected the video at nowhere/TUD-Campus.mp4
    """
    folder = root / "mot"
    return Mot(folder if folder.is_dir() else root, VIDEO, TABLE, strict=strict)


@final
class CampusPeople(TokenTask[MotVideo]):
    """People on TUD-Campus: average precision at an overlap of 0.5, on every frame.

    The detector is trained on another video (`people_detector`), and runs on the tokens of each
    frame. It is not counted.

    Args:
        models: The model for each input size.
        data: The video, see `campus`.
        folder: Where dense tokens are kept.
        size: The long side in pixels; 392 unless it is given, which makes people as tall as those
            that the detector is trained on.
        frames: Frames at most.
        detector: Another detector than the packaged one.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> from eventful.evaluation import combined, evaluate, report
        >>> from eventful.models.saliency import saliency_vit
        >>> from eventful.video import Writer
        >>> root = Path(tempfile.mkdtemp())
        >>> with Writer(root / VIDEO, rate=25) as writer:
        ...     for number in range(3):
        ...         writer.write(np.full((40, 56, 3), 60 * number, np.uint8))
        >>> _ = (root / TABLE).write_text("1,1,5,6,10,30,1,-1,-1,-1")
        >>> task = CampusPeople(Models(saliency_vit), campus(root), root / "dense", size=56)
        >>> found = evaluate(task, combined(["dense"], ["skip:2"]), root / "out")
        >>> content = report(task, found, {"title": "people"})
        >>> [(row["policy"], sorted(row["quality"])) for row in content["rows"]]
        [('skip:2', ['map50'])]
        >>> content["dense"]["videos"][0]["frames"], content["dense"]["videos"][0]["scored"]
        (3, 3)
    """

    name = "campus-people"
    measures = ("map50",)

    def __init__(
        self,
        models: Models,
        data: Mot,
        folder: Path,
        size: int | None = None,
        frames: int | None = None,
        detector: PatchDetector | None = None,
    ) -> None:
        super().__init__(models, data, folder, LONG_SIDE if size is None else size, frames)
        device = next(self.model.parameters()).device
        self.detector = (people_detector() if detector is None else detector.eval()).to(device)

    def identity(self) -> dict[str, Any]:
        """Also the weights of the detector."""
        return {**super().identity(), "detector": digest(self.detector.state_dict().values())}

    def objects(self, target: Regions) -> None:
        """None: boxes hold ground too."""

    def truth(self, sample: Sample[Regions]) -> Tensor:
        """Boxes to find."""
        assert sample.target is not None
        return drawn(sample.image, sample.target)

    def judge(self, video: MotVideo, shape: Size) -> BoxJudge:
        """Collects what is found and what is there."""
        return BoxJudge(self.detector, self.grid(shape), shape, lambda target: target)

    def quality(self, found: Arrays) -> Scores:
        """Average precision, in percent; None without a person."""
        return precision(found)
