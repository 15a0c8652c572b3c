"""Outputs of a frozen spatial model, kept on disk, one file a video."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import torch
from torch import Tensor, nn

from eventful.block.block import eventful_blocks
from eventful.finetuning.files import read_about, read_tensors, write_tensors
from eventful.models.vivit import ViViT, spatial_tokens
from eventful.policies import Policy
from eventful.provenance import write_json
from eventful.stream import Stream
from eventful.stream.snapshots import describe, digest

Video = tuple[str, Tensor | Callable[[], Tensor | None], int]
_MANIFEST = "manifest.json"


class CacheProgress(NamedTuple):
    """How far `cache_spatial_outputs` is.

    Attributes:
        done: Videos seen.
        computed: Those of them that were not in the folder yet and now are.
        unreadable: Those of them that gave no views.
        video: The last one's id.
    """

    done: int
    computed: int
    unreadable: int
    video: str


class CachedVideo(NamedTuple):
    """A video of a cache.

    Attributes:
        video: Its id.
        tokens: (views, clips, dim) the spatial model's outputs.
        label: Its class.
    """

    video: str
    tokens: Tensor
    label: int


class SpatialCache:
    """A folder that `cache_spatial_outputs` has filled: a sequence of videos, ordered by file name.

    Args:
        folder: The folder.

    Attributes:
        manifest: What the tokens depend on: model, options, policies.

    Raises:
        ValueError: The folder holds no such cache, or one without a video.

    Example: see `cache_spatial_outputs`.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self.manifest = _read_manifest(self.folder)
        self.paths = sorted(self.folder.glob("*.safetensors"))
        if not self.paths:
            raise ValueError(f"{self.folder} holds no video yet; run cache_spatial_outputs")

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: int) -> CachedVideo:
        """Read one video.

        Raises:
            ValueError: Its file is damaged.
        """
        tensors, about = read_tensors(self.paths[number])
        return CachedVideo(about["video"], tensors["tokens"], int(about["label"]))

    def batch(self, numbers: list[int]) -> tuple[Tensor, Tensor]:
        """Read some videos: tokens (batch, views, clips, dim) and labels (batch,).

        Raises:
            ValueError: A file is damaged, or the videos differ in their number of views.
        """
        videos = [self[number] for number in numbers]
        shapes = {tuple(video.tokens.shape) for video in videos}
        if len(shapes) > 1:
            raise ValueError(f"videos of one batch must have equally many views, got {shapes}")
        labels = torch.tensor([video.label for video in videos])
        return torch.stack([video.tokens for video in videos]), labels

    def check_model(self, model: ViViT) -> None:
        """Check that the tokens are those of a model's spatial model.

        Raises:
            ValueError: Its weights are others.
        """
        if digest(model.spatial.state_dict().values()) != self.manifest["weights"]:
            raise ValueError(
                f"{self.folder} holds outputs of a spatial model with other weights; load those, "
                f"or make the cache again"
            )

    def operations(self) -> tuple[float, float]:
        """Mean multiply-accumulates of the spatial model a video: used, and of the dense model."""
        counts = [read_about(path) for path in self.paths]
        names = ("operations", "dense_operations")
        used, dense = (sum(int(about[name]) for about in counts) / len(counts) for name in names)
        return used, dense

    def fingerprint(self) -> str:
        """Name the cache by what its tokens depend on and by its videos."""
        text = json.dumps([self.manifest, [path.name for path in self.paths]], sort_keys=True)
        return digest([torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)])


def cache_spatial_outputs(
    model: ViViT,
    videos: Iterable[Video],
    policy: Policy | Mapping[str, Policy] | None,
    folder: str | os.PathLike[str],
    *,
    normalize: bool = False,
    about: Mapping[str, str | int | float] | None = None,
    progress: Callable[[CacheProgress], None] | None = None,
) -> SpatialCache:
    """Run the eventful spatial model over videos and keep its class tokens.

    Each view starts anew; the views of a video run side by side. Videos that the folder holds
    already are left as they are, so that a run that was ended goes on where it was.

    Args:
        model: Its `spatial` is converted: `eventful.convert(model.spatial, ..., prefix="gated")`.
        videos: Triples of id, views (views, frames, 3, height, width) and class. In place of the
            views a function may stand that reads them. It is called only where they are needed,
            and returns None where there is nothing to read: the video is then left out.
        policy: Of all gates, or a mapping as `Stream` takes it; None for that of the conversion.
        folder: Where to; made if it is not there.
        normalize: The views are in [0, 1] and still to be normalised.
        about: What else the tokens depend on, such as data set, split and frame size.
        progress: Called after each video.

    Returns:
        The cache, which may hold videos of earlier runs too.

    Raises:
        ValueError: The model is not converted; the folder holds the outputs of another model,
            policy or option, or a video of the same id and another class; an id comes twice.
        TypeError: Views are not a floating-point tensor.

    Example:
        >>> import tempfile, torch, eventful
        >>> model = ViViT(classes=2, img_size=32, frames=4, dim=24, heads=3, depth=2).eval()
        >>> _ = eventful.convert(model.spatial, eventful.TopR(2), prefix="gated")
        >>> videos = [(f"video {i}", torch.rand(1, 4, 3, 32, 32), i) for i in range(2)]
        >>> cache = cache_spatial_outputs(model, videos, None, tempfile.mkdtemp())
        >>> len(cache), cache[1].label, cache[1].tokens.shape
        (2, 1, torch.Size([1, 2, 24]))
    """
    if not eventful_blocks(model.spatial):
        raise ValueError(
            "the spatial model is not converted; call eventful.convert(model.spatial, policy, "
            'prefix="gated") first, with KeepAll() for the dense model'
        )
    stream = Stream(model.spatial, policy=policy, normalize=normalize, scene_cuts=None)
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    _claim(place, _manifest(model.spatial, stream, normalize, about or {}))
    seen: set[str] = set()
    outcomes: Counter[str] = Counter()
    for video, views, label in videos:
        if video in seen:
            raise ValueError(f"the video {video!r} comes twice; ids must differ")
        seen.add(video)
        outcomes[_keep(stream, (video, views, label), place)] += 1
        if progress is not None:
            counts = outcomes["computed"], outcomes["unreadable"]
            progress(CacheProgress(len(seen), *counts, video))
    return SpatialCache(place)


def _keep(stream: Stream, item: Video, folder: Path) -> str:
    """Compute a video unless its file is there; say what came of it."""
    video, views, label = item
    path = folder / f"{quote(video, safe='')}.safetensors"
    if path.exists():
        known = int(read_about(path)["label"])
        if known != label:
            raise ValueError(
                f"{path} has class {known}, and {video!r} now comes with {label}; use another "
                f"folder for other labels"
            )
        return "kept"
    views = views if isinstance(views, Tensor) else views()
    if views is None:
        return "unreadable"
    before = stream.stats.total_operations, stream.stats.total_dense_operations
    tokens = spatial_tokens(stream, views)
    used = stream.stats.total_operations - before[0]
    about = {"video": video, "label": label, "operations": used}
    about |= {"dense_operations": stream.stats.total_dense_operations - before[1]}
    write_tensors({"tokens": tokens}, path, {key: str(value) for key, value in about.items()})
    return "computed"


def _manifest(
    spatial: nn.Module, stream: Stream, normalize: bool, about: Mapping[str, Any]
) -> dict[str, Any]:
    """Say what the tokens depend on, in what JSON can hold."""
    model = describe(spatial, eventful_blocks(spatial))
    policies = stream.policy if isinstance(stream.policy, dict) else {"*": stream.policy}
    return {
        "kind": "eventful spatial outputs",
        "weights": model["weights"],
        "options": model["options"],
        "policies": {gate: str(policy) for gate, policy in policies.items()},
        "normalize": normalize,
        "about": dict(about),
    }


def _claim(folder: Path, manifest: dict[str, Any]) -> None:
    """Write the manifest, or compare it with the one that is there.

    Raises:
        ValueError: They differ; the message says in what.
    """
    if not (folder / _MANIFEST).exists():
        if any(folder.glob("*.safetensors")):
            raise ValueError(f"{folder} holds tensors of unknown origin; use another folder")
        write_json(manifest, folder / _MANIFEST)
        return
    there = _read_manifest(folder)
    for key in manifest.keys() | there.keys():
        if there.get(key) != manifest.get(key):
            raise ValueError(
                f"{folder} holds outputs of other settings: {key} is "
                f"{_short(there.get(key), manifest.get(key))}; use another folder"
            )


def _short(there: Any, here: Any) -> str:
    """Show the first difference of two values."""
    if isinstance(there, dict) and isinstance(here, dict):
        for key in sorted(there.keys() | here.keys()):
            if there.get(key) != here.get(key):
                return f"{there.get(key)} there and {here.get(key)} here, for {key}"
    return f"{there} there and {here} here"


def _read_manifest(folder: Path) -> dict[str, Any]:
    try:
        content = json.loads((folder / _MANIFEST).read_text())
        if content["kind"] == "eventful spatial outputs":
            return content
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise ValueError(
        f"{folder} is not a folder that cache_spatial_outputs has made: it has no readable "
        f"{_MANIFEST} of its own"
    )
