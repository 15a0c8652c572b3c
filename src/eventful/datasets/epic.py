"""EPIC-Kitchens 100: long videos, and a table of the actions in them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import final

from eventful.datasets.clips import Action, Clip, Span, opener
from eventful.datasets.frames import Videos
from eventful.datasets.layout import chosen, located
from eventful.datasets.tables import class_number, read_table, seconds
from eventful.datasets.views import Views

PAGE = "epic-kitchens.github.io"
COLUMNS = (
    "narration_id",
    "participant_id",
    "video_id",
    "start_timestamp",
    "stop_timestamp",
    "narration",
    "verb",
    "verb_class",
    "noun_class",
)
VERBS, NOUNS = 97, 300

# 32 frames at 30 frames per second and 320 x 320, in 4 x 3 views, as in the paper.
EPIC_VIEWS = Views(frames=32, stride=1, rate=30, size=320, temporal=4, spatial=3)


@final
class EpicKitchens(Videos[Clip]):
    r"""Actions in kitchens; a clip a row of the table, its label the verb (97 classes).

    Reads `EPIC_100_<split>.csv`, at `root` or in `epic-kitchens-100-annotations`, and videos at
    `<participant>/videos/<video>.MP4`, `<participant>/<video>.MP4` or `videos/<video>.MP4` (or
    .mp4, or without a suffix), below `root` or `EPIC-KITCHENS` in it. Clips come in the order of
    the table and are read on iteration. The videos have 50 or 60 frames per second; clips are
    resampled by time to those of `views`.

    A row without a video, a row that cannot be read and a row that lies outside its video are
    reported and skipped; one that goes beyond the end of its video is reported and cut there.

    Args:
        root: The folder of the data set.
        split: "validation" or "train".
        views: What a model sees of a clip.
        annotations: The table, where it lies elsewhere.
        strict: Raise at the first problem instead of counting it.

    Raises:
        FileNotFoundError: If the table, or every video in it, is not there.
        ValueError: If the table lacks columns, or no row of it can be used.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> from eventful.video import Writer
        >>> row = "P01_11_0,P01,P01_11,00:00:00.10,00:00:00.50,close door,close,4,3"
        >>> with tempfile.TemporaryDirectory() as root:
        ...     Path(root, "P01").mkdir()
        ...     table = Path(root, "EPIC_100_validation.csv")
        ...     _ = table.write_text(f"{','.join(COLUMNS)}\n{row}\n")
        ...     with Writer(f"{root}/P01/P01_11.mp4", rate=60) as writer:
        ...         for _ in range(60):
        ...             writer.write(np.zeros((16, 32, 3), np.uint8))
        ...     kitchens = EpicKitchens(root, views=Views(frames=4, stride=1, rate=30, size=8))
        ...     for view in kitchens[0]:
        ...         print(view.id, view.frames.shape, view.target.label, view.target.name)
        ...         break
        P01_11_0/t0s0 torch.Size([4, 3, 8, 8]) 4 close
    """

    classes = VERBS

    def __init__(
        self,
        root: str | os.PathLike[str],
        split: str = "validation",
        *,
        views: Views = EPIC_VIEWS,
        annotations: str | os.PathLike[str] | None = None,
        strict: bool = False,
    ) -> None:
        super().__init__(strict)
        self.root = Path(root)
        self.split = chosen("split", split, ("train", "validation"))
        self.views = views
        self.table = self._table() if annotations is None else Path(annotations)
        self._opened = opener(self.problems)
        self._files: dict[str, Path | None] = {}
        rows = read_table(self.table, COLUMNS, PAGE)
        clips = [self._clip(line, row) for line, row in enumerate(rows, 2)]
        self._clips = [clip for clip in clips if clip is not None]
        self._check()

    def _table(self) -> Path:
        name = f"EPIC_100_{self.split}.csv"
        places = [name, f"epic-kitchens-100-annotations/{name}", f"annotations/{name}"]
        return located(self.root, places, "the table of actions", PAGE)

    def _list(self) -> list[Clip]:
        return self._clips

    def _check(self) -> None:
        if self._clips:
            return
        if self._files and not any(self._files.values()):
            video = next(iter(self._files))
            participant = video.partition("_")[0]
            places = [str(place) for place in self._places(participant, video)[:6:3]]
            located(self.root, places, "the videos of EPIC-Kitchens", PAGE)
        raise ValueError(f"no row of {self.table} can be used:\n{self.problems}")

    def _clip(self, line: int, row: dict[str, str]) -> Clip | None:
        try:
            name, action, span = self._parsed(row)
        except ValueError as error:
            self.problems.report("row", self.table, f"line {line}: {error}; it is skipped")
            return None
        path = self._file(row["participant_id"].strip(), row["video_id"].strip())
        if path is None:
            return None
        return Clip(name, action, path, span, self.views, self._opened, self.problems)

    def _parsed(self, row: dict[str, str]) -> tuple[str, Action, Span]:
        start, stop = seconds(row["start_timestamp"]), seconds(row["stop_timestamp"])
        if stop <= start:
            raise ValueError("it stops before it starts")
        verb = class_number(row["verb_class"], "verb_class", VERBS)
        noun = class_number(row["noun_class"], "noun_class", NOUNS)
        action = Action(verb, row["verb"], noun, row["narration"])
        return row["narration_id"], action, Span(start, stop, self.table)

    def _file(self, participant: str, video: str) -> Path | None:
        """The file of a video; one that is missing is reported once."""
        if video not in self._files:
            places = self._places(participant, video)
            found = [self.root / place for place in places if (self.root / place).is_file()]
            self._files[video] = found[0] if found else None
            if not found:
                reason = f"there is no such video; its rows are skipped. Get it from {PAGE}"
                self.problems.report("missing", self.root / places[0], reason)
        return self._files[video]

    def _places(self, participant: str, video: str) -> list[Path]:
        inner = (f"{participant}/videos", participant, "videos", ".")
        folders = [Path(above, folder) for above in (".", "EPIC-KITCHENS") for folder in inner]
        return [folder / (video + end) for folder in folders for end in (".MP4", ".mp4", "")]
