"""The closed form at the paper's sizes: its entries, and sums written out by hand."""

import pytest

from eventful.paper import ENTRIES, FURTHER, count, entries, equal_budget, pooled_bounds
from eventful.paper.counts import FIRST_FRAMES, vitdet, vivit

DIM, HEADS = 768, 12
LAYERS = 12 * DIM**2 + 9 * DIM  # of one token: 3 + 1 + 8 squares, 3 + 1 + 5 biases

INDEPENDENT = [e for e in ENTRIES if not e.data_dependent]


@pytest.mark.parametrize(
    "entry", INDEPENDENT, ids=lambda e: f"{e.table}-{e.size}-{e.label}-{e.r}".replace(" ", "")
)
def test_entries_agree_with_the_paper(entry):
    assert count(entry) == pytest.approx(entry.operations, rel=0.003)


def test_there_are_many_of_them():
    assert len(INDEPENDENT) == 63


def products(queries, keys, pairs, lines):
    """Both products of a block, its two tables of relative positions, and their additions."""
    assert pairs == queries * keys
    return 2 * pairs * DIM + queries * lines * DIM + 2 * HEADS * pairs


# side of the grid: tokens, places in windows with padding
SIZES = {1024: (64, 64**2, 70**2), 672: (42, 42**2, 42**2)}


def dense_by_hand(size, pooling=1):
    side, tokens, places = SIZES[size]
    shared = tokens * LAYERS + 2 * tokens * DIM
    windowed = shared + places // 196 * products(196, 196, 196**2, 28)
    keys = tokens // pooling**2
    whole = shared + products(tokens, keys, tokens * keys, 2 * side // pooling)
    return 8 * windowed + 4 * whole + tokens * DIM


def update_by_hand(size, r, variant, pooled=None):
    """Operations of a frame with r updated tokens at every gate."""
    side, tokens, places = SIZES[size]
    shared = r * LAYERS + 2 * tokens * DIM + 3 * tokens * DIM  # three gates look at every token
    windowed = shared + places // 196 * products(196, 196, 196**2, 28)
    pooling, updated = (1, r) if pooled is None else (2, pooled)
    keys = tokens // pooling**2
    whole = shared + tokens * 2 * side // pooling * DIM + 2 * HEADS * tokens * keys
    if variant == "token-wise":
        whole += 2 * tokens * keys * DIM
    else:
        rows, columns = r * keys, tokens * updated
        whole += (rows + columns) * DIM  # query-key
        whole += 2 * tokens * updated * DIM  # attention-value
        whole += keys * DIM + HEADS * tokens * keys  # gates on v and A
        whole += updated * DIM + 2 * tokens * DIM  # v~n - v~d, and two accumulations
    return 8 * windowed + 4 * whole + tokens * DIM


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("pooling", [1, 2])
def test_dense_frames_by_hand(size, pooling):
    assert vitdet(size, pooling).dense() == dense_by_hand(size, pooling)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("r", [128, 777, 1024])
def test_updates_by_hand(size, r):
    model = vitdet(size)
    assert model.update("dense", r) == update_by_hand(size, r, "token-wise")
    assert model.update("cached", r) == update_by_hand(size, r, "full")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("r", "pooled"), [(128, 32), (777, 200), (1024, 413)])
def test_updates_with_pooled_keys_by_hand(size, r, pooled):
    found = vitdet(size, 2).update("cached", r, pooled)
    assert found == update_by_hand(size, r, "full", pooled)


@pytest.mark.parametrize(
    ("name", "side", "classes"), [("vivit_b_epic", 20, 97), ("vivit_b_kinetics", 14, 400)]
)
def test_a_video_of_vivit_by_hand(name, side, classes):
    def frame(tokens):
        return tokens * LAYERS + 2 * tokens**2 * DIM + 2 * tokens * DIM

    tokens, r = side**2 + 1, 50
    dense = 12 * frame(tokens) + tokens * DIM
    gates = 4 * tokens * DIM + HEADS * tokens**2
    update = r * LAYERS + 4 * tokens * r * DIM + 2 * tokens * DIM + gates + (r + 2 * tokens) * DIM
    update = 12 * update + tokens * DIM
    rest = 4 * frame(17) + 17 * DIM + DIM * classes + classes
    model = vivit(name)
    assert model.video(None) == 12 * (16 * dense + rest)
    assert model.video(r) == 12 * (dense + 15 * update + rest)


class TestWhatDependsOnTheVideo:
    @pytest.fixture(params=["1", "E"])
    def spatiotemporal(self, request):
        return [e for e in entries(request.param) if e.variant == "spatiotemporal"]

    def test_the_paper_lies_within_the_bounds(self, spatiotemporal):
        """With the last digit's rounding."""
        for entry in spatiotemporal:
            low, high = (count(entry, pooled) for pooled in pooled_bounds(entry))
            assert low - 0.05 <= entry.operations <= high + 0.05

    def test_bounds_by_hand(self, spatiotemporal):
        for entry in spatiotemporal:
            cells = 1024 if entry.size == 1024 else 441
            assert pooled_bounds(entry) == (-(-entry.r // 4), min(entry.r, cells))

    def test_a_count_needs_the_number_of_pooled_tokens(self, spatiotemporal):
        with pytest.raises(ValueError, match="updated pooled tokens"):
            count(spatiotemporal[0])

    def test_thresholds_have_no_count(self):
        with pytest.raises(ValueError, match="threshold"):
            count(entries("B")[1])

    def test_thresholds_cost_what_full_costs_at_some_budget(self):
        for entry, r in zip(entries("B")[1:], (3063, 2042, 851), strict=True):
            assert equal_budget(entry) == pytest.approx(r, abs=1)

    def test_equal_budget_is_the_inverse_of_count(self):
        for entry in entries("C"):
            if entry.variant == "full":
                assert equal_budget(entry) == pytest.approx(entry.r, abs=1.5)


class TestIncremental:
    def test_it_costs_less_than_token_wise_and_more_than_full_where_few_tokens_change(self):
        for entry in FURTHER:
            full, token_wise = (
                count(other)
                for variant in ("full", "token-wise")
                for other in entries("C")
                if (other.size, other.variant, other.r) == (entry.size, variant, entry.r)
            )
            found = count(entry)
            assert found < token_wise * 1.001
            if entry.size == 1024 and entry.r <= 1024:
                assert full < found < 0.95 * token_wise

    def test_a_frame_by_hand(self):
        side, tokens, places = SIZES[1024]
        r = 512
        shared = r * LAYERS + 2 * tokens * DIM + 3 * tokens * DIM
        windowed = shared + r * 28 * DIM + places * 196 * (2 * DIM + 2 * HEADS)
        rows, rest = r + 16, tokens - r  # a 256th of all rows is computed anew in rotation
        pairs = rows * tokens + 2 * rest * r
        whole = shared + r * 2 * side * DIM + pairs * (2 * DIM + 2 * HEADS) + 2 * rest * DIM
        expected = 8 * windowed + 4 * whole + tokens * DIM
        assert vitdet(1024).update("incremental", r) == expected


def test_the_first_frames_share():
    """0.38 % of dense frames: 1024, r = 256."""
    entry = next(e for e in entries("C") if (e.variant, e.r) == ("full", 256))
    dense, update = dense_by_hand(1024), update_by_hand(1024, 256, "full")
    assert FIRST_FRAMES == 0.0038
    assert count(entry) == pytest.approx((0.0038 * dense + 0.9962 * update) / 1e9, rel=1e-12)
