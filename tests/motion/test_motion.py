"""Motion on the token grid: known shifts, and tokens carried along them."""

import pytest
import torch
from torch.nn import functional as F

from eventful.motion import Flow, carry, on_grid
from eventful.motion.view import _carry_pixels

PATCH, GRID = 14, (8, 11)
HEIGHT, WIDTH = GRID[0] * PATCH, GRID[1] * PATCH


def texture(seed=0):
    """Blots of several sizes, larger than a frame on all sides."""
    generator = torch.Generator().manual_seed(seed)
    size = (HEIGHT + 64, WIDTH + 64)
    image = torch.zeros(1, 3, *size)
    for scale in (8, 16, 32):
        noise = torch.rand(1, 3, size[0] // scale + 2, size[1] // scale + 2, generator=generator)
        image += F.interpolate(noise, size, mode="bicubic") / 3
    return image.clamp(0, 1)


def view(image, down, right):
    return image[:, :, 30 + down : 30 + down + HEIGHT, 30 + right : 30 + right + WIDTH]


def motion(before, now, grid=GRID):
    flow = Flow()
    before, now = (flow.grey(flow.smaller(image)) for image in (before, now))
    return on_grid(flow.between(before, now), grid)


@pytest.mark.parametrize(("down", "right"), [(0, 0), (PATCH, 0), (0, -PATCH), (7, 7)])
def test_a_moving_camera_is_found_in_tokens(down, right):
    image = texture()
    found = motion(view(image, 0, 0), view(image, down, right))
    assert found.shape == (1, *GRID, 2)
    inner = found[:, 2:-2, 2:-2]
    expected = torch.tensor([down / PATCH, right / PATCH])
    assert (inner - expected).abs().median() < 0.1


def test_a_start_from_the_last_flow_finds_what_is_too_large_at_once():
    flow, image = Flow(), texture()
    seen = [flow.grey(flow.smaller(view(image, 7 * k // 3, 7 * k))) for k in range(4)]
    found = None
    for later in seen[1:]:
        found = flow.between(seen[0], later, found)
    assert found is not None
    expected = torch.tensor([0.5, 1.5])
    assert (on_grid(found, GRID)[:, 2:-2, 2:-2] - expected).abs().median() < 0.05
    at_once = on_grid(flow.between(seen[0], seen[-1]), GRID)[:, 2:-2, 2:-2]
    assert (at_once - expected).abs().median() > 0.5


def test_small_frames_are_not_made_smaller_still():
    flow, frame = Flow(), torch.rand(1, 3, 56, 70)
    assert flow.smaller(frame).shape == (1, 3, 48, 60)
    assert motion(frame, frame, (4, 5)).abs().max() < 1e-3


def test_tokens_go_where_motion_says():
    tokens = torch.arange(24.0).view(1, 3, 4, 2)
    still = torch.zeros(1, 3, 4, 2)
    assert torch.equal(carry(tokens, still), tokens)
    up = still.clone()
    up[..., 0] = 1.0  # all was one cell further down
    assert torch.equal(carry(tokens, up)[:, :2], tokens[:, 1:])
    half = still.clone()
    half[..., 1] = 0.5
    between = (tokens[:, :, :-1] + tokens[:, :, 1:]) / 2
    assert torch.allclose(carry(tokens, half)[:, :, :-1], between, atol=1e-5)


def test_what_comes_in_is_taken_from_the_border():
    tokens = torch.arange(3.0).view(1, 1, 3, 1)
    shift = torch.tensor([0.0, 5.0]).expand(1, 1, 3, 2)
    assert carry(tokens, shift).flatten().tolist() == [2.0, 2.0, 2.0]


def test_pictures_are_moved_as_tokens_are():
    images, flow = torch.rand(2, 3, 11, 17), 3 * torch.randn(2, 11, 17, 2)
    moved = carry(images.permute(0, 2, 3, 1), flow).permute(0, 3, 1, 2)
    torch.testing.assert_close(_carry_pixels(images, flow), moved, rtol=0, atol=2e-6)
