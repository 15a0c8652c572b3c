"""Results on disk, one file a setting and video, so that a run that was ended goes on."""

from __future__ import annotations

import json
import os
import re
import shutil
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from eventful.datasets import Problem
from eventful.evaluation.runners.frames import Step
from eventful.evaluation.settings import Setting
from eventful.provenance import write_json

KIND = "eventful evaluation"
FORMAT = 2  # 1: frame policies as they were before streams ran them
_DAMAGED = OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error


@dataclass(frozen=True, eq=False)
class Result:
    """One video under one setting.

    Attributes:
        video: Its name in the data set.
        found: What the task scores; empty if nothing of the video could be read.
        steps: What each frame took.
        after: Operations of what runs dense behind the stream.
        problems: What was wrong with the video's files.
    """

    video: str
    found: Mapping[str, np.ndarray]
    steps: list[Step]
    after: int = 0
    problems: tuple[Problem, ...] = ()


class Store:
    """A folder of results, of one task on one data set with one model.

    Args:
        folder: Where to; made if it is not there.
        identity: What all results in it depend on, in what JSON can hold.
        fresh: Forget what is there.

    Raises:
        ValueError: The folder holds results of something else; the message says what differs.

    Example:
        >>> import tempfile
        >>> store = Store(Path(tempfile.mkdtemp()), {"task": "vid"})
        >>> setting = Setting("dense", None)
        >>> store.claim(setting)
        >>> store.write(setting, Result("a/b", {"x": np.ones(2)}, [Step(7, 7, 1.5, True)]))
        >>> store.holds(setting, "a/b"), store.read(setting, "a/b").steps[0].operations
        (True, 7)
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any], fresh: bool = False) -> None:
        self.folder = folder / "results"
        if fresh and _is_ours(self.folder):
            shutil.rmtree(self.folder)
        _claim(self.folder, {"kind": KIND, "format": FORMAT, **identity})

    def claim(self, setting: Setting) -> None:
        """Make sure that what is held for a setting of this name is of this setting.

        Raises:
            ValueError: It is of other options.
        """
        _claim(self._place(setting), {"kind": KIND, "name": setting.name, **setting.as_dict()})

    def holds(self, setting: Setting, video: str) -> bool:
        """Whether a video is done."""
        return self._path(setting, video).exists()

    def write(self, setting: Setting, result: Result) -> None:
        """Write a file that appears whole or not at all."""
        path = self._path(setting, result.video)
        temporary = path.with_name(f".{os.getpid()}.part")
        problems = [[one.kind, str(one.path), one.reason] for one in result.problems]
        about = {"video": result.video, "after": result.after, "problems": problems}
        columns = zip(Step._fields, zip(*result.steps, strict=True), strict=False)
        arrays: dict[str, Any] = {"about": np.array(json.dumps(about))}
        arrays |= {f"step.{name}": np.array(values) for name, values in columns}
        arrays |= {f"found.{name}": values for name, values in result.found.items()}
        try:
            with temporary.open("wb") as file:
                np.savez_compressed(file, **arrays)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)

    def read(self, setting: Setting, video: str) -> Result:
        """Read a file.

        Raises:
            ValueError: It is damaged.
        """
        path = self._path(setting, video)
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                return _result(dict(arrays))
        except _DAMAGED as error:
            raise ValueError(
                f"{path} is damaged ({error}); delete it, and its video is run again"
            ) from error

    def _place(self, setting: Setting) -> Path:
        return self.folder / re.sub(r"[^\w.]+", "-", setting.name)

    def _path(self, setting: Setting, video: str) -> Path:
        return self._place(setting) / f"{quote(video, safe='')}.npz"


def _result(arrays: dict[str, np.ndarray]) -> Result:
    about = json.loads(str(arrays["about"]))
    columns = [arrays[f"step.{name}"].tolist() for name in Step._fields if "step.first" in arrays]
    found = {name[6:]: values for name, values in arrays.items() if name.startswith("found.")}
    problems = tuple(Problem(kind, Path(path), why) for kind, path, why in about["problems"])
    steps = [Step(*values) for values in zip(*columns, strict=True)]
    return Result(about["video"], found, steps, about["after"], problems)


def _claim(folder: Path, manifest: dict[str, Any]) -> None:
    """Write what a folder is about, or compare it with what it says."""
    if _is_ours(folder):
        there = json.loads((folder / "manifest.json").read_text())
        keys = [key for key in {**manifest, **there} if manifest.get(key) != there.get(key)]
        if keys:
            here = ", ".join(f"{key} {there.get(key)} (now {manifest.get(key)})" for key in keys)
            raise ValueError(
                f"{folder} holds results of another run: {here}. Choose another --out, or forget "
                f"them with --fresh"
            )
        return
    if folder.is_dir() and any(path.suffix != ".part" for path in folder.iterdir()):
        raise ValueError(
            f"{folder} holds files that are no results of an evaluation; choose another --out"
        )
    folder.mkdir(parents=True, exist_ok=True)
    write_json(manifest, folder / "manifest.json")


def _is_ours(folder: Path) -> bool:
    try:
        return json.loads((folder / "manifest.json").read_text())["kind"] == KIND
    except (OSError, ValueError, KeyError, TypeError):
        return False
