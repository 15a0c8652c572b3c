"""Proposals, box heads, cascade and masks against plain computations of their own."""

import math
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from eventful.models.vitdet.box_heads import BoxHead, BoxHeads
from eventful.models.vitdet.detections import Detections
from eventful.models.vitdet.mask_head import MaskHead, paste_masks
from eventful.models.vitdet.rpn import RPN

CHANNELS = 6
SIZES = [(61, 90), (64, 40)]


def lively(module, std=0.3):
    """No weight at its initial value, in float64."""
    torch.manual_seed(7)
    with torch.no_grad():
        for weight in module.parameters():
            weight.normal_(std=std)
            if weight.ndim > 1:
                weight.div_(weight[0].numel() ** 0.5 * std)
    return module.double().eval()


def pyramid(batch=2, size=(64, 96), scale=1.0):
    torch.manual_seed(3)
    height, width = size
    return {
        f"p{i}": scale * torch.randn(batch, CHANNELS, height >> i, width >> i).double()
        for i in range(2, 7)
    }


def overlap(a, b):
    width = max(min(a[2], b[2]) - max(a[0], b[0]), 0)
    height = max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    areas = [(c[2] - c[0]) * (c[3] - c[1]) for c in (a, b)]
    return width * height / (sum(areas) - width * height)


def moved(start, shift):
    """A box decoded with weights of 1, in plain Python."""
    x0, y0, x1, y1 = start
    dx, dy, dw, dh = shift
    width, height = x1 - x0, y1 - y0
    x, y = (x0 + x1) / 2 + dx * width, (y0 + y1) / 2 + dy * height
    width *= math.exp(min(dw, math.log(62.5)))
    height *= math.exp(min(dh, math.log(62.5)))
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def anchor(level, row, column, ratio):
    size, stride = 2 ** (level + 3), 2**level
    width, height = size / ratio**0.5, size * ratio**0.5
    x, y = column * stride, row * stride
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def convolved(x, weights, name, padding=1):
    return F.conv2d(x, weights[f"{name}.weight"], weights.get(f"{name}.bias"), padding=padding)


def plain_level(x, weights, level, limit):
    """The best anchors of one level of one image: (score, level, box)."""
    for name in ("head.conv.0.0", "head.conv.1.0"):
        x = convolved(x, weights, name).relu()
    logits = convolved(x, weights, "head.cls_logits", 0)[0]
    deltas = convolved(x, weights, "head.bbox_pred", 0)[0]
    found = []
    for row in range(logits.shape[1]):
        for column in range(logits.shape[2]):
            for a, ratio in enumerate((0.5, 1, 2)):
                shift = deltas[4 * a : 4 * a + 4, row, column].tolist()
                new = moved(anchor(level, row, column, ratio), shift)
                found.append((logits[a, row, column].item(), level, new))
    return sorted(found, reverse=True)[:limit]


def clipped(box, size):
    height, width = size
    return tuple(min(max(v, 0), limit) for v, limit in zip(box, (width, height) * 2, strict=True))


def plain_proposals(weights, features, image, size, keep, keep_per_level):
    candidates = []
    for level in range(2, 7):
        x = features[f"p{level}"][image : image + 1]
        candidates += plain_level(x, weights, level, keep_per_level)
    kept = []
    for _, level, box in sorted(candidates, reverse=True):
        x0, y0, x1, y1 = new = clipped(box, size)
        rivals = [other for at, other in kept if at == level]
        if x1 > x0 and y1 > y0 and all(overlap(new, other) <= 0.7 for other in rivals):
            kept.append((level, new))
    return torch.tensor([new for _, new in kept[:keep]], dtype=torch.float64)


@pytest.mark.parametrize(("keep", "keep_per_level"), [(1000, 1000), (1000, 11), (9, 40)])
def test_proposals_against_a_plain_computation(keep, keep_per_level):
    rpn, features = lively(RPN(CHANNELS, keep, keep_per_level)), pyramid()
    with torch.no_grad():
        proposals = rpn(features, SIZES)
        weights = rpn.state_dict()
        for image, size in enumerate(SIZES):
            plain = plain_proposals(weights, features, image, size, keep, keep_per_level)
            # Anchors are float32, as Detectron2's.
            torch.testing.assert_close(proposals[image], plain, rtol=0, atol=1e-4)
    assert len(proposals[0]) == keep or keep == 1000
    assert not torch.equal(proposals[0][:5], proposals[1][:5])


def test_what_is_not_finite_is_not_proposed():
    rpn, features = lively(RPN(CHANNELS)), pyramid(batch=1)
    with torch.no_grad():
        features["p3"][0, 2, 4, 5] = math.nan
        (proposals,) = rpn(features, SIZES[:1])
        assert len(proposals) > 50
        assert proposals.isfinite().all()
        for bias in (rpn.head.cls_logits.bias, rpn.head.bbox_pred.bias):
            bias.fill_(math.inf)
            assert rpn(features, SIZES[:1])[0].shape == (0, 4)
            bias.fill_(0)


def plain_norm(x, weight, bias):
    mean = x.mean(dim=1, keepdim=True)
    variance = ((x - mean) ** 2).mean(dim=1, keepdim=True)
    x = (x - mean) / (variance + 1e-6).sqrt()
    return x * weight.view(1, -1, 1, 1) + bias.view(1, -1, 1, 1)


def plain_tower(x, weights):
    """Four convolutions without bias, each with a norm over the channels and a ReLU."""
    for i in range(4):
        assert f"features.{i}.0.bias" not in weights
        x = convolved(x, weights, f"features.{i}.0")
        x = plain_norm(x, weights[f"features.{i}.1.weight"], weights[f"features.{i}.1.bias"])
        x = x.relu()
    return x


@pytest.mark.parametrize(("agnostic", "boxes"), [(True, 1), (False, 3)])
def test_box_head_against_a_plain_computation(agnostic, boxes):
    head = lively(BoxHead(3, agnostic=agnostic, channels=CHANNELS, hidden=11))
    pooled, weights = torch.randn(5, CHANNELS, 7, 7).double(), head.state_dict()
    x = plain_tower(pooled, weights).flatten(1)
    x = (x @ weights["features.5.weight"].T + weights["features.5.bias"]).relu()
    logits = x @ weights["cls_score.weight"].T + weights["cls_score.bias"]
    deltas = x @ weights["bbox_pred.weight"].T + weights["bbox_pred.bias"]
    with torch.no_grad():
        actual = head(pooled)
    assert actual[1].shape == (5, boxes, 4)
    torch.testing.assert_close(actual[0], logits)
    torch.testing.assert_close(
        actual[1], deltas.view(5, boxes, 4)
    )  # x, y, w, h of a class together


class Stub(nn.Module):
    """A stage that predicts what it is told and remembers where it looked."""

    def __init__(self, logits, deltas, weights=(1, 1, 1, 1), agnostic=True):
        super().__init__()
        self.logits, self.deltas = torch.tensor(logits), torch.tensor(deltas)
        self.weights, self.agnostic = weights, agnostic

    def forward(self, pooled):
        self.seen = pooled.mean(dim=(2, 3))
        return self.logits, self.deltas


def positions():
    """Two channels, x and y of each cell's centre in pixels: 64 x 96, one image."""
    features = {}
    for level in (2, 3, 4, 5):
        y, x = ((torch.arange(n >> level) + 0.5) * 2**level for n in (64, 96))
        features[f"p{level}"] = torch.stack(torch.meshgrid(x, y, indexing="xy"))[None]
    return features


def test_cascade_by_hand():
    # The first stage moves the box from 20..40 to 70..110, of which 70..80 lie in the image.
    first = Stub([[2.0, 0.0, 1.0]], [[[30.0, 0.0, 10 * math.log(2), 0.0]]], (10, 10, 10, 10))
    # The second makes it half as high and moves it 10 up.
    second = Stub([[0.0, 1.0, 0.0]], [[[0.0, -5.0, 0.0, 10 * math.log(0.5)]]], (20, 20, 10, 10))
    third = Stub([[3.0, 0.0, 0.0]], [[[0.0, 0.0, 0.0, 0.0]]])
    heads = BoxHeads([first, second, third])
    (found,) = heads(positions(), [torch.tensor([[20.0, 12.0, 40.0, 52.0]])], [(60, 80)])
    torch.testing.assert_close(first.seen, torch.tensor([[30.0, 32.0]]))
    torch.testing.assert_close(second.seen, torch.tensor([[75.0, 32.0]]))
    torch.testing.assert_close(third.seen, torch.tensor([[75.0, 22.0]]))
    e = math.e
    scores = [
        (e**2 / (e**2 + 1 + e) + 1 / (2 + e) + e**3 / (e**3 + 2)) / 3,
        (1 / (e**2 + 1 + e) + e / (2 + e) + 1 / (e**3 + 2)) / 3,
    ]
    assert found.labels.tolist() == [0, 1]
    torch.testing.assert_close(found.scores, torch.tensor(scores))
    torch.testing.assert_close(found.boxes, torch.tensor([[70.0, 12.0, 80.0, 32.0]] * 2))


def test_one_stage_has_a_box_for_each_class():
    stage = Stub([[1.0, 0.0, -9.0]], [[[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]]], agnostic=False)
    (found,) = BoxHeads([stage])(positions(), [torch.tensor([[8.0, 4.0, 24.0, 12.0]])], [(64, 96)])
    assert found.labels.tolist() == [0, 1]
    assert found.boxes.tolist() == [[24, 4, 40, 12], [8, 12, 24, 20]]


def test_images_of_a_batch_keep_apart():
    heads = lively(BoxHeads([BoxHead(3, agnostic=True, channels=CHANNELS, hidden=11)] * 2))
    mask_head = lively(MaskHead(3, channels=CHANNELS))
    features = pyramid()
    corner = torch.rand(9, 2).double() * 30
    boxes = torch.cat([corner, corner + 5 + 30 * torch.rand(9, 2).double()], dim=1)
    proposals = [boxes[:2], boxes[2:]]
    with torch.no_grad():
        both = mask_head(features, heads(features, proposals, SIZES))
        for i, found in enumerate(both):
            own = {name: x[i : i + 1] for name, x in features.items()}
            (alone,) = mask_head(own, heads(own, proposals[i : i + 1], SIZES[i : i + 1]))
            assert len(found) > 1
            for name in ("boxes", "scores", "labels", "masks"):
                torch.testing.assert_close(getattr(found, name), getattr(alone, name))


@pytest.mark.parametrize("counts", [(0, 0), (0, 3)])
def test_images_without_proposals(counts):
    heads = BoxHeads([BoxHead(3, agnostic=True, channels=CHANNELS, hidden=11)] * 3).double()
    features = pyramid()
    one = torch.tensor([[2.0, 3.0, 30.0, 20.0]]).double()
    with torch.no_grad():
        found = heads(features, [one.expand(n, 4) for n in counts], SIZES)
        found = MaskHead(3, channels=CHANNELS).double()(features, found)
    assert [len(each) > 0 for each in found] == [n > 0 for n in counts]
    assert found[0].boxes.shape == (0, 4)
    assert found[0].masks.shape == (0, 28, 28)


def test_what_box_heads_refuse():
    with pytest.raises(ValueError, match="at least one box head"):
        BoxHeads([])
    with pytest.raises(ValueError, match="agnostic=True"):
        BoxHeads([BoxHead(3, channels=CHANNELS, hidden=11)] * 2)


def test_mask_head_against_a_plain_computation():
    head, features = lively(MaskHead(5, channels=CHANNELS)), pyramid(batch=1)
    boxes = torch.tensor([[8.0, 6.0, 40.0, 50.0], [30.0, 10.0, 80.0, 21.0]]).double()
    detections = Detections(boxes, torch.tensor([0.9, 0.8]), torch.tensor([4, 2]))
    regions = {}
    head.features.register_forward_hook(lambda *call: regions.update(pooled=call[1][0]))
    with torch.no_grad():
        (found,) = head(features, [detections])
        assert regions["pooled"].shape == (2, CHANNELS, 14, 14)
        weights = head.state_dict()
        x = plain_tower(regions["pooled"], weights)
        up = weights["predictor.conv5_mask.weight"]  # (in, out, 2, 2): every cell becomes four
        x = torch.einsum("nchw,cokl->nohkwl", x, up).flatten(2, 3).flatten(3, 4)
        x = (x + weights["predictor.conv5_mask.bias"].view(1, -1, 1, 1)).relu()
        logits = convolved(x, weights, "predictor.mask_fcn_logits", 0)
    expected = 1 / (1 + (-torch.stack([logits[0, 4], logits[1, 2]])).exp())
    torch.testing.assert_close(found.masks, expected)
    assert detections.masks is None


def test_pasting_by_hand():
    mask = torch.tensor([[[0.9, 0.1], [0.3, 0.8]]])
    # Over 4 x 4 pixels from (1, 0) on. The first and last pixels of a line take 3/4 of the nearest
    # cell, those between take 3/4 of it and 1/4 of the other: row 2 holds 0.1125, 0.3375, 0.494,
    # 0.581, 0.469 and 0.156.
    pasted = paste_masks(mask, torch.tensor([[1.0, 0.0, 5.0, 4.0]]), (5, 6), threshold=0.48)
    assert pasted.dtype == torch.bool
    assert pasted[0].int().tolist() == [
        [0, 1, 1, 0, 0, 0],
        [0, 1, 1, 0, 0, 0],
        [0, 0, 1, 1, 0, 0],
        [0, 0, 0, 1, 0, 0],
        [0, 0, 0, 0, 0, 0],
    ]


@pytest.mark.parametrize("threshold", [0.5, 0.1])
def test_pasting_against_grid_sampling(threshold):
    torch.manual_seed(5)
    masks, size = torch.rand(4, 28, 28).double(), (37, 53)
    boxes = torch.tensor(
        [
            [3.3, 2.1, 40.7, 30.9],
            [0.0, 0.0, 53.0, 37.0],
            [10.2, 5.0, 14.1, 36.0],
            [45.0, 30, 70, 50],
        ]
    ).double()
    y, x = (torch.arange(n).double() + 0.5 for n in size)
    x0, y0, x1, y1 = (side[:, None] for side in boxes.unbind(1))
    grid_x = (x - x0) / (x1 - x0) * 2 - 1
    grid_y = (y - y0) / (y1 - y0) * 2 - 1
    grid = torch.stack(
        [grid_x[:, None].expand(-1, *size), grid_y[..., None].expand(-1, *size)], dim=-1
    )
    sampled = F.grid_sample(masks[:, None], grid, align_corners=False)[:, 0]
    assert torch.equal(paste_masks(masks, boxes, size, threshold), sampled >= threshold)


def test_pasting_of_nothing_and_what_it_refuses():
    masks, boxes = torch.zeros(0, 28, 28), torch.zeros(0, 4)
    assert paste_masks(masks, boxes, (3, 5)).shape == (0, 3, 5)
    assert not paste_masks(torch.ones(1, 28, 28), torch.full((1, 4), 2.5), (3, 5)).any()
    with pytest.raises(ValueError, match="threshold must be above 0"):
        paste_masks(masks, boxes, (3, 5), threshold=0)
    with pytest.raises(ValueError, match="positive height and width"):
        paste_masks(masks, boxes, (3, 0))


WITHOUT_TORCHVISION = """
import sys
import eventful.models
import eventful.models.vitdet
assert "torchvision" not in sys.modules
sys.modules["torchvision"] = None
eventful.models.vitdet.ViTDetBackbone
for get in (lambda: eventful.models.vitdet_b_vid, lambda: eventful.models.vitdet.ViTDet):
    try:
        get()
    except ModuleNotFoundError as error:
        assert error.name == "torchvision"
        assert "pip install 'eventful-transformers[eval]'" in str(error), error
    else:
        raise SystemExit("it was there")
"""


def test_a_missing_torchvision_names_the_install_line():
    subprocess.run([sys.executable, "-c", WITHOUT_TORCHVISION], check=True)
