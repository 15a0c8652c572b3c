"""ViTDet end to end, small and with random weights; and the full-size presets by their shapes."""

import pytest
import torch

import eventful
import eventful.models
from eventful.models import vitdet
from eventful.models.vitdet.detector import ViTDet

SIZES = [(56, 96), (64, 80)]
FRAME = (64, 96)  # 4 x 6 patches, windows of 3 x 3


def small(classes=3, cascade=True, channels=8, hidden=11, **backbone):
    """Everything at a small size, with weights that make mistakes show."""
    torch.manual_seed(5)
    options = {"embed_dim": 24, "depth": 3, "num_heads": 3, "window_size": 3} | backbone
    stages = [
        vitdet.BoxHead(classes, (w, w, w / 2, w / 2), cascade, channels, hidden)
        for w in ((10, 20, 30) if cascade else (10,))
    ]
    model = ViTDet(
        vitdet.ViTDetBackbone(FRAME, global_blocks=(1,), **options),
        vitdet.SimplePyramid(24, channels),
        vitdet.RPN(channels, keep=50),
        vitdet.BoxHeads(stages),
        vitdet.MaskHead(classes, channels) if cascade else None,
    )
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(std=1.5 / weight[0].numel() ** 0.5)
            else:
                weight.add_(0.3 * torch.randn_like(weight))
    return model.double().eval()


def video(frames=4):
    """Noise that changes in one corner of each image."""
    generator = torch.Generator().manual_seed(2)
    frame = torch.randn(2, 3, *FRAME, generator=generator).double()
    for _ in range(frames):
        frame = frame.clone()
        frame[0, :, :20, :30] += torch.randn(3, 20, 30, generator=generator)
        frame[1, :, 40:, 50:] += torch.randn(3, 24, 46, generator=generator)
        yield frame


def check_same(found, expected, tolerance=1e-9):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.labels.tolist() == other.labels.tolist()
        for name in ("boxes", "scores", "masks"):
            a, b = getattr(one, name), getattr(other, name)
            if b is None:
                assert a is None
            else:
                torch.testing.assert_close(a, b, rtol=0, atol=tolerance)


@pytest.mark.parametrize("cascade", [True, False])
def test_keep_all_eventful_finds_what_dense_finds(cascade):
    dense, model = small(cascade=cascade), small(cascade=cascade)
    eventful.convert(model, eventful.KeepAll())
    stream = eventful.Stream(model, method="features", scene_cuts=None)
    for frame in video():
        expected = dense(frame, SIZES)
        assert all(len(each) > 5 for each in expected)
        check_same(model.detect(stream(frame), SIZES), expected)


def test_few_tokens_find_something_else():
    dense, model = small(), small()
    eventful.convert(model, eventful.TopR(3))
    stream = eventful.Stream(model, method="features", scene_cuts=None)
    first, second = list(video(2))
    check_same(model.detect(stream(first), SIZES), dense(first, SIZES))
    found, expected = model.detect(stream(second), SIZES), dense(second, SIZES)
    assert not torch.equal(found[0].scores, expected[0].scores)
    assert "backbone.blocks.1.qkv" in stream.gates


@pytest.mark.parametrize("cascade", [True, False])
def test_images_of_a_batch_keep_apart(cascade):
    model, frame = small(cascade=cascade), next(video())
    both = model(frame, SIZES)
    alone = [model(frame[i : i + 1], SIZES[i : i + 1])[0] for i in range(2)]
    check_same(both, alone)
    for found, (height, width) in zip(both, SIZES, strict=True):
        assert (found.boxes >= 0).all()
        assert (found.boxes <= torch.tensor([width, height, width, height])).all()
        assert (found.scores.diff() <= 0).all()
        assert ((found.labels >= 0) & (found.labels < 3)).all()
        if cascade:
            assert found.masks.shape == (len(found), 28, 28)
            assert ((found.masks >= 0) & (found.masks <= 1)).all()


def test_forward_is_detection_on_features():
    model, frame = small(), next(video())
    features = model.features(frame)
    sides = {name: tuple(x.shape[2:]) for name, x in features.items()}
    assert sides == {"p2": (16, 24), "p3": (8, 12), "p4": (4, 6), "p5": (2, 3), "p6": (1, 2)}
    check_same(model(frame, SIZES), model.detect(features, SIZES), tolerance=0)
    check_same(model(frame), model.detect(features, [FRAME] * 2), tolerance=0)


def test_frames_of_another_size():
    model = small()
    frame = torch.randn(1, 3, 96, 48).double()
    (found,) = model(frame, [(90, 48)])
    assert len(found) > 5
    assert found.boxes[:, 1::2].max() <= 90


def test_no_gradients_are_kept():
    (found, _) = small()(next(video()), SIZES)
    assert not found.boxes.requires_grad
    found.boxes.add_(1)  # and it is an ordinary tensor


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_precisions(dtype):
    model = small().to(dtype)
    found = model(next(video()).to(dtype), SIZES)
    for each in found:
        assert each.boxes.dtype == each.scores.dtype == each.masks.dtype == torch.float32
        assert len(each) > 5


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ([(56, 96)], r"each of 2 images, got 1; pass sizes=\[\(height, width\), ...\]"),
        ([(56, 96), (65, 80)], "image of 65 x 80 pixels does not fit into the frame of 64 x 96"),
        ([(56, 97), (64, 80)], "image of 56 x 97 pixels does not fit"),
        ([(56, 96), (64, 0)], "each size must be a positive height and width"),
    ],
)
def test_sizes_that_cannot_be(sizes, message):
    model = small()
    with pytest.raises(ValueError, match=message):
        model(next(video()), sizes)


def conv(outputs, inputs, side=3):
    return (outputs, inputs, side, side)


def box_head(prefix, outputs, classes):
    """Names and shapes of a full-size box head, which are those of Detectron2's."""
    shapes = {f"{prefix}.features.{i}.0.weight": conv(256, 256) for i in range(4)}
    for i in range(4):
        shapes |= {f"{prefix}.features.{i}.1.{kind}": (256,) for kind in ("weight", "bias")}
    linears = {"features.5": (1024, 256 * 7 * 7), "cls_score": (classes + 1, 1024)}
    linears["bbox_pred"] = (outputs, 1024)
    for name, shape in linears.items():
        shapes |= {f"{prefix}.{name}.weight": shape, f"{prefix}.{name}.bias": shape[:1]}
    return shapes


def proposal_head():
    shapes = {}
    for name, shape in {
        "conv.0.0": conv(256, 256),
        "conv.1.0": conv(256, 256),
        "cls_logits": conv(3, 256, 1),
        "bbox_pred": conv(12, 256, 1),
    }.items():
        shapes |= {f"rpn.head.{name}.weight": shape, f"rpn.head.{name}.bias": shape[:1]}
    return shapes


def mask_head(classes):
    shapes = {f"mask_head.features.{i}.0.weight": conv(256, 256) for i in range(4)}
    for i in range(4):
        shapes |= {f"mask_head.features.{i}.1.{kind}": (256,) for kind in ("weight", "bias")}
    shapes |= {
        "mask_head.predictor.conv5_mask.weight": conv(256, 256, 2),
        "mask_head.predictor.conv5_mask.bias": (256,),
        "mask_head.predictor.mask_fcn_logits.weight": conv(classes, 256, 1),
        "mask_head.predictor.mask_fcn_logits.bias": (classes,),
    }
    return shapes


VID = proposal_head() | box_head("box_heads.stages.0", 120, 30)
COCO = proposal_head() | mask_head(80)
for stage in range(3):
    COCO |= box_head(f"box_heads.stages.{stage}", 4, 80)


@pytest.mark.parametrize(
    ("name", "heads", "dim", "depth", "num_heads", "global_blocks", "kind"),
    [
        ("vitdet_b_vid", VID, 768, 12, 12, [2, 5, 8, 11], "paper"),
        ("vitdet_b_coco", COCO, 768, 12, 12, [2, 5, 8, 11], "linear"),
        ("vitdet_l_coco", COCO, 1024, 24, 16, [5, 11, 17, 23], "linear"),
    ],
)
def test_presets(name, heads, dim, depth, num_heads, global_blocks, kind):
    with torch.device("meta"):
        model = getattr(eventful.models, name)()
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    parts = ("backbone.", "pyramid.")
    assert {key: shapes[key] for key in shapes if not key.startswith(parts)} == heads
    blocks = list(model.backbone.blocks)
    assert len(blocks) == depth
    assert [i for i, block in enumerate(blocks) if block.window_size == 0] == global_blocks
    assert {block.window_size for block in blocks} == {0, 14}
    assert all(block.attn.num_heads == num_heads for block in blocks)
    assert all(block.attn.rel_positions == kind for block in blocks)
    assert shapes["backbone.patch_embed.proj.weight"] == (dim, 3, 16, 16)
    assert shapes[f"backbone.blocks.{global_blocks[0]}.attn.rel_pos_h"] == (127, 64)
    assert model.pyramid(torch.zeros(1, 2, 2, dim, device="meta"))["p2"].shape == (1, 256, 8, 8)
    assert not model.training


def test_what_presets_keep():
    with torch.device("meta"):
        vid, coco = eventful.models.vitdet_b_vid(), eventful.models.vitdet_b_coco()
    for model, proposals in ((vid, 300), (coco, 1000)):
        assert (model.rpn.keep, model.rpn.keep_per_level) == (proposals, 1000)
        assert model.rpn.nms_threshold == 0.7
        heads = model.box_heads
        assert (heads.score_threshold, heads.nms_threshold, heads.keep) == (0.05, 0.5, 100)
    assert vid.mask_head is None
    assert [stage.weights for stage in vid.box_heads.stages] == [(10, 10, 5, 5)]
    cascade = [(10, 10, 5, 5), (20, 20, 10, 10), (30, 30, 15, 15)]
    assert [stage.weights for stage in coco.box_heads.stages] == cascade


def test_presets_take_a_size_and_a_kind():
    with torch.device("meta"):
        model = eventful.models.vitdet_b_vid(img_size=(672, 640), rel_positions="linear")
    attn = model.backbone.blocks[2].attn
    assert (len(attn.rel_pos_h), len(attn.rel_pos_w)) == (83, 79)
    assert attn.rel_positions == "linear"
    with pytest.raises(ValueError, match="rel_positions"):
        eventful.models.vitdet_b_coco(rel_positions="cubic")
    with pytest.raises(AttributeError, match="no attribute 'vitdet_h_coco'"):
        _ = eventful.models.vitdet_h_coco
