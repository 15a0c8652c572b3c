"""The formulas of `counts` give the numbers of the paper's tables."""

import pytest

from tests.paper import counts
from tests.paper.counts import Size

DIM, HEADS, BLOCKS = 768, 12, 12
GIGA, TERA = 1e9, 1e12
FIRST = 0.0038  # share of first frames on ImageNet VID

DENSE = {64: 467.44, 42: 174.495}  # by side of the grid: 1024 and 672 pixels
POOLED = {64: 388.12, 42: 159.71}
# Tables C of the supplement, GFlops a frame, by r.
FULL = {
    64: {2048: 294.9, 1536: 225.9, 1024: 156.8, 768: 122.3, 512: 87.8, 256: 53.3},
    42: {1024: 115.1, 768: 87.9, 512: 60.7, 384: 47.1, 256: 33.5, 128: 19.9},
}
TOKEN_WISE = {  # those of the STGT baseline are the same
    64: {2048: 294.1, 1536: 250.7, 1024: 207.3, 768: 185.7, 512: 164.0, 256: 142.3},
    42: {1024: 111.9, 768: 90.2, 512: 68.5, 384: 57.7, 256: 46.8, 128: 36.0},
}
ENTRIES = [
    (form, side, r, gflops)
    for form, table in (("cached", FULL), ("dense", TOKEN_WISE))
    for side, row in table.items()
    for r, gflops in row.items()
]
# Tables D and A, TFlops a video, by the r that was tested: tokens, classes, entries.
VIVIT = {
    "epic": (401, 97, {280: 5.49, 240: 4.77, 200: 4.05, 160: 3.33, 140: 2.98, 120: 2.62}),
    "epic, few": (401, 97, {100: 2.26, 80: 1.90, 70: 1.72, 60: 1.54, 50: 1.36, 40: 1.18, 30: 1.0}),
    "kinetics": (197, 400, {96: 1.814, 48: 1.016, 24: 0.618}),
}


def backbone(side: int, block, pooling: int = 1) -> int:
    """ViTDet-B on side x side tokens: blocks 3, 6, 9 and 12 are global, the others 14 x 14."""
    total = side * side * DIM  # absolute positions
    for i in range(1, BLOCKS + 1):
        window = 0 if i % 3 == 0 else 14
        size = Size(DIM, HEADS, side * side, (side, side), window, True, pooling)
        total += counts.total(block(size))
    return total


def mean_of_frames(side: int, form: str, r: int, first: float) -> float:
    """GFlops of a mean frame, of which the share `first` is dense."""
    dense = backbone(side, counts.dense)
    rest = backbone(side, lambda size: counts.eventful(size, form, (r, r, r)))
    return (first * dense + (1 - first) * rest) / GIGA


def video(tokens: int, classes: int, r: int) -> float:
    """TFlops of ViViT-B: 12 views of 16 clips, the first of each dense, and the temporal model."""
    size, temporal = Size(DIM, HEADS, tokens), Size(DIM, HEADS, 16 + 1)
    spatial = 16 * tokens * DIM + BLOCKS * counts.total(counts.dense(size))
    rest = counts.eventful(size, "cached", (r, r, r)) if r else counts.dense(size)
    spatial += 15 * BLOCKS * counts.total(rest)
    head = (16 + 1) * DIM + 4 * counts.total(counts.dense(temporal)) + counts.linear(DIM, classes)
    return 12 * (spatial + head) / TERA


@pytest.mark.parametrize("side", DENSE)
def test_dense_vitdet(side):
    assert backbone(side, counts.dense) / GIGA == pytest.approx(DENSE[side], abs=0.0006)


@pytest.mark.parametrize("side", POOLED)
def test_vitdet_with_pooled_keys_and_values(side):
    assert backbone(side, counts.dense, 2) / GIGA == pytest.approx(POOLED[side], abs=0.005)


@pytest.mark.parametrize(("form", "side", "r", "gflops"), ENTRIES)
def test_eventful_vitdet(form, side, r, gflops):
    """Within one unit of the table's last digit."""
    assert mean_of_frames(side, form, r, FIRST) == pytest.approx(gflops, abs=0.1)


@pytest.mark.parametrize("first", [0.00369, 0.00371])
def test_a_slightly_smaller_share_of_first_frames_rounds_to_every_entry(first):
    for form, side, r, gflops in ENTRIES:
        assert round(mean_of_frames(side, form, r, first), 1) == gflops


@pytest.mark.parametrize(("name", "digits", "tflops"), [("epic", 2, 7.12), ("kinetics", 3, 3.36)])
def test_dense_vivit(name, digits, tflops):
    assert round(video(*VIVIT[name][:2], 0), digits) == tflops


@pytest.mark.parametrize("name", VIVIT)
def test_eventful_vivit(name):
    tokens, classes, entries = VIVIT[name]
    for r, tflops in entries.items():
        digits = 3 if name == "kinetics" else 2
        assert round(video(tokens, classes, r), digits) == tflops
