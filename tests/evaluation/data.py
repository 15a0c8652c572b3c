"""Tiny data sets in the real formats, and tiny models for them."""

import csv

import numpy as np
import torch
from PIL import Image

from eventful.datasets import EpicKitchens, ImageNetVID, Kinetics, Views
from eventful.evaluation import ActionTask, TaskKind
from eventful.evaluation.tasks.detection import DetectionTask
from eventful.models.vitdet import RPN, BoxHead, BoxHeads, SimplePyramid, ViTDet, ViTDetBackbone
from eventful.models.vivit import ViViT
from eventful.video import Writer
from tests.datasets.conftest import EPIC_ROW, picture, xml

SIZE = 64  # pixels, of 4 x 4 tokens
DOG, CAR = "n02084071", "n02958343"
VIDEOS = {
    "beach": {0: [(DOG, (4, 2, 20, 18))], 1: [], 2: [(DOG, (6, 2, 22, 18))]},
    "street": {
        5: [(CAR, (0, 0, 30, 10))],
        6: [(CAR, (2, 0, 32, 10)), (DOG, (4, 4, 12, 16))],
        7: [],
        8: [(CAR, (6, 0, 36, 10))],
    },
}
ACTIONS = ("archery", "bowling", "zumba")
VIEWS = Views(frames=4, stride=1, rate=25, size=16, temporal=2, spatial=1)


def write_vid(root, videos=VIDEOS, size=(40, 20)):
    """ImageNet VID with a frame an entry; None writes no annotation."""
    for video, frames in videos.items():
        data, annotations = (root / part / "VID/val" / video for part in ("Data", "Annotations"))
        data.mkdir(parents=True)
        annotations.mkdir(parents=True)
        for number, things in frames.items():
            image = Image.fromarray(picture(3 * number, *size))
            image.save(data / f"{number:06d}.JPEG", quality=95)
            if things is not None:
                (annotations / f"{number:06d}.xml").write_text(xml(things, size))
    return root


def write_video(path, level, count=8):
    """A bar that moves over a ground of some brightness."""
    with Writer(path, rate=25) as writer:
        for t in range(count):
            pixels = np.full((16, 24, 3), 60 * level, np.uint8)
            pixels[:, 2 * t : 2 * t + 4] = 250
            writer.write(pixels)


def write_kinetics(root, clips=5):
    """Clips of three actions in turn, the last one damaged."""
    (root / "val").mkdir()
    rows = ["label,youtube_id,time_start,time_end,split"]
    for number in range(clips):
        rows.append(f"{ACTIONS[number % 3]},clip{number},0,1,val")
        path = root / "val" / f"clip{number}_000000_000001.mp4"
        write_video(path, number % 3)
    path.write_bytes(path.read_bytes()[:40])
    (root / "val.csv").write_text("\n".join(rows) + "\n")
    return root


def write_epic(root, verbs=(4, 0, 4)):
    """A video, and a table of actions in it, of 4 frames each."""
    (root / "P01").mkdir()
    write_video(root / "P01/P01_11.mp4", 1, count=24)
    with (root / "EPIC_100_validation.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(EPIC_ROW))
        writer.writeheader()
        for number, verb in enumerate(verbs):
            times = {"start_timestamp": f"00:00:0{0.2 * number:.2f}"}
            times["stop_timestamp"] = f"00:00:0{0.2 * number + 0.3:.2f}"
            changed = {"narration_id": f"P01_11_{number}", "verb_class": str(verb)}
            writer.writerow(EPIC_ROW | changed | times)
    return root


def detector():
    """Detects noise, so that outputs tell whether a state is what it should be."""
    torch.manual_seed(1)
    backbone = ViTDetBackbone(
        SIZE, embed_dim=12, depth=2, num_heads=3, window_size=2, global_blocks=(1,), position_grid=3
    )
    heads = BoxHeads([BoxHead(30, channels=8, hidden=16)], score_threshold=0.0, keep=7)
    model = ViTDet(backbone, SimplePyramid(12, 8), RPN(8, keep=9), heads).eval()
    return weighted(model)


def recogniser(classes):
    torch.manual_seed(2)
    sizes = {"frames": 4, "dim": 24, "heads": 3, "depth": 2, "temporal_depth": 1, "patch": 4}
    return weighted(ViViT(classes=classes, img_size=16, **sizes).eval())


def weighted(model):
    """Weights large enough for inputs to show in outputs."""
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(std=1.3 / weight[0].numel() ** 0.5)
    return model


def make_vid(model, choice):
    data = ImageNetVID(choice.root, size=choice.size or SIZE, strict=choice.strict)
    return DetectionTask(model, data, choice.frames)


def make_kinetics(model, choice):
    data = Kinetics(choice.root, views=VIEWS, strict=choice.strict)
    return ActionTask("kinetics", model, data)


def make_epic(model, choice):
    return ActionTask("epic", model, EpicKitchens(choice.root, views=VIEWS, strict=choice.strict))


KINDS = {
    "vid": TaskKind("ImageNet VID", "vitdet_b_vid", detector, make_vid),
    "epic": TaskKind("EPIC-Kitchens", "vivit_b_epic", lambda: recogniser(97), make_epic),
    "kinetics": TaskKind("Kinetics-400", "vivit_b_kinetics", lambda: recogniser(3), make_kinetics),
}
