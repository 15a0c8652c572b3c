"""Triton kernels against the plain forms that specify them, and against float64.

The kernels run natively on CUDA, and on a CPU in Triton's interpreter. Triton must not have been
imported before that is asked for, so the interpreter has a process of its own: there this file runs
once more, started by `test_the_kernels_in_the_interpreter`.
"""

import importlib.util
import os
import re
import subprocess
import sys
from importlib.metadata import version
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from eventful.ops import attend, backends, error_norm, exchange_keys, remember_

from .conftest import TOLERANCE, error

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
HAS_TRITON = importlib.util.find_spec("triton") is not None
kernels = pytest.mark.skipif(
    not (HAS_TRITON and (INTERPRETED or torch.cuda.is_available())),
    reason="there is no CUDA; test_the_kernels_in_the_interpreter runs this",
)
pytestmark = [  # NumPy's warnings in the interpreter
    # of rows whose mass is lost, and of those that fill a block up
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
    # of loops in Triton before 3.3
    pytest.mark.filterwarnings("ignore:Conversion of an array:DeprecationWarning"),
]

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
BATCH, HEADS, QUERIES, KEYS, DIM = 3, 2, 7, 11, 5
SCALE = 0.3
INF = torch.inf


@pytest.mark.skipif(INTERPRETED, reason="this is the process of the interpreter")
@pytest.mark.skipif(not HAS_TRITON, reason="there is no triton to import")
def test_the_kernels_in_the_interpreter():
    if version("triton") < "3.2" and np.lib.NumpyVersion(np.__version__) >= "2.0.0":
        pytest.skip("before Triton 3.2 the interpreter reads wrong memory under NumPy 2")
    root = Path(__file__).parents[2]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__],
        cwd=root,
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert re.search(r"\d+ passed, 1 skipped", run.stdout), run.stdout


def triton(operation, *args):
    """Run an operation's kernel, with NaN in all memory that nobody has written to yet."""
    torch.use_deterministic_algorithms(True)
    assert torch.empty(3).isnan().all()
    try:
        return operation(*args, backend="triton")
    finally:
        torch.use_deterministic_algorithms(False)


def draw(*shape, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator).to(DEVICE, dtype)


def over(q, k, v):
    """The state over some keys in float64."""
    q, k, v = (x.double() for x in (q, k, v))
    scores = SCALE * q @ k.mT
    return scores.softmax(dim=-1) @ v, scores.logsumexp(dim=-1)


class Exchange:
    """Some of `kept + old` keys are replaced; the scores are small, so that much mass is left."""

    def __init__(self, dtype=torch.float32, queries=QUERIES, kept=KEYS, old=5, new=5, dim=DIM):
        self.q = 0.3 * draw(BATCH, HEADS, queries, dim, dtype=dtype)
        sizes = enumerate((kept, old, new), start=1)
        self.kept, self.old, self.new = (
            draw(2, BATCH, HEADS, size, dim, dtype=dtype, seed=seed).unbind(0)
            for seed, size in sizes
        )

    def state(self):
        """The state before, as it is kept: in float32."""
        return tuple(x.float() for x in over(self.q, *self._keys(self.old)))

    def expected(self):
        return over(self.q, *self._keys(self.new))

    def run(self, backend):
        arguments = self.q, *self.state(), self.old, self.new, SCALE
        if backend == "plain":
            return exchange_keys(*arguments, backend="plain")
        return triton(exchange_keys, *arguments)

    def _keys(self, others):
        return (torch.cat(pair, dim=2) for pair in zip(self.kept, others, strict=True))


def assert_close(found, expected, dtype):
    """Outputs to four times the dtype's tolerance, as half the mass may go; lse as in float32."""
    (o, lse), (o_expected, lse_expected) = found, expected
    assert (o.dtype, lse.dtype) == (torch.float32, torch.float32)
    assert error(o, o_expected) < 4 * TOLERANCE[dtype]
    assert error(lse, lse_expected) < 4 * TOLERANCE[torch.float32]


@kernels
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("dim", [5, 8, 64])
@pytest.mark.parametrize(("queries", "active"), [(1, 1), (3, 5), (7, 11), (11, 3)])
def test_an_exchange_of_keys(queries, active, dim, dtype):
    exchange = Exchange(dtype, queries, old=active, new=active, dim=dim)
    found = exchange.run("triton")
    assert_close(found, exchange.run("plain"), dtype)
    assert_close(found, exchange.expected(), dtype)


@kernels
@pytest.mark.parametrize(
    "sizes",
    [
        {"queries": 67, "kept": 71, "old": 35, "new": 37},
        {"queries": 35, "kept": 71, "old": 65, "new": 33, "dim": 72},
        {"queries": 33, "kept": 71, "old": 17, "new": 49, "dim": 131},
        {"queries": 3, "old": 0, "new": 7},
        {"queries": 3, "old": 7, "new": 0},
    ],
    ids=str,
)
def test_blocks_that_are_not_full_and_more_keys_on_one_side(sizes):
    exchange = Exchange(**sizes)
    found = exchange.run("triton")
    assert_close(found, exchange.run("plain"), torch.float32)
    assert_close(found, exchange.expected(), torch.float32)


@kernels
@pytest.mark.parametrize("queries", [0, QUERIES])
def test_an_exchange_of_nothing_changes_nothing(queries):
    exchange = Exchange(queries=queries, old=0, new=0)
    for found, before in zip(exchange.run("triton"), exchange.state(), strict=True):
        assert torch.equal(found, before)


@kernels
def test_a_state_of_no_keys_becomes_that_of_the_new_ones():
    exchange = Exchange(kept=0, old=0)
    o, lse = exchange.run("triton")
    assert_close((o, lse), exchange.expected(), torch.float32)


@kernels
@pytest.mark.parametrize("last", [1, 2], ids=["values side by side", "every second value"])
def test_keys_are_read_where_they_lie(last):
    """q, k and v are columns of one buffer, of which every third row is taken; o lies as ever."""
    x = draw(2, BATCH, 3 * KEYS, 3, HEADS, last * DIM)[:, :, ::3, :, :, ::last]
    (q, old_k, old_v), (_, new_k, new_v) = x.permute(0, 3, 1, 4, 2, 5)
    q = 0.3 * q.transpose(0, 1).contiguous().transpose(0, 1)
    o, lse = (x.float().transpose(1, 2).contiguous().transpose(1, 2) for x in over(q, old_k, old_v))
    old, new = ((k[:, :, 2:9:2], v[:, :, 2:9:2]) for k, v in ((old_k, old_v), (new_k, new_v)))
    assert not any(tensor.is_contiguous() for tensor in (q, o, lse, *old, *new))
    found = triton(exchange_keys, q, o, lse, old, new, SCALE)
    assert_close(found, exchange_keys(q, o, lse, old, new, SCALE, backend="plain"), torch.float32)
    assert all(x.transpose(1, 2).is_contiguous() for x in found)


@kernels
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("above", [200.0, 2000.0])
def test_new_scores_far_above_all_others_do_not_overflow(above, dtype):
    """exp(s - L) is past float32's range from a difference of 88 on."""
    exchange = Exchange(dtype)
    exchange.q = torch.ones_like(exchange.q)
    exchange.new[0][:, :, 2:] = above / SCALE / DIM
    found = exchange.run("triton")
    assert (found[1] - exchange.state()[1]).min() > 0.9 * above
    assert_close(found, exchange.expected(), dtype)
    assert_close(found, exchange.run("plain"), dtype)


@kernels
@pytest.mark.parametrize(
    ("new_score", "what_is_left"), [(-300.0, "-inf"), (-INF, "nothing"), (3.0, "the new key's")]
)
def test_rows_whose_mass_is_lost(new_score, what_is_left):
    """Queries 0 and 1 see one key, of score 2, and lose it; 2 sees others; 3 never saw the key.

    The scores are whole, so that both backends take away exactly what is there.
    """
    q = torch.tensor([[1.0], [1.0], [0.0], [2.0]], device=DEVICE)[None, None]
    o, lse = torch.ones_like(q), torch.tensor([2.0, 2.0, 1.0, 0.0], device=DEVICE)[None, None]
    old = torch.full((2, 1, 1, 1, 1), 2.0, device=DEVICE).unbind(0)
    old = old[0], old[1] / 2
    empty = new_score == -INF
    new = torch.full((2, 1, 1, 0 if empty else 1, 1), new_score, device=DEVICE).unbind(0)
    plain = exchange_keys(q, o, lse, old, new, 1.0, backend="plain")
    found = triton(exchange_keys, q, o, lse, old, new, 1.0)
    for x, expected in zip(found, plain, strict=True):
        lost = plain[1].isnan() | (plain[1] == -INF)
        assert torch.equal(found[1].isnan(), plain[1].isnan())
        assert torch.equal(found[1] == -INF, plain[1] == -INF)
        assert error(x[~lost], expected[~lost]) < TOLERANCE[torch.float32]
    ends = found[1][0, 0]
    assert ends[3].isnan() == (what_is_left != "the new key's")
    assert (ends[:2] == -INF).all() == (what_is_left != "the new key's")
    assert found[0][0, 0, :2].isnan().all() == (what_is_left != "the new key's")


@kernels
def test_rows_that_are_down_to_rounding_fall_under_the_guard_with_both():
    exchange = Exchange(queries=31)
    exchange.q[:, :, ::2] = 4.0
    exchange.old[0][:, :, 1] = 20.0
    before = exchange.state()[1]
    for backend in ("triton", "plain"):
        lost = ~(exchange.run(backend)[1] >= before + np.log(0.05))
        assert lost[:, :, ::2].all()
        assert not lost[:, :, 1::2].all()


REFERENCES = (torch.float64, *DTYPES)


def awkward(*shape, seed=0):
    """Numbers of all sizes, with halves between two bfloat16 and between two float16 numbers."""
    x = draw(*shape, seed=seed) * 2.0 ** draw(*shape, seed=seed + 1).mul(3).round()
    flat = x.view(-1)
    flat[::3] = flat[::3].bfloat16().float() * (1 + 2.0**-8)
    flat[1::3] = flat[1::3].half().float() * (1 + 2.0**-11)
    return x


@kernels
@pytest.mark.parametrize("dtype", REFERENCES, ids=str)
@pytest.mark.parametrize("reference_dtype", REFERENCES, ids=str)
def test_error_norms(reference_dtype, dtype):
    for dim in (1, 5, 8, 64, 1031):
        reference = awkward(BATCH, QUERIES, dim).to(reference_dtype)
        c = awkward(BATCH, QUERIES, dim, seed=7).to(dtype)
        c[1, 3:5] = reference[1, 3:5].to(dtype)
        found, expected = triton(error_norm, reference, c), error_norm(reference, c, "plain")
        assert found.dtype == expected.dtype == torch.promote_types(reference_dtype, torch.float32)
        assert error(found, expected) < TOLERANCE[found.dtype]


@kernels
@pytest.mark.parametrize("dtype", REFERENCES, ids=str)
def test_what_stays_still_has_no_error(dtype):
    c = awkward(BATCH, QUERIES, 64)
    assert (triton(error_norm, c.to(dtype), c) == 0).all()


@kernels
def test_a_token_with_nan_has_an_error_of_nan():
    c = awkward(1, 3, DIM)
    reference = c.bfloat16()
    c[0, 1, 2], c[0, 2, 0] = torch.nan, INF
    for backend in ("triton", "plain"):
        assert [str(x) for x in error_norm(reference, c, backend)[0].tolist()] == [
            *("0.0", "nan", "inf")
        ]


@kernels
def test_tokens_are_measured_where_they_lie():
    """Patches come out of a convolution channels first, behind tokens that are not asked about."""
    c = draw(BATCH, DIM, KEYS, seed=1).transpose(1, 2)[:, 2:]
    reference = draw(BATCH, KEYS, DIM)[:, 2:]
    found = triton(error_norm, reference, c)
    assert error(found, error_norm(reference, c, "plain")) < TOLERANCE[torch.float32]


@kernels
@pytest.mark.parametrize("dtype", REFERENCES, ids=str)
@pytest.mark.parametrize("reference_dtype", REFERENCES, ids=str)
def test_what_is_remembered(reference_dtype, dtype):
    for dim, tokens in product((5, 64, 1031), ([], [0, 4, 6, 8, 19, 20], range(BATCH * QUERIES))):
        c = awkward(BATCH, QUERIES, dim, seed=3).to(dtype)
        plain = awkward(BATCH, QUERIES, dim).to(reference_dtype)
        reference, index = plain.clone(), torch.tensor(tokens, device=DEVICE, dtype=torch.int64)
        expected = remember_(plain, c, index, "plain")
        found = triton(remember_, reference, c, index)
        assert found.dtype == dtype
        assert torch.equal(found, expected)
        assert torch.equal(reference, plain)


@kernels
def test_numbers_at_the_ends_are_rounded_as_pytorch_does():
    ends = torch.finfo(torch.float32)
    values = [0.0, -0.0, INF, -INF, torch.nan, ends.max, ends.min, 65519.0, 65520.0, -1e-6]
    c = torch.tensor(values, device=DEVICE)[None, :, None]
    for dtype in (torch.bfloat16, torch.float16):
        reference = torch.zeros_like(c, dtype=dtype)
        triton(remember_, reference, c, torch.arange(len(values), device=DEVICE))
        assert torch.equal(reference.nan_to_num(7, 8, 9), c.to(dtype).nan_to_num(7, 8, 9))


@kernels
def test_tokens_are_taken_from_where_they_lie():
    c = draw(BATCH, DIM, KEYS, seed=1).transpose(1, 2)
    plain, index = draw(BATCH, KEYS, DIM), torch.tensor([1, 12, 30], device=DEVICE)
    reference = plain.clone()
    assert torch.equal(triton(remember_, reference, c, index), remember_(plain, c, index, "plain"))
    assert torch.equal(reference, plain)


@kernels
def test_the_compiler_sees_one_operator_each():
    exchange = Exchange()
    reference, c = draw(BATCH, KEYS, DIM), draw(BATCH, KEYS, DIM, seed=1)
    index = torch.tensor([1, 12, 30], device=DEVICE)

    def both(reference, c, index, *exchanged):
        error = error_norm(reference, c, "triton")
        return error, remember_(reference, c, index, "triton"), *exchange_keys(*exchanged)

    arguments = exchange.q, *exchange.state(), exchange.old, exchange.new, SCALE, None, "triton"
    other = reference.clone()
    expected = both(reference, c, index, *arguments)
    compiled = torch.compile(both, fullgraph=True, backend="aot_eager")
    for x, y in zip(compiled(other, c, index, *arguments), expected, strict=True):
        assert torch.equal(x, y)
    assert torch.equal(other, reference)


@kernels
def test_shapes_and_writes_are_what_the_operators_say():
    exchange, x = Exchange(torch.bfloat16), draw(BATCH, KEYS, DIM)
    index = torch.tensor([1, 12, 30], device=DEVICE)
    operators, tests = torch.ops.eventful, ("test_schema", "test_faketensor")
    arguments = exchange.q, *exchange.state(), *exchange.old, *exchange.new, SCALE
    torch.library.opcheck(operators.exchange_keys.default, arguments, test_utils=tests)
    torch.library.opcheck(operators.error_norm.default, (x.half(), x), test_utils=tests)
    torch.library.opcheck(operators.remember_.default, (x.half(), x, index), test_utils=tests)


def test_nothing_loads_triton_unasked():
    code = (
        "import sys, torch; before = set(sys.modules); import eventful; "
        "print({'triton', 'eventful.ops.triton_kernels'} & (set(sys.modules) - before))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


CPU = torch.zeros(1, 1, 3, 5)
STATE = CPU, CPU[..., 0]


def test_a_cpu_has_the_plain_form_unless_asked(monkeypatch):
    monkeypatch.setattr(backends, "_INTERPRETED", True)
    assert backends.choose_kernel(CPU, None) == "plain"


def test_an_unknown_backend_raises():
    with pytest.raises(ValueError, match="'triton' or 'plain', got 'fused'"):
        error_norm(CPU[0], CPU[0], "fused")


def test_triton_without_triton_raises(monkeypatch):
    monkeypatch.setattr(backends, "_HAS_TRITON", False)
    with pytest.raises(ValueError, match=r"needs `pip install triton`; or use backend='plain'"):
        remember_(CPU[0], CPU[0], torch.tensor([0]), "triton")


def test_triton_on_a_cpu_raises(monkeypatch):
    monkeypatch.setattr(backends, "_HAS_TRITON", True)
    monkeypatch.setattr(backends, "_INTERPRETED", False)
    with pytest.raises(ValueError, match=r"runs on CUDA, got tensors on cpu; use backend='plain'"):
        exchange_keys(CPU, *STATE, (CPU, CPU), (CPU, CPU), SCALE, backend="triton")


@pytest.mark.parametrize(
    ("q", "bias", "what"),
    [
        (CPU, torch.zeros(()), "a bias"),
        (CPU.double(), None, "float64"),
        (torch.zeros(1, 1, 3, 257), None, "more than 256 values a head"),
    ],
)
def test_what_the_kernel_does_not_serve_raises_if_asked_and_else_is_plain(
    q, bias, what, monkeypatch
):
    monkeypatch.setattr(backends, "_HAS_TRITON", True)
    arguments = q, *attend(q, q, q, SCALE), (q, q), (q, q), SCALE, bias
    with pytest.raises(ValueError, match=f"does not serve {what}; use backend='plain'"):
        exchange_keys(*arguments, backend="triton")
    exchange_keys(*arguments)
