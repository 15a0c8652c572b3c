"""Operations on index sets and attention states, as the equations have them."""

from eventful.ops.attention import attend, merge, replace_keys
from eventful.ops.index import Index
from eventful.ops.relative import RelativePositions

__all__ = ["Index", "RelativePositions", "attend", "merge", "replace_keys"]
