"""Motion between frames, and what is moved along it."""

from eventful.motion.between import Between
from eventful.motion.carry import carry
from eventful.motion.flow import Flow, on_grid
from eventful.motion.rank import rank, rank_between
from eventful.motion.view import Look, Picture, View, patch_rms

__all__ = [
    "Between",
    "Flow",
    "Look",
    "Picture",
    "View",
    "carry",
    "on_grid",
    "patch_rms",
    "rank",
    "rank_between",
]
