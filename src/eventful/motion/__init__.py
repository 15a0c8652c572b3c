"""Motion between frames, and what is moved along it."""

from eventful.motion.carry import carry
from eventful.motion.flow import Motion
from eventful.motion.residual import Residual

__all__ = ["Motion", "Residual", "carry"]
