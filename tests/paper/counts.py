"""The paper's counting rules as whole-number formulas; one multiply-accumulate is one operation."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

Kinds = Counter[str]


@dataclass(frozen=True)
class Size:
    """One block on one frame.

    Attributes:
        dim: D.
        heads: H.
        tokens: N.
        grid: Height and width where attention knows them.
        window: Side of the windows; 0 is global attention.
        positions: Whether there are relative positions.
        pooling: Side of the cells of keys and values in global attention.
        hidden: Width of the MLP.
        kept: Tokens that go on behind attention; 0 is all.
    """

    dim: int
    heads: int
    tokens: int
    grid: tuple[int, int] | None = None
    window: int = 0
    positions: bool = False
    pooling: int = 1
    hidden: int = 0
    kept: int = 0

    @property
    def queries(self) -> int:
        """All of them, padding included."""
        if not self.window:
            return self.tokens
        height, width = self.grid
        return ceil(height, self.window) * ceil(width, self.window) * self.window**2

    @property
    def lines(self) -> tuple[int, int]:
        """Height and width of what a query attends to."""
        if self.window:
            return self.window, self.window
        return ceil(self.grid[0], self.pooling), ceil(self.grid[1], self.pooling)

    @property
    def keys(self) -> int:
        """Of one query."""
        if self.grid is None:
            return self.tokens
        return self.lines[0] * self.lines[1]

    @property
    def behind(self) -> int:
        """Tokens behind attention."""
        return self.kept or self.tokens


def ceil(length: int, side: int) -> int:
    return -(-length // side)


def linear(n_in: int, n_out: int) -> int:
    """Of one token, with its bias."""
    return n_in * n_out + n_out


def token_wise(size: Size, qkv: int, proj: int, mlp: int) -> Kinds:
    """Of so many tokens; the skip connections add whole tensors."""
    dim, hidden = size.dim, size.hidden or 4 * size.dim
    return Counter(
        qkv=qkv * linear(dim, 3 * dim),
        projection=proj * linear(dim, dim),
        mlp=mlp * (linear(dim, hidden) + linear(hidden, dim)),
        additions=2 * size.behind * dim,
    )


def position_terms(size: Size, queries: int, scores: int) -> Kinds:
    """Each query with each line of both axes, and two additions for every score of every head."""
    if not size.positions:
        return Counter()
    return Counter(
        query_key=queries * sum(size.lines) * size.dim, additions=2 * size.heads * scores
    )


def whole_attention(size: Size) -> Kinds:
    """Both products and the position terms of all queries."""
    scores = size.queries * size.keys
    products = Counter(query_key=scores * size.dim, attention_value=scores * size.dim)
    return products + position_terms(size, size.queries, scores)


def class_row(size: Size) -> Kinds:
    """The class token's row of A, which sampling computes for itself in every form."""
    chooses = 0 < size.kept < size.tokens
    return Counter(query_key=size.keys * size.dim if chooses else 0)


def dense(size: Size) -> Kinds:
    tokens = token_wise(size, size.tokens, size.behind, size.behind)
    return tokens + whole_attention(size) + class_row(size)


def gates(size: Size) -> Kinds:
    """The subtractions of the three token gates."""
    return Counter(gates=(size.tokens + 2 * size.behind) * size.dim)


def eventful(size: Size, form: str, updated: Sequence[int], keys: int = -1) -> Kinds:
    """A frame that is not the first, in the paper's variants.

    Args:
        size: Of the block.
        form: "dense" (token-wise only), "query_key" or "cached" (full).
        updated: Tokens that the gates of QKV, projection and MLP let through.
        keys: Keys among the first of them: pooled ones, or as many as tokens.
    """
    kinds = token_wise(size, *updated) + gates(size) + class_row(size)
    active, keys = updated[0], updated[0] if keys < 0 else keys
    if form == "dense" or size.window or active == size.tokens:
        return kinds + whole_attention(size)
    scores = size.tokens * size.keys
    kinds += Counter(query_key=(active * size.keys + size.tokens * keys) * size.dim)
    kinds += position_terms(size, size.tokens, scores)
    if form == "query_key":
        return kinds + Counter(attention_value=scores * size.dim)
    return kinds + Counter(
        attention_value=2 * size.tokens * keys * size.dim,
        gates=size.keys * size.dim + size.heads * scores,
        additions=keys * size.dim + 2 * size.tokens * size.dim,
    )


def incremental(
    size: Size, updated: Sequence[int], keys: int, computed: int, corrected: int
) -> Kinds:
    """The same for incremental attention, which is not the paper's.

    A row that is computed meets all keys. A row that is corrected has old keys taken out, new ones
    put in, and its output changed twice. Tables of relative positions are kept with the queries.

    Args:
        size: Of the block.
        updated: As above.
        keys: As above.
        computed: Rows computed against all their keys.
        corrected: Rows corrected.
    """
    scores = computed * size.keys + 2 * corrected * keys
    kinds = token_wise(size, *updated) + gates(size) + position_terms(size, updated[0], scores)
    products = Counter(query_key=scores * size.dim, attention_value=scores * size.dim)
    return kinds + products + class_row(size) + Counter(additions=2 * corrected * size.dim)


def total(kinds: Kinds) -> int:
    return sum(kinds.values())
