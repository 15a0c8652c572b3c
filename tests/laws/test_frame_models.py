"""Laws of frames on models that read their blocks in several places, and on whole detectors."""

import types

import pytest
import torch
from torch import nn

import eventful
from eventful.models import vitdet
from eventful.models.vehicles import VehicleDetector
from eventful.models.vitdet.detector import ViTDet
from tests.laws.frames import (
    COSTS,
    GRID,
    PATCH,
    NoMotion,
    WholePatches,
    flow_is,
    pixels,
    scripted,
    shifted,
    still,
)
from tests.zoo import build, clip, relative, same

DOUBLE = torch.float64


@pytest.fixture(autouse=True)
def _no_motion(monkeypatch):
    flow_is(monkeypatch, NoMotion)


class Model(nn.Module):
    """A backbone whose blocks it runs itself."""

    def __init__(self):
        super().__init__()
        self.backbone = build("no_class_token", DOUBLE)
        self.extra = nn.Parameter(torch.randn(1, 15, 24, dtype=DOUBLE))
        self.conv = nn.Conv2d(24, 24, 3, padding=1, dtype=DOUBLE)

    def embed(self, x):
        return self.backbone._pos_embed(self.backbone.patch_embed(x))


class Maps(Model):
    """Reads blocks 0, 1 and 2, as a decoder of depth does."""

    def forward(self, x):
        x, outputs = self.embed(x), []
        for block in self.backbone.blocks:
            x = block(x)
            outputs.append(x)
        maps = [y.mT.unflatten(2, GRID) for y in outputs]
        return maps[0] + maps[1].relu() - self.conv(maps[2])


class Returns(Model):
    """Gives its blocks' outputs as they are, one inside an object."""

    def forward(self, x):
        x = self.embed(x)
        first = self.backbone.blocks[0](x)
        second = self.backbone.blocks[1](first)
        return first, types.SimpleNamespace(middle=second), self.backbone.blocks[2](second)


class Between(Model):
    """Something stands between any two blocks: positions that are added, and a convolution."""

    def forward(self, x):
        x = self.backbone.blocks[0](self.embed(x)) + self.extra
        x = self.backbone.blocks[1](x)
        x = x + self.conv(x.mT.unflatten(2, GRID)).flatten(2).mT
        return self.backbone.norm(self.backbone.blocks[2](x))


class InPlace(Model):
    """Writes to what blocks give: between them, and behind the last."""

    def forward(self, x):
        x = self.backbone.blocks[0](self.embed(x))
        x.add_(self.extra)
        x = self.backbone.blocks[2](self.backbone.blocks[1](x))
        x.mul_(2).add_(1)
        return x


class Skips(Model):
    """The last block takes the first one's output too."""

    def forward(self, x):
        first = self.backbone.blocks[0](self.embed(x))
        return self.backbone.blocks[1](first), self.backbone.blocks[2](first)


MODELS = {
    Maps: ("0", "1", "2"),
    Returns: ("0", "1", "2"),
    Between: ("0", "1", "2"),
    InPlace: ("0", "2"),
    Skips: ("0", "1", "2"),
}


def stream_on(model, **options):
    options = {"scene_cuts": None, "pixels": pixels, "costs": COSTS} | options
    return eventful.Stream(eventful.convert(model, eventful.Auto(share=0.5)), **options)


def made(kind):
    torch.manual_seed(7)
    return kind().eval()


def leaves(output):
    if isinstance(output, torch.Tensor):
        return [output]
    if isinstance(output, types.SimpleNamespace):
        return [output.middle]
    return [x for part in output for x in leaves(part)]


@pytest.mark.parametrize("kind", MODELS)
def test_every_block_that_is_read_is_a_tap(kind):
    stream = stream_on(made(kind))
    stream(clip(1, dtype=DOUBLE)[0])
    assert [*stream._engine._taps.norms] == [f"backbone.blocks.{i}" for i in MODELS[kind]]


@pytest.mark.parametrize("kind", MODELS)
def test_all_kinds_of_frames_keep_a_still_video_still(kind):
    stream, frames = stream_on(made(kind)), still(9, dtype=DOUBLE)
    with torch.inference_mode():
        expected = leaves(made(kind)(frames[0]))
    output = scripted(stream, frames[0], "c p3 h d c p2 c d", "p2 c h p15 d p3 h c")
    for frame in frames[1:]:
        for ours, theirs in zip(leaves(output), expected, strict=True):
            assert relative(ours, theirs) < 1e-12
        output = stream(frame)


@pytest.mark.parametrize("kind", MODELS)
def test_partial_frames_of_all_tokens_and_dense_frames_are_dense(kind):
    stream, (first, *video) = stream_on(made(kind)), clip(5, dtype=DOUBLE)
    scripted(stream, first, "p15 d p15 c", "p15 p15 d p15")
    model = made(kind)
    for t, frame in enumerate(video):
        with torch.inference_mode():
            pairs = zip(leaves(stream(frame)), leaves(model(frame)), strict=True)
        for ours, theirs in pairs:
            rows = slice(1, 2) if t == 3 else slice(None)
            assert relative(ours[rows], theirs[rows]) < 1e-11


@pytest.mark.parametrize("kind", [Maps, Returns])
def test_every_tap_shifts(kind, monkeypatch):
    flow_is(monkeypatch, WholePatches)
    stream, frame = stream_on(made(kind)), still(1, dtype=DOUBLE)[0]
    scripted(stream, frame, "c", "c")
    taps = {name: torch.cat(rows) for name, rows in stream._engine._taps.dense.items()}
    stream(torch.stack([shifted(row, (0, 1), PATCH) for row in frame]))
    for name, before in taps.items():
        maps = before.mT.unflatten(2, GRID)
        expected = torch.stack([shifted(row, (0, 1)) for row in maps]).flatten(2).mT
        after = torch.cat(stream._engine._taps.shown[name])
        torch.testing.assert_close(after, expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("kind", MODELS)
def test_what_is_written_to_outputs_is_not_remembered(kind):
    texts = ("c p3 h h d c p2", "p4 c c h p2 h d")
    stream, twin, video = stream_on(made(kind)), stream_on(made(kind)), clip(8, dtype=DOUBLE)
    scripted(stream, video[0], *texts), scripted(twin, video[0], *texts)
    for frame in video[1:]:
        output, expected = leaves(stream(frame)), leaves(twin(frame))
        assert all(map(torch.equal, output, expected))
        with torch.inference_mode():
            for x in output:
                x.fill_(torch.nan)


def test_taps_may_be_named_but_none_left_out():
    frame = clip(1, dtype=DOUBLE)[0]
    for taps, message in {
        ("backbone.blocks.3",): r"no block is called 'backbone\.blocks\.3'; there are: .*blocks\.2",
        (
            "backbone.blocks.2",
        ): r"leaves out backbone\.blocks\.0, backbone\.blocks\.1, whose output",
    }.items():
        model = eventful.convert(made(Maps), eventful.Auto(share=0.5), taps=taps)
        stream = eventful.Stream(model, pixels=pixels, costs=COSTS)
        with pytest.raises(ValueError, match=message):
            stream(frame)
        assert stream.stats.frames == 0
    names = [f"blocks.{i}" for i in range(3)]
    model = eventful.convert(build("plain"), eventful.Auto(share=0.5), taps=names)
    stream = eventful.Stream(model, pixels=pixels, costs=COSTS)
    stream(frame)
    assert [*stream._engine._taps.norms] == names


def detector():
    torch.manual_seed(5)
    stages = [vitdet.BoxHead(3, (10, 10, 5, 5), False, 8, 11)]
    model = ViTDet(
        vitdet.ViTDetBackbone(
            (64, 96), global_blocks=(1,), embed_dim=24, depth=3, num_heads=3, window_size=3
        ),
        vitdet.SimplePyramid(24, 8),
        vitdet.RPN(8, keep=50),
        vitdet.BoxHeads(stages),
        None,
    )
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(std=1.5 / weight[0].numel() ** 0.5)
    return model.double().eval()


class Vehicles(nn.Module):
    """The detector of vehicles behind a backbone."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.backbone = build("no_class_token")
        self.head = VehicleDetector(24, 32, convs=1)
        self.head.fcos.score_thresh = 0.0

    def forward(self, x):
        return self.head(self.backbone.forward_features(x), GRID)


DETECTORS = {
    "vitdet": (detector, lambda: torch.randn(2, 3, 64, 96, dtype=DOUBLE)),
    "vehicles": (lambda: Vehicles().eval(), lambda: torch.randn(2, 3, 12, 20)),
}


@pytest.mark.parametrize("name", DETECTORS)
def test_detectors_run_on_every_kind_of_frame(name):
    make, frame_of = DETECTORS[name]
    torch.manual_seed(1)
    first, second = frame_of(), frame_of()
    stream, fresh = stream_on(make()), stream_on(make())
    output = scripted(stream, first, "c p3 h d", "h c p2 d")
    boxes = [one.boxes for one in output]
    for _ in range(3):
        for ours, theirs in zip(stream(first), boxes, strict=True):
            torch.testing.assert_close(ours.boxes, theirs)
    for ours, theirs in zip(stream(second), fresh(second), strict=True):
        torch.testing.assert_close(ours.boxes, theirs.boxes)
        assert len(ours.boxes)


class Prompted(Model):
    """Takes more than a frame."""

    def forward(self, x, shift=None, double=False):
        y = self.backbone.forward_features(x)
        y = y if shift is None else y + shift
        return y * 2 if double else y


@pytest.mark.parametrize("policy", ["auto:0.5", "carry:9", "skip:9"])
def test_other_inputs_take_part_on_every_frame(policy):
    stream = stream_on(made(Prompted), policy=eventful.parse(policy))
    frame, ones = still(1, dtype=DOUBLE)[0], torch.ones(24, dtype=DOUBLE)
    base = stream(frame, shift=0 * ones)
    for step in (1.0, 2.0):
        assert relative(stream(frame, shift=step * ones), base + step) < 1e-12
    assert set(stream.stats.kinds) == {"dense", "held"}
    assert relative(stream(frame, shift=ones, double=True), 2 * base + 2) < 1e-12
    assert stream.stats.flushes[-1].reason.startswith("inputs changed from")
    assert relative(stream(frame, shift=3 * ones, double=True), 2 * base + 6) < 1e-12


def test_snapshots_of_several_taps_go_through_a_file(tmp_path):
    video = clip(6, dtype=DOUBLE)
    stream, other = stream_on(made(Maps)), stream_on(made(Maps))
    for frame in video[:3]:
        stream(frame)
    stream.snapshot(tmp_path / "s")
    other.load_snapshot(tmp_path / "s")
    for frame in video[3:]:
        assert same(stream(frame), other(frame))
