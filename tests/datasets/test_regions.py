"""Connected regions and the boxes around what moves, by hand and against scipy."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from eventful.datasets import Motion
from eventful.datasets.regions import boxes_around, closed, connected, moving_regions


def mask(*rows):
    return torch.tensor([[pixel != "." for pixel in row] for row in rows])


def motion(*rows):
    """M moving, S shadow, U unknown, x moving outside the region."""
    values = {".": 0, "M": 255, "S": 50, "U": 170, "x": 255}
    labels = torch.tensor([[values[pixel] for pixel in row] for row in rows], dtype=torch.uint8)
    return Motion(labels, torch.tensor([[pixel != "x" for pixel in row] for row in rows]))


class TestConnected:
    def test_corners_touch_and_gaps_do_not(self):
        numbers = connected(
            mask(
                "#...##.",
                "#..#...",
                ".#....#",
                "...#..#",
                "..#....",
            )
        )
        assert numbers.tolist() == [
            [3, 0, 0, 0, 4, 4, 0],
            [3, 0, 0, 4, 0, 0, 0],
            [0, 3, 0, 0, 0, 0, 2],
            [0, 0, 0, 1, 0, 0, 2],
            [0, 0, 1, 0, 0, 0, 0],
        ]

    def test_a_spiral_is_one_region(self):
        spiral = mask(
            "#########",
            "........#",
            "#######.#",
            "#.....#.#",
            "#.###.#.#",
            "#.#...#.#",
            "#.#####.#",
            "#.......#",
            "#########",
        )
        assert torch.equal(connected(spiral), spiral.long())

    @pytest.mark.parametrize("value", [False, True])
    def test_none_and_all(self, value):
        assert torch.equal(connected(torch.full((3, 5), value)), torch.full((3, 5), int(value)))

    @pytest.mark.parametrize("seed", range(5))
    def test_like_scipy(self, seed):
        generator = torch.Generator().manual_seed(seed)
        noise = torch.rand(23, 31, generator=generator) < 0.35
        numbers = connected(noise)
        theirs, count = ndimage.label(noise.numpy(), np.ones((3, 3)))
        pairs = set(zip(numbers.flatten().tolist(), theirs.flatten().tolist(), strict=True))
        assert len(pairs) == count + 1 == int(numbers.max()) + 1


class TestClosed:
    def test_cracks_of_two_pixels_and_less(self):
        assert torch.equal(
            closed(mask("##.##..##...##")), mask("#########...##")
        )  # one, two, three pixels

    def test_nothing_grows_to_the_border(self):
        one = mask(".....", ".#.#.", ".....")
        assert torch.equal(closed(one), mask(".....", ".###.", "....."))

    def test_what_touches_the_border_stays(self):
        assert torch.equal(closed(mask("##...", "##...")), mask("##...", "##..."))


class TestMovingRegions:
    def test_boxes_from_the_lowest_up(self):
        found = moving_regions(
            motion(
                ".........",
                ".MM......",
                ".MM......",
                ".........",
                "......MMM",
                "......MMM",
            ),
            min_share=4 / 54,
        )
        assert found.boxes.tolist() == [[6, 4, 9, 6], [1, 1, 3, 3]]
        assert found.boxes.dtype == torch.float32
        assert found.doubtful.shape == (0, 4)

    def test_small_regions_are_doubtful(self):
        rows = ["MM.....M", "MM......"]
        assert moving_regions(motion(*rows), 4 / 16).doubtful.tolist() == [[7, 0, 8, 1]]
        assert moving_regions(motion(*rows), 5 / 16).boxes.shape == (0, 4)

    def test_a_post_in_front_does_not_cut(self):
        found = moving_regions(motion("MM.MM", "MM.MM"), min_share=0.5)
        assert found.boxes.tolist() == [[0, 0, 5, 2]]

    def test_closed_pixels_do_not_count_as_area(self):
        found = moving_regions(motion("MM.MM", "MM.MM"), min_share=9 / 10)
        assert found.doubtful.tolist() == [[0, 0, 5, 2]]

    def test_rims_of_doubt_belong_to_their_object(self):
        found = moving_regions(motion("UUUU....", "UMMU..UU", "UUUUSS.U"), min_share=0.05)
        assert found.boxes.tolist() == [[1, 1, 3, 2]]
        assert found.doubtful.tolist() == [[6, 1, 8, 3]]

    def test_outside_the_region_nothing_moves(self):
        assert moving_regions(motion("xx...MM"), 0.1).boxes.tolist() == [[5, 0, 7, 1]]

    def test_a_still_frame(self):
        found = moving_regions(motion("...", "SS."))
        assert found.boxes.shape == found.doubtful.shape == (0, 4)

    def test_the_share_is_checked(self):
        with pytest.raises(ValueError, match="min_share=100"):
            moving_regions(motion("M"), min_share=100)


def test_boxes_of_no_region():
    assert boxes_around(torch.zeros(3, 5, dtype=torch.int64)).shape == (0, 4)
