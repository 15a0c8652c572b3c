"""Models of other libraries in a runtime: the outputs are PyTorch's."""

import pytest
import torch

import eventful
from tests.families.zoo import build, inputs, stream_of, tensors, video
from tests.laws.frames import WholePatches, flow_is, kinds
from tests.zoo import relative

pytest.importorskip("openvino")
ON_A_GRID = "SAM", "SAM 3 vision", "ViTDet", "LW-DETR backbone"


@pytest.mark.parametrize(
    "name",
    ["DINOv2", "YOLOS", "Depth Anything", "torchvision ViT"]
    + [
        pytest.param(name, marks=pytest.mark.slow)
        for name in ("SAM", "SAM 3 vision", "ViTDet", "LW-DETR backbone")
    ],
)
def test_carried_and_partial_frames_are_those_of_pytorch(name, monkeypatch):
    """With class tokens in front, tokens behind the patches, windows, and several taps."""
    flow_is(monkeypatch, WholePatches)
    model, policy = build(name), eventful.Auto(share=0.5)
    ours, theirs = (stream_of(name, model, policy, runtime=r) for r in ("openvino", "torch"))
    for frame in video(name, 5):
        more = inputs(name, len(frame))
        pairs = zip(tensors(ours(frame, **more)), tensors(theirs(frame, **more)), strict=True)
        assert max(relative(a, b) for a, b in pairs) < 3e-5
        assert kinds(ours) == kinds(theirs)
    assert len(ours.stats.kinds) > 1


def test_a_mask_that_hides_something_is_refused():
    """A graph was traced with a mask that hid nothing."""

    class Masked(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.vit = build("torchvision ViT")

        def forward(self, x, attention_mask=None):
            return self.vit(x)

    model = eventful.convert(Masked(), eventful.Skip(2))
    stream = eventful.Stream(model, runtime="openvino", pixels=lambda x: x.sigmoid())
    first, second, third = video("torchvision ViT", 3)
    mask = torch.ones(len(first), 4)
    stream(first, attention_mask=mask), stream(second, attention_mask=mask)
    with pytest.raises(ValueError, match="attention_mask hides something"):
        stream(third, attention_mask=mask.tril())
    stream(third, attention_mask=mask)


def test_a_model_that_compares_rows_runs_row_by_row_only():
    """CLIP's logits are those of every image with every text."""
    (frame,) = video("CLIP", 1)
    ours, theirs = (
        stream_of("CLIP", build("CLIP"), eventful.Skip(2), runtime=runtime)
        for runtime in ("openvino", "torch")
    )
    with pytest.raises(ValueError, match=r"gives \(2, 1\) where PyTorch gives \(2, 2\): rows"):
        ours(frame, **inputs("CLIP", 2))
    one, more = frame[:1], {name: values[:1] for name, values in inputs("CLIP", 2).items()}
    pairs = zip(tensors(ours(one, **more)), tensors(theirs(one, **more)), strict=True)
    assert max(relative(a, b) for a, b in pairs) < 3e-5
