"""Frames and models that frame policies refuse, and how; the stream is as it was."""

import importlib

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

import eventful
from tests.laws.frames import (
    COSTS,
    NoMotion,
    flow_is,
    frame_stream,
    pixels,
)
from tests.zoo import build, clip, same


@pytest.fixture(autouse=True)
def _no_motion(monkeypatch):
    flow_is(monkeypatch, NoMotion)


class Cut(nn.Module):
    """Runs a model on what a function makes of a frame."""

    def __init__(self, model, make):
        super().__init__()
        self.model, self.make = model.eval(), make

    def forward(self, x):
        return self.model(self.make(x))


def any_size():
    sizes = {"patch_size": 4, "embed_dim": 24, "depth": 3, "num_heads": 3, "num_classes": 7}
    return VisionTransformer(img_size=(12, 20), dynamic_img_size=True, **sizes)


def tiled():
    return Cut(any_size(), lambda x: torch.cat(x.split(4, dim=3)))


def halved():
    """As many tiles as frames, of the first alone."""
    return Cut(any_size(), lambda x: x[:1])


def merged():
    return Cut(build("plain"), lambda x: torch.cat([x, x.mean(dim=0, keepdim=True)]))


def mirrored_later():
    """The first block sees the frame's rows, the others twice as many."""
    model = build("plain").eval()
    model.blocks[1].register_forward_pre_hook(lambda _, args: torch.cat([args[0], args[0].flip(1)]))
    return model


class TestRefusals:
    @pytest.mark.parametrize("value", [torch.nan, torch.inf])
    def test_of_nan_leave_the_stream_as_it_was(self, value):
        stream, twin = frame_stream("plain"), frame_stream("plain")
        for t, frame in enumerate(clip(7)):
            if t in (0, 2, 5):
                bad = frame.clone()
                bad[1, 0, 3, 3] = value
                before = stream.snapshot() if t else {}
                with pytest.raises(ValueError, match=f"frame {t} holds NaN or infinity"):
                    stream(bad)
                assert same(stream.snapshot() if t else {}, before)
            assert torch.equal(stream(frame), twin(frame))
        assert set(stream.stats.flush_reasons) == {"first frame"}

    def test_of_frames_too_small_for_flow(self, monkeypatch):
        monkeypatch.undo()
        stream = frame_stream("plain")
        with pytest.raises(ValueError, match=r"12 x 20 pixels are too small for motion.*48"):
            stream(clip(1)[0])
        assert stream.stats.frames == 0
        stream.policy = eventful.Skip(2)
        stream(clip(1)[0])

    def test_of_another_size_leave_the_stream_as_it_was(self, monkeypatch):
        monkeypatch.undo()
        model = build("sam_no_positions")
        model = eventful.convert(model, eventful.Auto(share=0.5))
        make = lambda: eventful.Stream(  # noqa: E731
            model, pixels=pixels, costs=COSTS, method="forward_features", scene_cuts=None
        )
        stream, twin = make(), make()
        model.patch_embed.strict_img_size = False
        model.patch_embed.img_size = None
        torch.manual_seed(0)
        video, small = torch.randn(4, 2, 3, 48, 64), torch.randn(2, 3, 44, 44)
        for frame in video[:2]:
            assert torch.equal(stream(frame), twin(frame))
        with pytest.raises(ValueError, match="too small for motion"):
            stream(small)
        for frame in video[2:]:
            assert torch.equal(stream(frame), twin(frame))
        assert stream.stats.rows == twin.stats.rows
        assert stream.stats.operations == twin.stats.operations
        assert set(stream.stats.flush_reasons) == {"first frame"}

    def test_of_scales_that_cannot_be_told(self):
        model = eventful.convert(build("plain"), eventful.Auto(share=0.5))
        stream = eventful.Stream(model, costs=COSTS)
        with pytest.raises(ValueError, match=r"values from 0 to 255; say how it was normalised"):
            stream(torch.linspace(0, 255, 2 * 3 * 240).view(2, 3, 12, 20))
        assert stream.stats.frames == 0
        stream(torch.rand(2, 3, 12, 20))

    def test_of_8_bits_where_the_stream_normalises(self):
        model = eventful.convert(build("plain"), eventful.Auto(share=0.5))
        stream = eventful.Stream(model, normalize=([0.5] * 3, [0.5] * 3), costs=COSTS)
        with pytest.raises(ValueError, match=r"from 0 to 255; for 8-bit .* frame.float\(\) / 255"):
            stream(torch.linspace(0, 255, 2 * 3 * 240).view(2, 3, 12, 20))
        assert stream.stats.frames == 0
        stream(torch.rand(2, 3, 12, 20))

    @pytest.mark.parametrize(
        ("made", "got"),
        [
            (lambda x: x[0], r"\(3, 12, 20\)"),
            (lambda x: x[:1], r"\(1, 3"),
            (lambda x: None, "NoneType"),
        ],
    )
    def test_of_pixels_that_are_no_pictures(self, made, got):
        stream = frame_stream("plain", pixels=made)
        with pytest.raises(ValueError, match=f"pixels=.* of the 2 rows of a frame, got {got}"):
            stream(clip(1)[0])
        assert stream.stats.frames == 0

    def test_of_frames_without_pixels(self):
        class Tokens(nn.Module):
            def __init__(self):
                super().__init__()
                self.blocks = build("no_class_token").blocks

            def forward(self, x):
                return self.blocks(x) + 0

        model = eventful.convert(Tokens().eval(), eventful.Carry(3))
        frames = torch.randn(4, 2, 15, 24)
        with pytest.raises(ValueError, match=r"follows motion.*got \(2, 15, 24\).*pixels=.*Skip"):
            eventful.Stream(model)(frames[0])
        for policy in (eventful.Skip(2), eventful.TopR(3)):
            stream = eventful.Stream(model, policy=policy, scene_cuts=None)
            for frame in frames:
                stream(frame)
        assert stream.stats.frames == 4

    def test_of_a_missing_opencv_name_what_to_install(self, monkeypatch):
        monkeypatch.undo()
        load = importlib.import_module

        def missing(name, *rest):
            if name == "cv2":
                raise ModuleNotFoundError(name)
            return load(name, *rest)

        monkeypatch.setattr(importlib, "import_module", missing)
        stream = frame_stream("plain", eventful.Auto(share=0.5))
        with pytest.raises(ModuleNotFoundError, match="pip install opencv-python-headless"):
            stream(clip(1)[0])
        stream.policy = eventful.Skip(2)
        stream(clip(1)[0])

    @pytest.mark.parametrize("policy", ["auto:0.5", "skip:3", "top:3"])
    def test_of_models_that_make_rows_of_their_own(self, policy):
        class Twice(nn.Module):
            def __init__(self):
                super().__init__()
                self.backbone = build("plain")

            def forward(self, x):
                return self.backbone.forward_features(torch.cat([x, x.flip(3)])).mean()

        model = eventful.convert(Twice().eval(), eventful.parse(policy))
        stream = eventful.Stream(model, pixels=pixels, costs=COSTS)
        with pytest.raises(ValueError, match="makes 4 rows of tokens of a frame of 2 rows"):
            stream(clip(1)[0])
        assert stream.stats.frames == 0

    @pytest.mark.parametrize("policy", ["auto:0.5", "skip:3", "top:3"])
    @pytest.mark.parametrize("tiles", [tiled, halved, mirrored_later, merged])
    def test_of_models_that_cut_or_copy_frames_in_their_own_way(self, policy, tiles):
        model = eventful.convert(tiles(), eventful.parse(policy))
        stream = eventful.Stream(model, pixels=pixels, costs=COSTS)
        for _ in range(2):
            with pytest.raises(ValueError, match=r"rows of tokens of a frame of 2 rows|one shape"):
                stream(clip(1)[0])
        stream.reset([0])
        assert stream.stats.frames == 0
