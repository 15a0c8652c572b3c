"""`eventful paper table`: rows that have data are run, the others are skipped and say why."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from safetensors.torch import save_file

from eventful.cli.commands import paper
from eventful.cli.commands.paper import TableSettings
from eventful.datasets import Kinetics, Views
from eventful.evaluation import TASKS, ActionTask, TaskKind
from eventful.finetuning.checkpoints import save_weights, weights_path
from eventful.models.vitdet import RPN, BoxHead, BoxHeads, SimplePyramid, ViTDet, ViTDetBackbone
from eventful.models.vivit import ViViT
from eventful.paper import Entry, Row
from eventful.policies import TopR
from eventful.video import Writer

VID, CLIPS = "vitdet_b_vid", "vivit_b_kinetics"
CACHED = {"attention": "cached", "half_precision": True}


def row(variant, r, options, model=VID, size=64, tuned=None, operations=1.0):
    entry = Entry("C", model, size, variant, operations, 50.0, r, tuned)
    return Row(entry, None if r is None else TopR(r), options)


DETECTION = [
    row("dense", None, {}),
    row("full", 5, CACHED),
    row("dense", None, {}, size=96),
    row("incremental", 5, {"attention": "incremental"}, operations=None),
]
ACTIONS = [
    row("dense", None, {}, CLIPS, 16),
    row("full", 2, CACHED | {"prefix": "gated"}, CLIPS, 16, tuned=2),
    row("full", 1, CACHED | {"prefix": "gated"}, CLIPS, 16, tuned=1),
]


def detector():
    torch.manual_seed(0)
    backbone = ViTDetBackbone(64, embed_dim=12, depth=2, num_heads=3, global_blocks=(1,))
    heads = BoxHeads([BoxHead(30, channels=8, hidden=16)])
    return ViTDet(backbone, SimplePyramid(12, 8), RPN(8, keep=9), heads).eval()


def classifier():
    torch.manual_seed(0)
    return ViViT(classes=2, img_size=16, frames=4, dim=24, heads=3, depth=2).eval()


def of_clips(model, choice):
    views = Views(frames=4, size=16, stride=1)
    return ActionTask("kinetics", model, Kinetics(choice.root, views=views))


@pytest.fixture
def small(monkeypatch):
    """The command on small models; rows as given."""
    kinds = {
        "vid": TaskKind("ImageNet VID", VID, detector, TASKS["vid"].make),
        "kinetics": TaskKind("Kinetics-400", CLIPS, classifier, of_clips),
    }
    monkeypatch.setattr(paper, "task_kind", kinds.__getitem__)

    def use(rows):
        monkeypatch.setattr(paper, "rows", lambda table: rows)

    return use


@pytest.fixture(scope="module")
def vid(tmp_path_factory):
    """Two videos of three frames with one object each."""
    root = tmp_path_factory.mktemp("vid")
    noise = np.random.default_rng(0).integers(0, 255, (2, 3, 20, 40, 3), dtype=np.uint8)
    box = "<xmin>4</xmin><ymin>2</ymin><xmax>14</xmax><ymax>18</ymax>"
    xml = f"<annotation><object><name>n02084071</name><bndbox>{box}</bndbox></object></annotation>"
    for video, frames in zip(("a", "b"), noise, strict=True):
        images, notes = (root / part / "VID/val" / video for part in ("Data", "Annotations"))
        images.mkdir(parents=True)
        notes.mkdir(parents=True)
        for number, pixels in enumerate(frames):
            Image.fromarray(pixels).save(images / f"{number:06d}.JPEG")
            (notes / f"{number:06d}.xml").write_text(xml)
    return root


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    root = tmp_path_factory.mktemp("clips")
    head = "label,youtube_id,time_start,time_end,split"
    (root / "val.csv").write_text(f"{head}\nzumba,a,0,1,val\nski,b,0,1,val\n")
    for name in ("a", "b"):
        with Writer(root / f"{name}_000000_000001.mp4", rate=25) as writer:
            for level in range(8):
                writer.write(np.full((16, 24, 3), 20 * level, np.uint8))
    return root


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    for name, model in (("vid", detector()), ("clips", classifier())):
        save_file(model.state_dict(), folder / f"{name}.safetensors")
    return folder


def run(root, out, **options):
    console = Console(file=io.StringIO(), width=200)
    result = paper.table(TableSettings("C", root, out=out, device="cpu", **options), console)
    return result, console.file.getvalue()


def test_every_row_is_run(small, vid, weights, tmp_path):
    small(DETECTION)
    result, _ = run(vid, tmp_path, weights=weights / "vid.safetensors")
    found = {(one["size"], one["variant"]): one for one in result["rows"]}
    assert set(found) == {(64, "dense"), (64, "full"), (64, "incremental"), (96, "dense")}
    for one in found.values():
        assert one["skipped"] is None
        assert one["measured"]["videos"] == 2
        assert one["measured"]["first_share"] in (1 / 3, 1.0)
    dense, full = found[64, "dense"]["measured"], found[64, "full"]["measured"]
    assert full["operations"] < dense["operations"] < found[96, "dense"]["measured"]["operations"]
    assert found[64, "full"]["paper"] == {"operations": 1.0, "accuracy": 50.0}
    assert found[64, "incremental"]["paper"]["operations"] is None
    assert result["problems"] == 0


def test_it_goes_on_where_it_was(small, vid, weights, tmp_path, monkeypatch):
    small(DETECTION[:2])
    options = {"weights": weights / "vid.safetensors"}
    result, _ = run(vid, tmp_path, **options)
    monkeypatch.setattr("eventful.evaluation.Runner.__call__", None)  # would fail
    assert run(vid, tmp_path, **options)[0] == result


def test_what_has_no_data_is_skipped_and_says_so(small, tmp_path):
    small(DETECTION)
    result, text = run(tmp_path / "nowhere", tmp_path)
    assert [one["measured"] for one in result["rows"]] == [None] * 4
    for one in result["rows"]:
        assert "expected the frames of ImageNet VID (val) at" in one["skipped"]
    assert text.count("skipped 3 rows: expected the frames") == 1
    assert text.count("skipped 1 rows: expected the frames") == 1
    with pytest.raises(FileNotFoundError, match="expected the frames"):
        run(tmp_path / "nowhere", tmp_path, strict=True)


def test_data_without_weights_is_a_mistake(small, vid, tmp_path):
    small(DETECTION)
    with pytest.raises(ValueError, match="eventful weights vitdet_b_vid writes"):
        run(vid, tmp_path)


def test_rows_of_tuned_models_need_these(small, clips, weights, tmp_path):
    small(ACTIONS)
    options = {"weights": weights / "clips.safetensors"}
    result, _ = run(clips, tmp_path / "a", **options)
    dense, *others = result["rows"]
    assert dense["measured"]["videos"] == 2
    for one, r in zip(others, (2, 1), strict=True):
        assert one["skipped"].startswith(f"the temporal model tuned at r = {r} is needed")
    tuned = tmp_path / "tuned"
    for epoch in (1, 2):
        (tuned / "1").mkdir(parents=True, exist_ok=True)
        save_weights(classifier(), weights_path(tuned / "1", epoch))
    result, _ = run(clips, tmp_path / "b", tuned=tuned, **options)
    dense, two, one = result["rows"]
    assert one["measured"]["operations"] < dense["measured"]["operations"]
    assert two["skipped"].endswith(f"eventful finetune train --out {tuned / '2'} writes it")


def test_people_get_the_paper_beside_it(small, clips, weights, tmp_path):
    small(ACTIONS)
    result, _ = run(clips, tmp_path, weights=weights / "clips.safetensors")
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(paper.table_table(result))
    text = " ".join(console.export_text().split())
    assert "50.00" in text
    assert "skipped: the temporal model tuned at r = 2 is needed" in text


def test_a_table_that_is_not_there():
    with pytest.raises(ValueError, match="there is no table 'F'"):
        paper.table(TableSettings("F", Path()), Console())
