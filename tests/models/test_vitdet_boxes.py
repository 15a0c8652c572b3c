"""Anchors, box arithmetic, pooling over levels and the choice of detections, by hand."""

import math

import pytest
import torch

from eventful.models.vitdet.anchors import cell_anchors, grid_anchors
from eventful.models.vitdet.boxes import at_least_float32, check_size, clip, decode, has_area
from eventful.models.vitdet.detections import Detections, select
from eventful.models.vitdet.pooler import level_of, pool

SQRT_2 = math.sqrt(2)


def box(*values):
    return torch.tensor(values, dtype=torch.float64)


def close(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


def test_anchors_of_a_cell_are_not_rounded():
    wide, square, high = cell_anchors(32)
    close(wide, box(-16 * SQRT_2, -8 * SQRT_2, 16 * SQRT_2, 8 * SQRT_2))  # height : width = 0.5
    close(square, box(-16, -16, 16, 16))
    close(high, box(-8 * SQRT_2, -16 * SQRT_2, 8 * SQRT_2, 16 * SQRT_2))


def test_anchors_of_a_grid_go_row_by_row_from_the_corner():
    anchors = grid_anchors((2, 3), size=64, stride=8, ratios=(1.0, 4.0))
    expected = [
        [x - 32 / r, y - 32 * r, x + 32 / r, y + 32 * r]
        for y in (0, 8)
        for x in (0, 8, 16)
        for r in (1, 2)
    ]
    assert anchors.dtype == torch.float32
    assert torch.equal(anchors, torch.tensor(expected))


def test_decode_by_hand():
    start = box(10, 20, 30, 60)  # 20 x 40 around (20, 40)
    deltas = box(5, -10, 5 * math.log(2), 5 * math.log(0.25))
    # half its width to the right, its height up; twice as wide, a quarter as high: around (30, 0)
    close(decode(start, deltas, (10, 10, 5, 5)), box(10, -5, 50, 5))
    # the same deltas at the third stage of the cascade: a third of everything
    third = decode(start, deltas, (30, 30, 15, 15))
    width, height = 20 * 2 ** (1 / 3), 40 * 0.25 ** (1 / 3)
    x, y = 20 + 20 / 6, 40 - 40 / 3
    close(third, box(x - width / 2, y - height / 2, x + width / 2, y + height / 2))


def test_decode_bounds_growth_and_not_shrinking():
    grown = decode(box(0, 0, 16, 16), box(0, 0, 100, -100))
    close(grown, box(8 - 500, 8, 8 + 500, 8))


def test_decode_broadcasts_a_box_over_classes():
    boxes, deltas = torch.rand(3, 4).sort(dim=1).values, torch.randn(3, 5, 4)
    decoded = decode(boxes[:, None], deltas, (1, 2, 3, 4))
    assert decoded.shape == (3, 5, 4)
    assert torch.equal(decoded[2, 1], decode(boxes[2], deltas[2, 1], (1, 2, 3, 4)))


def test_boxes_are_float32_at_least():
    assert decode(torch.rand(4), torch.zeros(4, dtype=torch.bfloat16)).dtype == torch.float32
    assert decode(torch.rand(4), torch.zeros(4, dtype=torch.float64)).dtype == torch.float64
    assert at_least_float32(torch.zeros(1, dtype=torch.float16)).dtype == torch.float32


def test_clip_takes_height_first():
    assert clip(box(-1, -2, 50, 60), (30, 40)).tolist() == [0, 0, 40, 30]
    assert clip(box(3, 4, 5, 6), (30, 40)).tolist() == [3, 4, 5, 6]


def test_area():
    boxes = torch.tensor([[0.0, 0, 1, 1], [3, 0, 3, 5], [0, 5, 3, 5], [4, 0, 3, 9]])
    assert has_area(boxes).tolist() == [True, False, False, False]


@pytest.mark.parametrize("size", [(0, 5), (5, -1), (5,)])
def test_sizes_that_are_none(size):
    with pytest.raises(ValueError, match="the size must be a positive height and width"):
        check_size(size, "the size")


@pytest.mark.parametrize(
    ("width", "height", "level"),
    [
        (0, 0, 2),
        (111, 112, 2),
        (112, 112, 3),
        (223, 224, 3),
        (224, 224, 4),
        (448, 112, 4),  # the area counts
        (447, 448, 4),
        (448, 448, 5),
        (4000, 4000, 5),
        (math.inf, 3, -1),
        (3, math.nan, -1),
    ],
)
def test_level_of_a_box(width, height, level):
    assert level_of(torch.tensor([[7.0, 5.0, 7 + width, 5 + height]])).tolist() == [level]


def ramps(size=640, batch=2):
    """Maps of 3 x + 5 y in pixels, plus 10^4 for each level and 10^5 for each image."""
    features = {}
    for level in (2, 3, 4, 5):
        centre = (torch.arange(size >> level, dtype=torch.float64) + 0.5) * 2**level
        ramp = 3 * centre[None, :] + 5 * centre[:, None] + 10_000 * level
        features[f"p{level}"] = torch.stack([ramp + 100_000 * i for i in range(batch)])[:, None]
    return features


def bins(start, end, size):
    """Centres of equal parts."""
    return start + (end - start) * (torch.arange(size, dtype=torch.float64) + 0.5) / size


@pytest.mark.parametrize("size", [3, 7])
def test_pooling_reads_a_ramp_at_the_centres_of_the_bins(size):
    boxes = [
        box(100, 40, 171, 77, 20, 60, 525, 575, 33, 50, 44, 55).view(3, 4),  # p2, p5, p2
        box(70, 130, 330, 400, 101, 99, 222, 231).view(2, 4),  # p4, p3
    ]
    pooled = pool(ramps(), boxes, size)
    assert pooled.shape == (5, 1, size, size)
    places = [(0, 2), (0, 5), (0, 2), (1, 4), (1, 3)]
    for region, (image, level), (x0, y0, x1, y1) in zip(
        pooled, places, torch.cat(boxes).tolist(), strict=True
    ):
        expected = 3 * bins(x0, x1, size)[None, :] + 5 * bins(y0, y1, size)[:, None]
        close(region[0], expected + 10_000 * level + 100_000 * image)


def bilinear(x, row, column):
    """Between the centres of cells, row by row and column by column."""
    top, left = int(row), int(column)
    down, right = row - top, column - left
    upper = (1 - right) * x[top, left] + right * x[top, left + 1]
    lower = (1 - right) * x[top + 1, left] + right * x[top + 1, left + 1]
    return (1 - down) * upper + down * lower


def test_pooling_takes_as_many_samples_as_a_bin_has_cells():
    torch.manual_seed(1)
    x = torch.randn(11, 13, dtype=torch.float64)
    features = {f"p{level}": x[None, None] for level in (2, 3, 4, 5)}
    pooled = pool(features, [box(5, 6, 43, 34)[None]], 3)  # 7 rows and 9.5 columns of p2
    rows, columns = bins(6 / 4 - 0.5, 34 / 4 - 0.5, 3 * 3), bins(5 / 4 - 0.5, 43 / 4 - 0.5, 3 * 4)
    samples = torch.stack([bilinear(x, row, column) for row in rows for column in columns])
    close(pooled[0, 0], samples.view(3, 3, 3, 4).mean(dim=(1, 3)))


def test_pooling_of_nothing_and_of_nonsense():
    nothing = [torch.zeros(0, 4, dtype=torch.float64)] * 2
    assert pool(ramps(), nothing, 7).shape == (0, 1, 7, 7)
    boxes = box(math.nan, 0, 30, 40, 100, 100, 140, 140, 0, 0, math.inf, 40).view(3, 4)
    pooled = pool(ramps(batch=1), [boxes], 2)
    assert pooled.flatten(1).any(dim=1).tolist() == [False, True, False]


def test_pooling_in_half_precision_keeps_the_dtype_and_the_place():
    boxes = [torch.tensor([[100.0, 40.0, 171.0, 77.0]])]
    features = ramps(batch=1)
    exact = pool(features, boxes, 2)
    half = pool({name: x.bfloat16() for name, x in features.items()}, boxes, 2)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.double(), exact, rtol=1e-2, atol=0)


def found(boxes, scores, size=(100, 100), **options):
    boxes, scores = torch.tensor(boxes), torch.tensor(scores)
    return select(boxes if boxes.ndim == 3 else boxes[:, None], scores, size, **options)


LEFT, LEFT_TOO, RIGHT = [0.0, 0, 10, 10], [0.0, 0, 10, 9], [50.0, 0, 60, 10]


def test_the_background_is_the_last_class_and_never_detected():
    detections = found([LEFT, RIGHT], [[0.02, 0.08, 0.9], [0.01, 0.01, 0.98]])
    assert detections.labels.tolist() == [1]
    assert detections.boxes.tolist() == [LEFT]


def test_a_box_may_be_found_as_several_classes():
    detections = found([LEFT], [[0.3, 0.5, 0.2]])
    assert detections.labels.tolist() == [1, 0]
    assert detections.boxes.tolist() == [LEFT, LEFT]


def test_overlap_counts_within_a_class():
    detections = found([LEFT, LEFT_TOO, RIGHT], [[0.5, 0, 0.5], [0.6, 0.1, 0.3], [0.4, 0, 0.6]])
    assert list(zip(detections.labels.tolist(), detections.boxes.tolist(), strict=True)) == [
        (0, LEFT_TOO),
        (0, RIGHT),
        (1, LEFT_TOO),
    ]


@pytest.mark.parametrize(("height", "kept"), [(5.1, 1), (5.0, 2), (4.9, 2)])
def test_overlap_of_a_half_is_still_allowed(height, kept):
    assert len(found([LEFT, [0.0, 0, 10, height]], [[0.5, 0.5], [0.4, 0.6]])) == kept


def test_the_score_is_above_the_threshold():
    boxes, scores = [LEFT, RIGHT], [[0.25, 0.75], [0.26, 0.74]]
    assert found(boxes, scores, score_threshold=0.25).boxes.tolist() == [RIGHT]


def test_the_best_are_kept():
    boxes = [[20.0 * i, 0, 20 * i + 10, 10] for i in range(5)]
    scores = [[s, 1 - s] for s in (0.3, 0.9, 0.5, 0.7, 0.1)]
    detections = found(boxes, scores, keep=3)
    torch.testing.assert_close(detections.scores, torch.tensor([0.9, 0.7, 0.5]))
    assert detections.boxes[:, 0].tolist() == [20, 60, 40]


def test_every_class_has_its_own_box():
    detections = found([[LEFT, RIGHT]], [[0.4, 0.5, 0.1]])
    assert detections.labels.tolist() == [1, 0]
    assert detections.boxes.tolist() == [RIGHT, LEFT]


def test_boxes_are_clipped_before_overlap_is_measured():
    # beyond the border they differ, within the image they are the same
    detections = found([[90.0, 0, 200, 9], [90.0, 0, 101, 9]], [[0.4, 0.6], [0.5, 0.5]])
    assert detections.boxes.tolist() == [[90, 0, 100, 9]]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_is_left_out(bad):
    assert found([[bad, 0, 9, 9], RIGHT], [[0.9, 0.1], [0.5, 0.5]]).boxes.tolist() == [RIGHT]
    assert found([LEFT, RIGHT], [[0.9, bad], [0.5, 0.5]]).boxes.tolist() == [RIGHT]


def test_nothing_found():
    detections = found([LEFT], [[0.01, 0.99]])
    assert len(detections) == 0
    assert detections.boxes.shape == (0, 4)
    assert detections.labels.dtype == torch.int64
    assert len(select(torch.zeros(0, 3, 4), torch.zeros(0, 4), (5, 7))) == 0
    assert len(detections.scaled((5, 7), (10, 14))) == 0


def test_detections_in_the_size_of_the_original():
    boxes = torch.tensor([[8.0, 6.0, 40.0, 30.0], [60.0, 0.0, 64.0, 48.0], [1.0, 40.0, 9.0, 48.0]])
    masks = torch.rand(3, 28, 28)
    detections = Detections(boxes, torch.tensor([0.9, 0.8, 0.7]), torch.tensor([4, 2, 0]), masks)
    scaled = detections.scaled((48, 64), (96, 32))
    assert scaled.boxes.tolist() == [[4, 12, 20, 60], [30, 0, 32, 96], [0.5, 80, 4.5, 96]]
    outside = detections.scaled((40, 64), (40, 64))  # the third lies below the image
    assert outside.boxes.tolist() == [[8, 6, 40, 30], [60, 0, 64, 40]]
    assert outside.labels.tolist() == [4, 2]
    assert torch.equal(outside.masks, masks[:2])
    assert detections.boxes is boxes
    with pytest.raises(ValueError, match="to_size must be a positive height and width"):
        detections.scaled((40, 64), (0, 64))
