"""Converted models compute what the original-named arrays say, and not merely hold them."""

import pickle

import pytest
import torch

from eventful.models.weights import KINDS, convert_checkpoint, load
from eventful.models.weights.kinds import shapes_of
from eventful.models.weights.renaming import find_source
from tests.weights import originals, plain

TOLERANCE = 1e-11
WINDOWS = ((originals.WINDOW,) * 2, None)  # the second block is global


def as_pickle(arrays, path):
    """As Detectron2's model zoo stores it."""
    zoo = {"model": arrays, "__author__": "somebody", "matching_heuristics": True}
    path.write_bytes(pickle.dumps(zoo, protocol=2))


def as_torch(arrays, path):
    """As a training run of Detectron2 stores it."""
    state = {key: torch.from_numpy(array) for key, array in arrays.items()}
    run = {"optimizer": {"momentum": torch.ones(3)}, "scheduler": {}, "iteration": 7}
    torch.save({"model": state} | run, path)


def as_pyth(arrays, path):
    """As TAdaConv stores it."""
    state = {key: torch.from_numpy(array) for key, array in arrays.items()}
    run = {"optimizer_state": {"momentum": torch.ones(3)}, "epoch": 7, "cfg": "TRAIN: {}"}
    torch.save({"model_state": state} | run, path)


def convert(folder, kind, arrays, model, write):
    """Write a checkpoint, convert it, and load it into the model, in float64."""
    source, target = folder / "original", folder / "converted.safetensors"
    write(arrays, source)
    convert_checkpoint(kind, source, target, model=model)
    return load(model.double(), target), plain.doubles(arrays)


@pytest.fixture(scope="module", params=[as_pickle, as_torch])
def vid(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("vid")
    model, arrays = originals.small_vitdet(), originals.detectron2()
    return convert(folder, "vitdet_b_vid", arrays, model, request.param)


@pytest.fixture(scope="module", params=["vitdet_b_coco", "vitdet_l_coco"])
def coco(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("coco")
    model, arrays = originals.small_vitdet(cascade=True), originals.detectron2(cascade=True)
    return convert(folder, request.param, arrays, model, as_pickle)


def random(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def close(ours, theirs):
    assert ours.shape == theirs.shape
    assert theirs.abs().max() > 0.01
    return (ours - theirs).abs().max() < TOLERANCE * theirs.abs().max()


def test_backbone_of_a_windowed_and_a_global_block(vid):
    model, arrays = vid
    images = random(2, 3, 16 * originals.LINES, 16 * originals.COLUMNS)
    with torch.no_grad():
        ours = model.backbone(images)
    for tokens, image in zip(ours, images, strict=True):
        assert close(tokens, plain.vitdet_tokens(image, arrays, originals.HEADS, WINDOWS))


def test_pyramid(vid):
    model, arrays = vid
    tokens = random(originals.LINES, originals.COLUMNS, originals.DIM)
    with torch.no_grad():
        ours = model.pyramid(tokens[None])
    theirs = plain.vitdet_pyramid(tokens, arrays)
    assert list(ours) == list(theirs)
    for level, expected in theirs.items():
        assert close(ours[level], expected)


def test_features_from_the_image_on(vid):
    model, arrays = vid
    image = random(3, 16 * originals.LINES, 16 * originals.COLUMNS, seed=1)
    tokens = plain.vitdet_tokens(image, arrays, originals.HEADS, WINDOWS)
    with torch.no_grad():
        ours = model.features(image[None])
    for level, expected in plain.vitdet_pyramid(tokens, arrays).items():
        assert close(ours[level], expected)


def test_head_of_the_proposals(vid):
    model, arrays = vid
    maps = random(2, originals.CHANNELS, 5, 7)
    with torch.no_grad():
        (logits,), (deltas,) = model.rpn.head([maps])
    expected = plain.rpn_head(maps, arrays)
    assert close(logits, expected[0])
    assert close(deltas, expected[1])


def test_box_head_of_faster_rcnn(vid):
    model, arrays = vid
    pooled = random(5, originals.CHANNELS, 7, 7)
    with torch.no_grad():
        logits, deltas = model.box_heads.stages[0](pooled)
    expected = plain.box_head(pooled, arrays)
    assert close(logits, expected[0])
    assert close(deltas, expected[1].reshape(5, originals.CLASSES, 4))


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_box_heads_of_the_cascade(coco, stage):
    model, arrays = coco
    pooled = random(5, originals.CHANNELS, 7, 7)
    with torch.no_grad():
        logits, deltas = model.box_heads.stages[stage](pooled)
    expected = plain.box_head(pooled, arrays, f".{stage}")
    assert close(logits, expected[0])
    assert close(deltas, expected[1].reshape(5, 1, 4))


def test_mask_head(coco):
    model, arrays = coco
    pooled = random(5, originals.CHANNELS, 14, 14)
    with torch.no_grad():
        logits = model.mask_head.predictor(model.mask_head.features(pooled))
    assert close(logits, plain.mask_head(pooled, arrays))


@pytest.mark.parametrize("epic", [False, True], ids=["kinetics", "epic"])
def test_vivit_from_the_frames_to_the_classes(tmp_path, epic):
    kind = "vivit_b_epic" if epic else "vivit_b_kinetics"
    arrays = originals.tadaconv(epic)
    model, w = convert(tmp_path, kind, arrays, originals.small_vivit(), as_pyth)
    views = random(1, 2, originals.FRAMES, 3, 16 * originals.LINES, 16 * originals.COLUMNS)
    classifier = "head.linear1" if epic else "head.linear"
    theirs = [plain.vivit(view, w, originals.HEADS, 2, 1, classifier) for view in views[0]]
    with torch.no_grad():
        assert close(model(views[0][:, None]), torch.stack(theirs))
        assert close(model(views)[0], (theirs[0] + theirs[1]) / 2)


def as_state(arrays, path):
    """As the paper's code stores a model that it has fine-tuned."""
    torch.save({key: torch.from_numpy(array) for key, array in arrays.items()}, path)


@pytest.mark.parametrize("kind", ["vivit_b_epic_tuned", "vivit_b_kinetics_tuned"])
def test_vivit_under_the_names_of_the_papers_code(tmp_path, kind):
    arrays = originals.tadaconv()
    renamed = originals.as_the_paper_names(arrays)
    model, _ = convert(tmp_path, kind, renamed, originals.small_vivit(), as_state)
    view = random(originals.FRAMES, 3, 16 * originals.LINES, 16 * originals.COLUMNS)
    expected = plain.vivit(view, plain.doubles(arrays), originals.HEADS, 2, 1, "head.linear")
    with torch.no_grad():
        assert close(model(view[None, None])[0], expected)


def at_full_size(kind):
    """Names and shapes of the published checkpoint."""
    if kind.startswith("vitdet"):
        size = (24, 1024, 16, (5, 11, 17, 23)) if "_l_" in kind else (12, 768, 12, (2, 5, 8, 11))
        classes, cascade = (30, False) if "vid" in kind else (80, True)
        return (
            originals.detectron2_backbone(*size, (64, 64), 14, 14)
            | originals.detectron2_pyramid(size[1], 256)
            | originals.detectron2_heads(256, 1024, classes, cascade)
        )
    tokens = 400 if "epic" in kind else 196
    heads = {"linear1": 97} if "epic" in kind else {"linear": 400}
    return originals.tadaconv_shapes(768, 12, 4, tokens, 16, heads)


CHANGED = {  # shapes that differ between the two
    "backbone.net.pos_embed": lambda shape: (1, 14, 14, shape[2]),
    "backbone.stem.conv1.weight": lambda shape: (shape[0], 6, 16, 16),
}


@pytest.mark.parametrize(
    ("kind", "names"),
    # Detectron2: 3 + 14 a block, 32 of the pyramid, 8 of the RPN, 18 a box head, 16 of the masks.
    # TAdaConv: 6 + 12 a block, 4 of two norms, 2 of the classifier.
    [
        ("vitdet_b_vid", 3 + 12 * 14 + 32 + 8 + 18),
        ("vitdet_b_coco", 3 + 12 * 14 + 32 + 8 + 3 * 18 + 16),
        ("vitdet_l_coco", 3 + 24 * 14 + 32 + 8 + 3 * 18 + 16),
        ("vivit_b_epic", 6 + 16 * 12 + 4 + 2),
        ("vivit_b_kinetics", 6 + 16 * 12 + 4 + 2),
    ],
)
def test_presets_take_the_published_names_and_shapes(kind, names):
    ours = KINDS[kind].shapes()
    theirs = at_full_size(kind)
    sources = {name: find_source(name, KINDS[kind].rules)[0] for name in ours}
    assert len(theirs) == names
    assert sorted(sources.values()) == sorted(theirs)
    for name, source in sources.items():
        assert ours[name] == CHANGED.get(source, tuple)(theirs[source])


def test_a_preset_is_what_the_small_model_stands_for():
    """Names apart from numbers of layers: what holds at the small size holds at the full one."""

    def names(shapes):
        return {"".join("#" if c.isdigit() else c for c in name) for name in shapes}

    for kind, small in {
        "vitdet_b_vid": originals.small_vitdet(),
        "vitdet_b_coco": originals.small_vitdet(cascade=True),
        "vivit_b_epic": originals.small_vivit(),
    }.items():
        full = {name.replace(".10.", ".1.").replace(".11.", ".1.") for name in KINDS[kind].shapes()}
        assert names(full) == names(shapes_of(small))
