"""Networks whose outputs are kept, and the demo's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from eventful.models import saliency_vit
from eventful.outputs.heads import Boxes, Head, Mask, Patches, Pooled
from eventful.stream.inputs import Normalize

PATCH = 14
OUTPUTS = ("pooled", "patches", "vehicles", "saliency")


@dataclass(frozen=True)
class Network:
    """A model and what is kept of its output.

    Attributes:
        model: Not converted yet; workers convert it.
        heads: The columns.
        method: The model's method to run.
        normalize: As for `eventful.Stream`; frames are in [0, 1].
    """

    model: nn.Module
    heads: tuple[Head, ...]
    method: str = "forward"
    normalize: Normalize = True


def demo_network(height: int, width: int, outputs: tuple[str, ...] = ("pooled",)) -> Network:
    """The demo's ViT-S/14 with what stands on its patch tokens.

    Args:
        height: Of frames, a multiple of 14.
        width: The same.
        outputs: Of "pooled" and "patches" (embeddings), "vehicles" (boxes; the detector knows the
            camera of CDnet's "highway" alone) and "saliency" (a mask).

    Raises:
        ValueError: One of the outputs is unknown.

    Example:
        >>> list(demo_network(28, 42, outputs=("patches",)).heads[0].types)
        ['patches', 'grid']
    """
    check_outputs(outputs, OUTPUTS)
    whole = saliency_vit((height, width))
    grid, prefix = (height // PATCH, width // PATCH), whole.backbone.num_prefix_tokens

    def tokens(output: Tensor) -> Tensor:
        return output[:, prefix:]

    def vehicles() -> Head:
        from eventful.models import vehicle_detector  # noqa: PLC0415 - needs torchvision

        detector = vehicle_detector()
        return Boxes(lambda output: detector(tokens(output), grid)[0])

    dim = whole.backbone.embed_dim
    heads = {
        "pooled": lambda: Pooled(tokens, dim),
        "patches": lambda: Patches(tokens, dim, PATCH),
        "vehicles": vehicles,
        "saliency": lambda: Mask(lambda output: whole.decoder(tokens(output), grid)),
    }
    chosen = tuple(heads[name]() for name in outputs)
    return Network(whole.backbone, chosen, method="forward_features")


def token_network(model: Any, outputs: tuple[str, ...], patch: int) -> Network:
    """Embeddings of a timm backbone.

    Args:
        model: Its `forward_features` gives tokens (batch, prefix + patches, dim), or a grid of them
            (batch, dim, height, width).
        outputs: Of "pooled" and "patches".
        patch: Side of a patch in pixels.

    Raises:
        ValueError: One of the outputs is unknown.

    Example:
        >>> import timm
        >>> model = timm.create_model("test_vit", num_classes=0).eval()
        >>> list(token_network(model, ("pooled",), patch=16).heads[0].types)
        ['embedding']
    """
    check_outputs(outputs, OUTPUTS[:2])
    prefix, dim = int(getattr(model, "num_prefix_tokens", 0)), int(model.num_features)

    def tokens(output: Tensor) -> Tensor:
        return output.flatten(2).mT if output.ndim == 4 else output[:, prefix:]

    heads = {"pooled": Pooled(tokens, dim), "patches": Patches(tokens, dim, patch)}
    return Network(model, tuple(heads[name] for name in outputs), method="forward_features")


def check_outputs(outputs: tuple[str, ...], known: tuple[str, ...]) -> None:
    """Refuse outputs that a model does not give."""
    unknown = [name for name in outputs if name not in known]
    if unknown or not outputs:
        got = ", ".join(map(repr, outputs)) or "none"
        raise ValueError(f"outputs of this model are {', '.join(known)}; got {got}")
