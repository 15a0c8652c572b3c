"""Motion on the token grid: known shifts, and tokens carried along them."""

import pytest
import torch
from torch.nn import functional as F

from eventful.reuse import Motion, carry

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


@pytest.mark.parametrize(("down", "right"), [(0, 0), (PATCH, 0), (0, -PATCH), (7, 21)])
def test_a_moving_camera_is_found_in_tokens(down, right):
    image = texture()
    found = Motion(GRID)(view(image, 0, 0), view(image, down, right))
    assert found.shape == (1, *GRID, 2)
    inner = found[:, 2:-2, 2:-2]
    expected = torch.tensor([down / PATCH, right / PATCH])
    assert (inner - expected).abs().median() < 0.1


def test_rows_of_a_batch_are_apart():
    image, other = texture(), texture(1)
    before = torch.cat([view(image, 0, 0), view(other, 0, 0)])
    now = torch.cat([view(image, PATCH, 0), view(other, 0, 0)])
    found = Motion(GRID)(before, now)
    assert (found[0, 2:-2, 2:-2, 0] - 1).abs().median() < 0.1
    assert found[1].abs().max() < 0.1


def test_small_frames_are_not_made_smaller_still():
    frame = torch.rand(1, 3, 56, 70)
    assert Motion((4, 5))(frame, frame).abs().max() < 1e-3


def test_tokens_go_where_motion_says():
    tokens = torch.arange(24.0).view(1, 3, 4, 2)
    still = torch.zeros(1, 3, 4, 2)
    assert torch.allclose(carry(tokens, still), tokens, atol=1e-5)
    up = still.clone()
    up[..., 0] = 1.0  # all was one cell further down
    assert torch.allclose(carry(tokens, up)[:, :2], tokens[:, 1:], atol=1e-5)
    half = still.clone()
    half[..., 1] = 0.5
    between = (tokens[:, :, :-1] + tokens[:, :, 1:]) / 2
    assert torch.allclose(carry(tokens, half)[:, :, :-1], between, atol=1e-5)


def test_what_comes_in_is_taken_from_the_border():
    tokens = torch.arange(3.0).view(1, 1, 3, 1)
    motion = torch.tensor([0.0, 5.0]).expand(1, 1, 3, 2)
    assert carry(tokens, motion).flatten().tolist() == [2.0, 2.0, 2.0]
