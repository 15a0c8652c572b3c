"""What can be run: the demo's saliency network, or any timm model pictured by its features."""

from __future__ import annotations

import pickle
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from eventful.models import saliency_vit
from eventful.pretrained.pictures import PrincipalColours, heat
from eventful.stream.inputs import taken_size

if TYPE_CHECKING:
    from eventful.outputs import Network

Grid = tuple[int, int]
Picture = Callable[[Tensor, Grid], np.ndarray]


@dataclass(frozen=True)
class Subject:
    """A model to run.

    Attributes:
        name: As the user wrote it.
        backbone: What is converted; `forward_features` gives the final tokens.
        picture: Patch tokens (1, patches, dim) and their grid to an RGB image.
        title: What that image shows.
    """

    name: str
    backbone: nn.Module
    picture: Picture
    title: str

    @property
    def prefix(self) -> int:
        """Class and register tokens in front of the patch tokens."""
        return int(getattr(self.backbone, "num_prefix_tokens", 0))

    def patches(self, features: Tensor) -> Tensor:
        """Patch tokens (1, patches, dim) of what `forward_features` gives."""
        if features.ndim == 4:  # (1, dim, height, width), as Segment Anything's encoder gives
            return features.flatten(2).mT
        return features[:, self.prefix :]

    def normalize(self, image: Tensor) -> Tensor:
        """Bring an image in [0, 1] to the model's mean and standard deviation."""
        config: Any = self.backbone.pretrained_cfg
        mean, std = (torch.tensor(config[key]).view(1, -1, 1, 1) for key in ("mean", "std"))
        return (image - mean) / std


@dataclass(frozen=True)
class Unbuilt:
    """A model before it is built: its patch and default size are needed to open the video.

    Attributes:
        patch: Side of a patch in pixels.
        size: Side of the input that the model was made for.
        build: Makes the subject for an input of a height and width.
    """

    patch: int
    size: int
    build: Callable[[int, int], Subject]


def find(model: str, weights: Path | None) -> Unbuilt:
    """Find a model by name.

    Raises:
        ValueError: There is no such model, or its weights do not fit.
        FileNotFoundError: There is no such weights file.
    """
    if model == "demo":
        if weights is not None:
            raise ValueError("--weights goes with --model timm:NAME; the demo has its own")
        return Unbuilt(14, 518, _demo)
    kind, _, name = model.partition(":")
    if kind == "hf":
        raise ValueError(
            f"--model {model}: models of transformers go with run, inspect and evaluate folder; "
            f"here give 'demo' or 'timm:NAME', or use eventful from Python"
        )
    if kind != "timm" or not name:
        import timm  # noqa: PLC0415

        meant = timm.is_model(model) or _elsewhere(model)
        hint = f"; do you mean timm:{model}?" if meant else ""
        raise ValueError(f"--model is 'demo' or 'timm:NAME', got {model!r}{hint}")
    backbone = load_timm(name, weights)
    return Unbuilt(
        patch_size(backbone), input_size(backbone), lambda h, w: _timm(model, backbone, h, w)
    )


def _demo(height: int, width: int) -> Subject:
    model = saliency_vit((height, width)).eval()

    def picture(tokens: Tensor, grid: Grid) -> np.ndarray:
        return heat(model.decoder(tokens, grid)[0, 0].numpy())

    return Subject("demo", model.backbone, picture, "saliency")


def _timm(name: str, backbone: nn.Module, height: int, width: int) -> Subject:
    if hasattr(backbone, "set_input_size"):
        backbone.set_input_size(img_size=(height, width))  # type: ignore[operator]
    own = taken_size(backbone)
    if own is not None and own != (height, width):
        raise ValueError(
            f"{name} takes frames of {own[1]} x {own[0]} pixels only, and these are {width} x "
            f"{height}; give --size {own[1]} --square"
        )
    return Subject(name, backbone, PrincipalColours(), "principal components of the features")


def load_timm(name: str, weights: Path | None) -> nn.Module:
    """Build a timm model with weights from a file, or as timm downloads them."""
    check_name(name)
    import timm  # noqa: PLC0415

    if weights is not None:
        model = _made(timm.create_model, name)
        load_weights(model, weights)
        return model
    return _made(partial(timm.create_model, pretrained=True), name)


def timm_network(
    height: int,
    width: int,
    *,
    name: str,
    weights: Path | None,
    outputs: tuple[str, ...],
    patch: int,
) -> Network:
    """Embeddings of a timm model for frames of a height and width; workers of archives call it."""
    from eventful.outputs import token_network  # noqa: PLC0415 - optional libraries

    backbone: Any = load_timm(name, weights)
    if hasattr(backbone, "set_input_size"):
        backbone.set_input_size(img_size=(height, width))
    return token_network(backbone, outputs, patch)


def _made(create: Callable[..., nn.Module], name: str) -> nn.Module:
    """Let timm make a model, and download what it needs for that."""
    try:
        return create(name, num_classes=0).eval()
    except Exception as error:
        raise ValueError(
            f"timm could not get {name} ({type(error).__name__}: {error}); with no network, pass "
            f"--weights FILE, and a name that timm itself knows"
        ) from error


def _elsewhere(name: str) -> bool:
    """Whether timm looks for a model of this name on a hub or in a folder."""
    from timm.models import parse_model_name  # noqa: PLC0415

    try:
        return parse_model_name(name)[0] in ("hf-hub", "local-dir")
    except (AssertionError, ValueError):
        return False


def check_name(name: str) -> None:
    """Refuse a name that timm does not know, with near ones; hubs know their own."""
    import timm  # noqa: PLC0415

    if not _elsewhere(name) and not timm.is_model(name):
        known = timm.list_models()
        near = get_close_matches(name, known, n=5, cutoff=0.5)
        near = near or [other for other in known if name.split("_", maxsplit=1)[0] in other][:5]
        raise ValueError(f"timm has no model {name!r}; near names: {', '.join(near) or 'none'}")


def load_weights(model: nn.Module, path: Path) -> None:
    """Load a state dict from a .safetensors or .pth file, without running code in it.

    Keys of the classifier are left out, since features are what is run; every other key must fit.
    """
    from safetensors import SafetensorError  # noqa: PLC0415
    from timm.models import load_state_dict  # noqa: PLC0415

    if not path.is_file():
        raise FileNotFoundError(f"there is no weights file {path}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickles that are about to be refused
            state = load_state_dict(str(path))
        adapt = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
        state = adapt(state, model) if adapt else state
    except (*_DAMAGED, SafetensorError) as error:
        raise ValueError(
            f"{path} is refused: it is damaged, or holds more than tensors; save it with "
            f"torch.save(model.state_dict(), path) or safetensors"
        ) from error
    state = {key: value for key, value in state.items() if not key.startswith(_heads(model))}
    wrong = _mismatch(model.state_dict(), state)
    if wrong:
        raise ValueError(f"{path} does not fit {type(model).__name__}: {'; '.join(wrong)}")
    model.load_state_dict(state)


def _heads(model: nn.Module) -> tuple[str, ...]:
    """What the keys of a model's classifiers start with."""
    config: Any = model.pretrained_cfg
    names = config.get("classifier") or ()
    return tuple(f"{name}." for name in ([names] if isinstance(names, str) else names))


_DAMAGED = (  # what torch.load has been seen to raise on files cut short or full of other things
    pickle.UnpicklingError,
    RuntimeError,
    EOFError,
    OSError,
    LookupError,
    AttributeError,
    TypeError,
)


def _mismatch(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> list[str]:
    shapes = [
        f"{key} is {tuple(theirs[key].shape)} there and {tuple(ours[key].shape)} here"
        for key in ours.keys() & theirs.keys()
        if ours[key].shape != theirs[key].shape
    ]
    groups = (
        ("missing", sorted(ours.keys() - theirs.keys())),
        ("unknown", sorted(theirs.keys() - ours.keys())),
        ("of another shape", sorted(shapes)),
    )
    return [f"{len(keys)} {what}, such as {keys[0]}" for what, keys in groups if keys]


def patch_size(backbone: nn.Module) -> int:
    """Side of a model's patch."""
    embed: Any = getattr(backbone, "patch_embed", None)
    size = getattr(embed, "patch_size", None)
    if hasattr(embed, "feat_ratio"):  # after convolutions a patch is larger
        size = embed.feat_ratio(as_scalar=False)
    if size is None or size[0] != size[1]:
        raise ValueError(
            f"a {type(backbone).__name__} has no square patches to picture; if it is a "
            f"transformer all the same, run it from Python with eventful.Stream"
        )
    return int(size[0])


def check_size(size: int, patch: int) -> None:
    """Refuse a side that is no multiple of the patch, with near ones."""
    low = size // patch * patch
    if size != low or size <= 0:
        near = f"{low} or {low + patch}" if low > 0 else f"{patch}"
        raise ValueError(f"--size {size} is no multiple of the patch of {patch}; use {near}")


def input_size(backbone: nn.Module) -> int:
    """Side of the input that a model was made for."""
    config: Any = backbone.pretrained_cfg
    return int(config["input_size"][-1])
