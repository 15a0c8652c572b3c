"""ViTDet: a plain vision transformer, a simple pyramid and Detectron2's detection heads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import final

import torch
from torch import Tensor, nn

from eventful.models.vitdet.backbone import ViTDetBackbone
from eventful.models.vitdet.box_heads import BoxHeads
from eventful.models.vitdet.boxes import Size, check_size
from eventful.models.vitdet.detections import Detections
from eventful.models.vitdet.mask_head import MaskHead
from eventful.models.vitdet.pyramid import SimplePyramid
from eventful.models.vitdet.rpn import RPN


@final
class ViTDet(nn.Module):
    """An object detector (Li et al. 2022, "Exploring Plain Vision Transformer Backbones").

        features = pyramid(backbone(frame));   detections = heads(proposals(features))

    For inference; there are no losses. On video, the backbone is made eventful and `features` runs
    in a stream:

        eventful.convert(model, eventful.TopR(512))
        stream = eventful.Stream(model, method="features")
        for frame in frames:
            detections = model.detect(stream(frame), sizes)

    Args:
        backbone: Images to tokens (batch, height, width, dim).
        pyramid: Those to the maps "p2" to "p6".
        rpn: Maps to proposals.
        box_heads: Proposals to detections.
        mask_head: Detections to masks, if there are any.

    Example:
        >>> import torch
        >>> from eventful.models.vitdet.box_heads import BoxHead
        >>> backbone = ViTDetBackbone(64, embed_dim=12, depth=2, num_heads=3, global_blocks=(1,))
        >>> heads = BoxHeads([BoxHead(classes=5, channels=8, hidden=16)], score_threshold=0.0)
        >>> model = ViTDet(backbone, SimplePyramid(12, 8), RPN(8), heads).eval()
        >>> found, other = model(torch.zeros(2, 3, 64, 96), sizes=[(64, 80), (48, 96)])
        >>> len(found), found.boxes[:, 2].max() <= 80
        (100, tensor(True))
    """

    def __init__(
        self,
        backbone: ViTDetBackbone,
        pyramid: SimplePyramid,
        rpn: RPN,
        box_heads: BoxHeads,
        mask_head: MaskHead | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.pyramid = pyramid
        self.rpn = rpn
        self.box_heads = box_heads
        self.mask_head = mask_head

    def features(self, frame: Tensor) -> dict[str, Tensor]:
        """Compute the pyramid, which is what a stream runs.

        Args:
            frame: Normalised images (batch, 3, height, width), padded with zeros at the bottom and
                on the right to sides in whole patches. For a stream with `normalize=True` pad with
                `backbone.pretrained_cfg["mean"]`, which becomes zero.

        Returns:
            "p2" to "p6", (batch, channels, ...) each.
        """
        return self.pyramid(self.backbone(frame))

    @torch.no_grad()
    def detect(
        self, features: Mapping[str, Tensor], sizes: Sequence[Size] | None = None
    ) -> list[Detections]:
        """Detect objects.

        Args:
            features: What `features` returned.
            sizes: Height and width of each image without its padding, in pixels, which boxes are
                clipped to. None takes the padding as part of the image; the code of the paper on
                Eventful Transformers does this, Detectron2 does not.

        Returns:
            The detections of each image, in pixels of the frame. `Detections.scaled` brings them to
            another size.

        Raises:
            ValueError: There are more or fewer sizes than images, or an image is larger than the
                frame.
        """
        sizes = _checked(sizes, features["p2"])
        detections = self.box_heads(features, self.rpn(features, sizes), sizes)
        return self.mask_head(features, detections) if self.mask_head else detections

    def forward(self, frame: Tensor, sizes: Sequence[Size] | None = None) -> list[Detections]:
        """Compute the pyramid of a frame and detect objects: `detect(features(frame), sizes)`."""
        return self.detect(self.features(frame), sizes)


def _checked(sizes: Sequence[Size] | None, p2: Tensor) -> list[Size]:
    batch, _, *cells = p2.shape
    height, width = (4 * side for side in cells)
    if sizes is None:
        return [(height, width)] * batch
    if len(sizes) != batch:
        raise ValueError(
            f"expected the height and width of each of {batch} images, got {len(sizes)}; pass "
            f"sizes=[(height, width), ...]"
        )
    for size in sizes:
        check_size(size, "each size")
        if size[0] > height or size[1] > width:
            raise ValueError(
                f"an image of {size[0]} x {size[1]} pixels does not fit into the frame of {height} "
                f"x {width}; sizes are those of the resized images, before padding"
            )
    return list(sizes)
