"""Kinetics: a folder of short clips, and a table of what is done in them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import final

from eventful.datasets.clips import Action, Clip, Span, opener
from eventful.datasets.frames import Videos
from eventful.datasets.layout import chosen, located
from eventful.datasets.tables import read_table
from eventful.datasets.views import Views

PAGE = (
    "the annotations of Kinetics-400 (deepmind.com, or github.com/cvdfoundation/kinetics-dataset)"
)
COLUMNS = ("label", "youtube_id", "time_start", "time_end", "split")
SUFFIXES = (".mp4", ".mkv", ".webm", ".avi")
SPLITS = {"train": ("train",), "val": ("val", "validate", "validation"), "test": ("test",)}

# 32 frames, 2 apart, at 224 x 224, in 4 x 3 views, as in the paper; 25 frames per second as in its
# code.
KINETICS_VIEWS = Views(frames=32, stride=2, rate=25, size=224, temporal=4, spatial=3)


@final
class Kinetics(Videos[Clip]):
    r"""Actions of people in clips of ten seconds, 400 classes.

    Reads `<split>.csv` (or `validate.csv`, or in `annotations`, or with `kinetics400_`,
    `kinetics_400_` or `kinetics-400_` in front) and clips named
    `<youtube_id>_<start>_<end>.mp4`, both times in six digits, anywhere in `<split>` or else in
    `root`. Labels are the places of the table's own names in alphabetical order, which are the
    classes of trained models only where the table is complete: `classes` says how many there are.

    A row without a clip, a row that cannot be read and a clip that is damaged are reported; a
    damaged clip is seen as far as it goes.

    Args:
        root: The folder of the data set.
        split: "val", "train" or "test".
        views: What a model sees of a clip.
        annotations: The table, where it lies elsewhere.
        labels: Names of all classes in order, where the table has not all of them.
        strict: Raise at the first problem instead of counting it.

    Attributes:
        labels: Names of the classes.
        classes: How many there are.

    Raises:
        FileNotFoundError: If the table, or every clip in it, is not there.
        ValueError: If the table lacks columns, or has no row of the split.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> from eventful.video import Writer
        >>> rows = "zumba,a-1,7,17,val\narchery,b_2,0,10,val\n"
        >>> with tempfile.TemporaryDirectory() as root:
        ...     Path(root, "val/zumba").mkdir(parents=True)
        ...     _ = Path(root, "val.csv").write_text(f"{','.join(COLUMNS)}\n{rows}")
        ...     with Writer(f"{root}/val/zumba/a-1_000007_000017.mp4", rate=25) as writer:
        ...         for _ in range(25):
        ...             writer.write(np.zeros((16, 32, 3), np.uint8))
        ...     clips = Kinetics(root, views=Views(frames=4, size=8))
        ...     print(clips.labels, clips[0].target, len(list(clips[0])))
        ...     print(clips.problems.counts)
        ('archery', 'zumba') Action(label=1, name='zumba', noun=None, narration='') 12
        {'missing': 1}
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        split: str = "val",
        *,
        views: Views = KINETICS_VIEWS,
        annotations: str | os.PathLike[str] | None = None,
        labels: Sequence[str] | None = None,
        strict: bool = False,
    ) -> None:
        super().__init__(strict)
        self.root = Path(root)
        self.split = chosen("split", split, tuple(SPLITS))
        self.views = views
        self.table = self._table() if annotations is None else Path(annotations)
        rows = read_table(self.table, COLUMNS, PAGE)
        self.labels = tuple(sorted({row["label"] for row in rows}) if labels is None else labels)
        self._numbers = {label: number for number, label in enumerate(self.labels)}
        self._opened = opener(self.problems)
        self._clips = self._found(rows)

    @property
    def classes(self) -> int:
        """The number of classes."""
        return len(self.labels)

    def _table(self) -> Path:
        names = [name for name in SPLITS[self.split] if name != "validation"]
        heads = ("", "annotations/", "kinetics400_", "kinetics_400_", "kinetics-400_")
        places = [f"{head}{name}.csv" for head in heads for name in names]
        return located(self.root, places, f"the table of the clips ({self.split})", PAGE)

    def _list(self) -> list[Clip]:
        return self._clips

    def _found(self, rows: Sequence[dict[str, str]]) -> list[Clip]:
        numbered = [(n, row) for n, row in enumerate(rows, 2) if self._belongs(row)]
        if not numbered:
            raise ValueError(
                f"expected rows of the split {self.split!r} in {self.table}; there is none. "
                f"Choose another split or table"
            )
        files = self._files()
        clips = [self._clip(line, row, files) for line, row in numbered]
        found = [clip for clip in clips if clip is not None]
        if not found:
            raise FileNotFoundError(
                f"expected clips of {self.table} named <youtube_id>_<start>_<end>.mp4 below "
                f"{self._folder()}; there is none. Get them as described at {PAGE}\n{self.problems}"
            )
        return found

    def _belongs(self, row: dict[str, str]) -> bool:
        return row["split"].strip() in ("", *SPLITS[self.split])

    def _folder(self) -> Path:
        inner = self.root / self.split
        return inner if inner.is_dir() else self.root

    def _files(self) -> dict[str, Path]:
        """The clips that are there, by name."""
        walk = os.walk(self._folder(), followlinks=True)
        paths = (Path(folder, name) for folder, _, names in walk for name in names)
        return {path.stem: path for path in paths if path.suffix.lower() in SUFFIXES}

    def _clip(self, line: int, row: dict[str, str], files: dict[str, Path]) -> Clip | None:
        try:
            name, label = _name(row), self._numbers[row["label"]]
        except (ValueError, KeyError) as error:
            what = str(error) if isinstance(error, ValueError) else f"{error} is none of the labels"
            self.problems.report("row", self.table, f"line {line}: {what}; it is skipped")
            return None
        if name not in files:
            reason = "there is no such clip; its row is skipped"
            self.problems.report("missing", self._folder() / f"{name}.mp4", reason)
            return None
        action = Action(label, row["label"])
        span = Span(source=self.table)
        return Clip(name, action, files[name], span, self.views, self._opened, self.problems)


def _name(row: dict[str, str]) -> str:
    """The name of a clip's file, without suffix."""
    try:
        start, end = (int(float(row[column])) for column in ("time_start", "time_end"))
    except (ValueError, OverflowError) as error:
        times = f"{row['time_start']!r} and {row['time_end']!r}"
        raise ValueError(f"{times} are no times in seconds") from error
    if not row["youtube_id"]:
        raise ValueError("it has no youtube_id")
    return f"{row['youtube_id']}_{start:06d}_{end:06d}"
