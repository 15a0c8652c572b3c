"""The segmentation head: its shape, training, packaged weights."""

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from eventful.models.segmentation import WEIGHTS, SegmentationHead, segmentation_head
from eventful.models.weights.files import read_metadata

GRID = (3, 5)
TOKENS = GRID[0] * GRID[1]


def small(**options):
    torch.manual_seed(3)
    return SegmentationHead(dim=12, channels=8, **options)


def test_a_logit_for_each_pixel():
    assert small()(torch.randn(2, TOKENS, 12), GRID).shape == (2, 1, 42, 70)
    assert small(patch_size=16)(torch.randn(2, TOKENS, 12), GRID).shape == (2, 1, 48, 80)


def test_tokens_that_do_not_fill_the_grid():
    with pytest.raises(ValueError, match=r"3 x 5 = 15 patch tokens, got 16.*class token"):
        small()(torch.zeros(1, 16, 12), GRID)


def test_rows_come_before_columns():
    """With weights that pass one channel on, a token shows where its patch is."""
    head = small(dropout=0.0).eval()
    with torch.no_grad():
        for weight in head.parameters():
            weight.zero_()
        for conv in (head.project, *head.narrow, head.logits):
            conv.weight[0, 0] = 1
    tokens = torch.zeros(1, TOKENS, 12)
    tokens[0, 5 * 1 + 3, 0] = 1  # row 1, column 3
    shown = head(tokens, GRID)[0, 0].detach()
    row, column = divmod(int(shown.argmax()), 70)
    assert (row // 14, column // 14) == (1, 3)
    assert shown[:, :14].abs().max() == 0 < shown[:, 42:].max()


def test_training_finds_what_is_there():
    torch.manual_seed(5)
    tokens = 0.1 * torch.randn(2, *GRID, 12)
    tokens[0, 1:, 2:4, 0] += 3
    tokens[1, :2, :2, 0] += 3
    masks = torch.zeros(2, 1, 42, 70)
    masks[0, :, 14:, 28:56] = masks[1, :, :28, :28] = 1
    head = small()
    optimizer = torch.optim.AdamW(head.parameters(), 1e-2)
    for _ in range(80):
        loss = F.binary_cross_entropy_with_logits(head(tokens.flatten(1, 2), GRID), masks)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    found = head.eval()(tokens.flatten(1, 2), GRID) > 0
    assert (found == masks.bool()).float().mean() > 0.95


class TestWeights:
    def test_they_are_small_and_say_where_they_come_from(self):
        assert WEIGHTS.stat().st_size < 4e6
        about = read_metadata(WEIGHTS)
        assert about["made_by"] == "benchmarks/train_segmentation.py"
        assert "blackswan" in about["trained_on"]
        assert "camel" not in about["trained_on"]

    def test_they_load(self):
        assert not segmentation_head().training

    def test_other_files(self, tmp_path):
        save_file({"weight": torch.ones(3)}, tmp_path / "other.safetensors")
        with pytest.raises(ValueError, match="no weights of this SegmentationHead; bench"):
            segmentation_head(tmp_path / "other.safetensors")
