"""Annotated videos in the real formats, some frames each, and a tiny network for them."""

import numpy as np
import torch
from PIL import Image
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from eventful.datasets import Davis
from eventful.evaluation import combined, evaluate, report
from eventful.evaluation.runners.tokens import Models
from eventful.evaluation.tasks.saliency import DavisSaliency
from eventful.video import Writer

SIZE = 70  # the long side in pixels
SHAPE = (40, 60)  # of the frames: 42 x 70 pixels, 3 x 5 patches of 14 x 14
_CONFIG = {"mean": (0.5, 0.5, 0.5), "std": (0.2, 0.2, 0.2)}


class Decoder(nn.Module):
    """A linear map of each patch token to a probability, the same for the whole patch."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(24, 1)

    def forward(self, tokens, grid):
        values = self.head(tokens)[..., 0].view(len(tokens), 1, *grid)
        return values.sigmoid().repeat_interleave(14, dim=2).repeat_interleave(14, dim=3)


class Network(nn.Module):
    """Noise that looks at its input; the same weights at every size."""

    def __init__(self, size):
        super().__init__()
        self.backbone = VisionTransformer(
            img_size=size, patch_size=14, embed_dim=24, depth=2, num_heads=3, num_classes=0
        )
        self.backbone.pretrained_cfg = _CONFIG
        self.decoder = Decoder()
        with torch.no_grad():
            for number, weight in enumerate(self.parameters()):
                if weight.ndim > 1:
                    torch.manual_seed(number)
                    weight.normal_(std=1.3 / weight[0].numel() ** 0.5)

    def forward(self, x):
        tokens = self.backbone.forward_features(x)[:, self.backbone.num_prefix_tokens :]
        return self.decoder(tokens, [side // 14 for side in x.shape[2:]])


def network(size):
    return Network(size).eval()


def models():
    return Models(network)


def scene(number, shape=SHAPE, still=False):
    """A bright rectangle that moves over a ground with texture: pixels and mask."""
    height, width = shape
    y, x = np.mgrid[:height, :width]
    pixels = (90 + 40 * np.sin(x / 5) + 40 * np.cos(y / 7)).astype(np.uint8)
    pixels = np.repeat(pixels[..., None], 3, axis=2)
    mask = np.zeros(shape, bool)
    left = 4 if still else 4 + 3 * number
    mask[8:26, left : left + 20] = True
    pixels[mask] = (250, 180, 60)
    return pixels, mask


def write_davis(root, sequences):
    """DAVIS; sequences are names with a number of frames, or with frames (pixels, mask)."""
    for name, given in sequences.items():
        frames = [scene(number) for number in range(given)] if isinstance(given, int) else given
        images, masks = (root / part / "480p" / name for part in ("JPEGImages", "Annotations"))
        for folder in (images, masks):
            folder.mkdir(parents=True)
        for number, (pixels, mask) in enumerate(frames):
            Image.fromarray(pixels).save(images / f"{number:05d}.jpg", quality=95)
            Image.fromarray(mask.astype(np.uint8) * 255).save(masks / f"{number:05d}.png")
    return root


def write_cdnet(root, frames=16, labelled=(12, 15)):
    """CDnet with one video; its labels hold every kind."""
    video = root / "highway"
    for part in ("input", "groundtruth"):
        (video / part).mkdir(parents=True)
    for number in range(1, frames + 1):
        pixels, mask = scene(number)
        labels = np.where(mask, 255, 0).astype(np.uint8)
        labels[26:30], labels[30:34], labels[34:] = 50, 170, 85
        Image.fromarray(pixels).save(video / f"input/in{number:06d}.jpg", quality=95)
        Image.fromarray(labels).save(video / f"groundtruth/gt{number:06d}.png")
    region = np.full(SHAPE, 255, np.uint8)
    region[:, :6] = 0
    Image.fromarray(region).save(video / "ROI.bmp")
    (video / "temporalROI.txt").write_text("{} {}".format(*labelled))
    return root


def write_crowd(root, frames=9):
    """A video with a box on each frame."""
    root.mkdir(exist_ok=True)
    with Writer(root / "vtest.avi", rate=10) as writer:
        for number in range(frames):
            writer.write(scene(number)[0])
    rows = [f"{number + 1},-1,{4 + 3 * number},8,20,18,0.9,-1,-1,-1" for number in range(frames)]
    (root / "det.txt").write_text("\n".join(rows) + "\n")
    return root


def write_people(root, frames=9):
    """The same scene for the detector of people: ground truth on vtest, and TUD-Campus."""
    write_crowd(root / "vtest", frames)
    boxes = (root / "vtest" / "det.txt").read_text().replace(",0.9,", ",1,")
    (root / "vtest" / "gt.txt").write_text(boxes)
    (root / "mot").mkdir(exist_ok=True)
    with Writer(root / "mot" / "TUD-Campus.mp4", rate=25) as writer:
        for number in range(5):
            writer.write(scene(number)[0])
    (root / "mot" / "TUD-Campus-gt.txt").write_text(boxes)
    return root


def make(kind, dataset, folder, **options):
    """A task at the size of the tiny network."""
    return kind(models(), dataset, folder / "dense", **({"size": SIZE} | options))


def davis(folder, sequences, kind=DavisSaliency, **options):
    """A task on DAVIS with these sequences, see `write_davis`."""
    return make(kind, Davis(write_davis(folder / "data", sequences)), folder, **options)


def rows(task, folder, *policies):
    """The report on the dense model and one gate for all blocks, with these policies."""
    found = evaluate(task, combined(["dense", "input"], policies), folder / "out")
    return report(task, found, {"title": "data"})
