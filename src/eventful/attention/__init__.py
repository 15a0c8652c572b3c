"""Four ways to keep attention up to date when some tokens' q, k and v have changed.

All take the same buffered q, k, v and give the attention output of every token. `Dense`,
`QueryKey` and `Incremental` agree with full attention over the buffers up to rounding; `Cached`
follows the paper's equations, which drop part of the renormalisation (docs, method, section 4).
`Windowed` is attention within windows, for any of them; `Pooling` averages keys and values.
"""

from typing import Literal

from eventful.attention.form import (
    Attention,
    AttentionState,
    Bias,
    Dense,
    Keys,
    join_heads,
    split_heads,
)
from eventful.attention.incremental import Incremental
from eventful.attention.paper import Cached, Mapped, QueryKey
from eventful.attention.pooling import Pooling
from eventful.attention.windows import Seats, Windowed, Windows

AttentionName = Literal["dense", "query_key", "cached", "incremental"]

FORMS: dict[AttentionName, type[Attention]] = {
    "dense": Dense,
    "query_key": QueryKey,
    "cached": Cached,
    "incremental": Incremental,
}

__all__ = [
    "FORMS",
    "Attention",
    "AttentionName",
    "AttentionState",
    "Bias",
    "Cached",
    "Dense",
    "Incremental",
    "Keys",
    "Mapped",
    "Pooling",
    "QueryKey",
    "Seats",
    "Windowed",
    "Windows",
    "join_heads",
    "split_heads",
]
