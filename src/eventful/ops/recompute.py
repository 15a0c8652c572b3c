"""Computing some rows of attention anew, of which it is known only now how many they are."""

from __future__ import annotations

import torch
from torch import Tensor

from eventful.ops.attention import attend
from eventful.ops.backends import Backend, choose_backend
from eventful.ops.index import flatten_positions
from eventful.ops.relative import RelativePositions

State = tuple[Tensor, Tensor, Tensor]  # output, log-sum-exp and its peak


def recompute_(
    state: State,
    qkv: tuple[Tensor, Tensor, Tensor],
    scale: float,
    active: Tensor,
    due: Tensor,
    bias: RelativePositions | None = None,
    spare: int | None = None,
    corrected: tuple[Tensor, State] | None = None,
) -> tuple[Tensor, Tensor]:
    """Write corrected rows into an incremental state, and compute others against all keys.

    This is one operator, `eventful::recompute_`, to the compiler. Within it, the number of rows
    that are due may be looked at, which on a CPU costs nothing. On other devices `spare` fixes it.

    Args:
        state: Output (batch, tokens, heads, dim), log-sum-exp and its peak (batch, tokens, heads);
            written to, and nowhere else, so that the compiler needs no copy.
        qkv: Queries, keys and values, (batch, heads, tokens, dim) each.
        scale: Factor on the scores.
        active: (batch, active) rows to compute in any case.
        due: (batch, tokens) whether a further row must be computed; False at `active`.
        bias: Relative positions of all queries on all keys.
        spare: Compute so many rows beside `active` whether due or not, due ones first; None for
            the largest number that is due in any batch row.
        corrected: Rows (batch, rows) and their new values, to be written first.

    Returns:
        How many rows beside `active` were computed in each batch row, and whether more were due
        than `spare`: two numbers.

    Example:
        >>> q, k, v = torch.randn(3, 1, 2, 5, 4).unbind(0)
        >>> state = torch.zeros(1, 5, 2, 4), torch.zeros(1, 5, 2), torch.zeros(1, 5, 2)
        >>> due = torch.tensor([[True, False, False, True, False]])
        >>> more, overflow = recompute_(state, (q, k, v), 0.5, torch.tensor([[1]]), due)
        >>> more.item(), overflow.item(), state[1][0, :, 0].ne(0).tolist()
        (2, False, [True, True, False, True, False])
    """
    return torch.ops.eventful.recompute_(
        *state,
        *qkv,
        scale,
        active,
        due,
        None if bias is None else bias.table,
        [] if bias is None else list(bias.grid),
        spare,
        choose_backend(qkv[0], None),
        None if corrected is None else corrected[0],
        [] if corrected is None else list(corrected[1]),
    )


def _recompute_(
    output: Tensor,
    lse: Tensor,
    peak: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: float,
    active: Tensor,
    due: Tensor,
    table: Tensor | None,
    grid: list[int],
    spare: int | None,
    backend: Backend,
    rows: Tensor | None,
    values: list[Tensor],
) -> tuple[Tensor, Tensor]:
    state = output, lse, peak
    if rows is not None:
        _write_(state, rows, values)
    asked = due.sum(dim=1).amax()
    more = min(int(asked) if spare is None else spare, due.shape[1] - active.shape[1])
    first = due.to(torch.uint8).scatter(1, active, 2).topk(active.shape[1] + more, dim=1).indices
    q = take(q, first)
    bias = None
    if table is not None:
        bias = RelativePositions(take(table, first), (grid[0], grid[1]))
    o, new = (x.transpose(1, 2) for x in attend(q, k, v, scale, bias, backend))
    _write_(state, first, [o.to(output.dtype), new, new])
    return asked.new_tensor(more), asked > more


def _write_(state: State, rows: Tensor, values: list[Tensor]) -> None:
    """Write values (batch, rows, ...) over the given rows (batch, rows) of every state tensor."""
    flat = flatten_positions(rows, state[0].shape[1])
    for x, new in zip(state, values, strict=True):
        x.flatten(0, 1).index_copy_(0, flat, new.flatten(0, 1))


def recompute_windows_(
    output: Tensor,
    qkv: Tensor,
    heads: int,
    scale: float,
    touched: Tensor,
    bias: RelativePositions | None = None,
    spare: int | None = None,
) -> None:
    """Compute attention within some windows and write it into the output of all.

    One operator, `eventful::recompute_windows_`, as `recompute_` is and for the same reason.

    Args:
        output: (windows, size, heads * dim); written to.
        qkv: (windows, size, 3 * heads * dim).
        heads: H.
        scale: Factor on the scores.
        touched: (windows,) which to compute.
        bias: Relative positions in all windows.
        spare: Compute so many, touched ones first; None for those touched alone.

    Example:
        >>> output = torch.zeros(3, 4, 10)
        >>> touched = torch.tensor([False, True, False])
        >>> recompute_windows_(output, torch.randn(3, 4, 30), 2, 0.5, touched)
        >>> output.flatten(1).ne(0).all(dim=1).tolist()
        [False, True, False]
    """
    table, grid = (None, []) if bias is None else (bias.table, list(bias.grid))
    backend = choose_backend(qkv.unflatten(-1, (3 * heads, -1)), None)
    torch.ops.eventful.recompute_windows_(
        output, qkv, heads, scale, touched, table, grid, spare, backend
    )


def _recompute_windows_(
    output: Tensor,
    qkv: Tensor,
    heads: int,
    scale: float,
    touched: Tensor,
    table: Tensor | None,
    grid: list[int],
    spare: int | None,
    backend: Backend,
) -> None:
    if spare is None:
        chosen = touched.nonzero().squeeze(1)
    else:
        chosen = touched.to(torch.uint8).topk(spare).indices.sort().values
    if len(chosen) < len(touched):
        qkv = qkv.index_select(0, chosen)
        table = None if table is None else table.index_select(0, chosen)
    q, k, v = qkv.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
    bias = None if table is None else RelativePositions(table, (grid[0], grid[1]))
    o, _ = attend(q, k, v, scale, bias, backend)
    output.index_copy_(0, chosen, o.transpose(1, 2).flatten(2))


def take(x: Tensor, rows: Tensor) -> Tensor:
    """Pick rows (batch, rows) of x (batch, heads, tokens, dim)."""
    x = x.transpose(1, 2)
    if len(x) == 1:
        return x[0].index_select(0, rows[0])[None].transpose(1, 2)
    return x[torch.arange(len(rows), device=x.device)[:, None], rows].transpose(1, 2)


_library = torch.library.Library("eventful", "FRAGMENT")
_library.define(
    "recompute_(Tensor(a!) output, Tensor(b!) lse, Tensor(c!) peak, Tensor q, Tensor k, Tensor v, "
    "float scale, Tensor active, Tensor due, Tensor? table, int[] grid, int? spare, "
    "str backend, Tensor? rows, Tensor[] values) -> (Tensor, Tensor)",
    tags=(torch.Tag.needs_fixed_stride_order,),
)


_library.define(
    "recompute_windows_(Tensor(a!) output, Tensor qkv, int heads, float scale, Tensor touched, "
    "Tensor? table, int[] grid, int? spare, str backend) -> ()",
    tags=(torch.Tag.needs_fixed_stride_order,),
)
OPERATORS = {"recompute_": _recompute_, "recompute_windows_": _recompute_windows_}
for _name, _implementation in OPERATORS.items():
    _library.impl(_name, _implementation, "CompositeExplicitAutograd")


@torch.library.register_fake("eventful::recompute_", lib=_library)
def _recompute_shapes(output: Tensor, *_: object) -> tuple[Tensor, Tensor]:
    return output.new_empty((), dtype=torch.int64), output.new_empty((), dtype=torch.bool)


@torch.library.register_fake("eventful::recompute_windows_", lib=_library)
def _recompute_windows_shapes(*_: object) -> None:
    return None
