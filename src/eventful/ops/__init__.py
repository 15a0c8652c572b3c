"""Operations on index sets and attention states, as the equations have them."""

from eventful.ops.attention import attend, merge, replace_keys
from eventful.ops.exchange import exchange_keys
from eventful.ops.gating import error_norm, remember_
from eventful.ops.index import Index
from eventful.ops.relative import RelativePositions

__all__ = [
    "Index",
    "RelativePositions",
    "attend",
    "error_norm",
    "exchange_keys",
    "merge",
    "remember_",
    "replace_keys",
]
