"""The whole model, and its published sizes."""

from __future__ import annotations

from torch import Tensor, nn

from eventful.models.vivit.blocks import FRAMES, MEAN, PATCH, STD, initialize_
from eventful.models.vivit.spatial import SpatialModel, tubelets
from eventful.models.vivit.temporal import TemporalModel


class ViViT(nn.Module):
    """Action recognition: `head(temporal(spatial of every tubelet))`, averaged over views.

    Args:
        classes: Number of classes.
        img_size: Side of the frames, or (height, width), that the positions are learned for. Other
            sizes run too, with positions interpolated.
        frames: Frames of a view.
        dim: Size of a token.
        heads: Heads of each block.
        depth: Blocks of the spatial model.
        temporal_depth: Blocks of the temporal model.
        patch: Side of a tubelet in pixels.
        dropout: Share of features dropped in front of the classifier, in train mode alone.

    Attributes:
        spatial: `SpatialModel`.
        temporal: `TemporalModel`.
        head: The linear classifier; `head_drop` stands before it.
        pretrained_cfg: "mean" and "std" that frames in [0, 1] are normalised with.

    Raises:
        ModuleNotFoundError: timm is not installed.
        ValueError: Frames do not divide into tubelets, or tokens into heads.

    Example:
        >>> import torch
        >>> model = ViViT(classes=7, img_size=32, frames=4, dim=24, heads=3, depth=2).eval()
        >>> model(torch.zeros(1, 3, 4, 3, 32, 32)).shape  # one video, three views
        torch.Size([1, 7])
    """

    def __init__(
        self,
        classes: int,
        img_size: int | tuple[int, int] = 224,
        frames: int = 32,
        dim: int = 768,
        heads: int = 12,
        depth: int = 12,
        temporal_depth: int = 4,
        patch: int = PATCH,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        grid = _grid(img_size, patch)
        if frames < FRAMES or frames % FRAMES:
            raise ValueError(f"expected a multiple of {FRAMES} frames a view, got {frames}")
        if dim % heads:
            raise ValueError(f"dim={dim} does not divide into {heads} heads")
        self.frames = frames
        self.pretrained_cfg = {"mean": (MEAN,) * 3, "std": (STD,) * 3}
        self.spatial = SpatialModel(grid, dim, heads, depth, patch)
        self.temporal = TemporalModel(frames // FRAMES, dim, heads, temporal_depth)
        self.head_drop = nn.Dropout(dropout)
        self.head = nn.Linear(dim, classes)
        initialize_(self.head)

    def forward(self, views: Tensor) -> Tensor:
        """Classify videos, dense.

        Args:
            views: (batch, views, frames, 3, height, width), normalised.

        Returns:
            Logits (batch, classes), averaged over the views.

        Raises:
            ValueError: The views have another shape.
        """
        if views.ndim != 6 or views.shape[2] != self.frames:
            raise ValueError(
                f"expected views (batch, views, {self.frames}, 3, height, width), got "
                f"{tuple(views.shape)}"
            )
        clips = tubelets(views.flatten(0, 1)).unflatten(0, views.shape[:2])
        tokens = self.spatial(clips.flatten(0, 2)).unflatten(0, clips.shape[:3])
        return self.classify(tokens)

    def classify(self, tokens: Tensor) -> Tensor:
        """Classify videos by what the spatial model has made of them.

        Args:
            tokens: (batch, views, clips, dim).

        Returns:
            Logits (batch, classes), averaged over the views as in the paper's own code. (TAdaConv
            averages probabilities.)

        Raises:
            ValueError: The tokens have another shape.
        """
        if tokens.ndim != 4:
            raise ValueError(
                f"expected tokens (batch, views, clips, dim), got {tuple(tokens.shape)}"
            )
        features = self.temporal(tokens.flatten(0, 1))
        logits = self.head(self.head_drop(features))
        return logits.unflatten(0, tokens.shape[:2]).mean(dim=1)


def vivit_b_epic() -> ViViT:
    """ViViT-B for the 97 verbs of EPIC-Kitchens 100: 320 x 320 pixels, 32 frames, 401 tokens.

    Returns:
        The model in eval mode, its weights random.

    Example:
        >>> import torch
        >>> with torch.device("meta"):
        ...     model = vivit_b_epic()
        >>> model.spatial.pos_embed.shape
        torch.Size([1, 401, 768])
    """
    return ViViT(classes=97, img_size=320).eval()


def vivit_b_kinetics() -> ViViT:
    """ViViT-B for the 400 classes of Kinetics-400: 224 x 224 pixels, 32 frames, 197 tokens.

    Returns:
        The model in eval mode, its weights random.

    Example:
        >>> import torch
        >>> with torch.device("meta"):
        ...     model = vivit_b_kinetics()
        >>> model.spatial.pos_embed.shape
        torch.Size([1, 197, 768])
    """
    return ViViT(classes=400, img_size=224).eval()


def _grid(img_size: int | tuple[int, int], patch: int) -> tuple[int, int]:
    height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
    if min(height, width) < patch or height % patch or width % patch:
        raise ValueError(
            f"expected sides that are multiples of {patch} pixels, got {height} x {width}"
        )
    return height // patch, width // patch
