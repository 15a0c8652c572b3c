"""Pictures of people to train a detector on, made from one video of a still camera.

Half of them are views into the video's frames, enlarged up to three times. For the other half,
people are cut out of the frames where they differ from the empty scene, and set before other
backgrounds, in any size and partly one before the other: a detector that has seen one scene alone
takes what it does not know for people. Colours, sharpness and noise vary in both.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import cv2
import numpy as np

SIZE = (294, 392)  # height and width of a picture
TALLEST, SMALLEST = 270, 45  # pixels of a person in a picture that is put together
DIFFERS = 28  # of 255, from the empty scene
MARGIN = 6  # around a box, for arms and feet that reach out of it
BACKGROUND_EVERY = 15


class Picture(NamedTuple):
    """A picture and the people in it.

    Attributes:
        pixels: float32 (height, width, 3), RGB in [0, 1].
        boxes: x0, y0, x1, y1 in pixels, (n, 4); people who can hardly be seen are left out.
    """

    pixels: np.ndarray
    boxes: np.ndarray


class Cutout(NamedTuple):
    """A person without surroundings.

    Attributes:
        pixels: uint8 (h, w, 3).
        mask: float32 (h, w), 1 on the person.
        box: x0, y0, x1, y1 in these pixels.
    """

    pixels: np.ndarray
    mask: np.ndarray
    box: np.ndarray


class Footage(NamedTuple):
    """A video with boxes, whole in memory.

    Attributes:
        frames: uint8 (height, width, 3), RGB.
        boxes: Of each frame x0, y0, x1, y1, and whether it counts (0 or 1): (n, 5).
    """

    frames: Sequence[np.ndarray]
    boxes: Sequence[np.ndarray]


def pictures(footage: Footage, backgrounds: Sequence[np.ndarray], seed: int) -> Iterator[Picture]:
    """Pictures without end."""
    rng = np.random.default_rng(seed)
    empty = np.median(np.stack(footage.frames[::BACKGROUND_EVERY]), axis=0).astype(np.uint8)
    people = cutouts(footage, empty)
    scenes = [*backgrounds, *[empty] * max(1, len(backgrounds) // 12)]
    while True:
        made = composed(rng, scenes, people) if rng.random() < 0.5 else view(rng, footage)
        yield varied(rng, *made)


def cutouts(footage: Footage, empty: np.ndarray) -> list[Cutout]:
    """People who stand free, from every 4th frame."""
    found = []
    for frame, boxes in list(zip(footage.frames, footage.boxes, strict=True))[::4]:
        differs = np.abs(frame.astype(int) - empty).max(axis=2) > DIFFERS
        for number, (*box, counts) in enumerate(boxes):
            others = np.delete(boxes, number, axis=0)
            if counts and covered(np.array(box), others[:, :4]) <= 0.02:
                found += cut(frame, differs, np.array(box))
    if not found:
        raise ValueError("expected people who stand free before a still background; found none")
    return found


def covered(box: np.ndarray, others: np.ndarray) -> float:
    """The largest share of a box that one of some others covers."""
    if not len(others):
        return 0.0
    corner = np.maximum(box[:2], others[:, :2])
    sides = (np.minimum(box[2:], others[:, 2:]) - corner).clip(min=0)
    return float(sides.prod(axis=1).max() / (box[2:] - box[:2]).prod())


def cut(frame: np.ndarray, differs: np.ndarray, box: np.ndarray) -> list[Cutout]:
    """The one region of a box that differs from the background; none if it does not fit the box."""
    height, width = differs.shape
    x0, y0, x1, y1 = (round(side) for side in box)
    if min(x0, y0) < 3 or x1 > width - 3 or y1 > height - 3:
        return []
    left, top = max(0, x0 - MARGIN), max(0, y0 - MARGIN)
    inside = slice(top, y1 + MARGIN), slice(left, x1 + MARGIN)
    mask = differs[inside].astype(np.uint8)
    for kind, side in ((cv2.MORPH_CLOSE, 5), (cv2.MORPH_OPEN, 3)):
        mask = cv2.morphologyEx(mask, kind, np.ones((side, side), np.uint8))
    count, numbers, about, _ = cv2.connectedComponentsWithStats(mask)
    if count < 2:
        return []
    largest = 1 + int(about[1:, cv2.CC_STAT_AREA].argmax())
    wide, tall, area = about[largest, [cv2.CC_STAT_WIDTH, cv2.CC_STAT_HEIGHT, cv2.CC_STAT_AREA]]
    fits = 0.85 < tall / (y1 - y0) < 1.15 and wide < 1.3 * (x1 - x0)
    if not fits or area < 0.3 * (x1 - x0) * (y1 - y0):
        return []
    own = np.array([x0 - left, y0 - top, x1 - left, y1 - top], np.float64)
    return [Cutout(frame[inside].copy(), (numbers == largest).astype(np.float32), own)]


def view(rng: np.random.Generator, footage: Footage) -> tuple[np.ndarray, np.ndarray]:
    """A part of a frame, four times out of five around a person, and the boxes in it."""
    height, width = SIZE
    while True:
        number = int(rng.integers(len(footage.frames)))
        frame, rows = footage.frames[number], footage.boxes[number]
        x, y, wide, tall = window(rng, frame.shape, 0.18, 0.92)
        if len(rows) and rng.random() < 0.8:
            x0, y0, x1, y1, _ = rows[rng.integers(len(rows))]
            x = np.clip((x0 + x1) / 2 - rng.uniform(0.1, 0.9) * wide, 0, frame.shape[1] - wide)
            y = np.clip((y0 + y1) / 2 - rng.uniform(0.2, 0.8) * tall, 0, frame.shape[0] - tall)
        boxes = (rows[:, :4] - [x, y, x, y]) * (width / wide)
        cropped = boxes.clip(0, [width, height, width, height])
        seen = area(cropped) / area(boxes)
        if ((boxes[:, 3] - boxes[:, 1] > TALLEST + 30) & (seen > 0.1)).any():
            continue
        return scaled(frame, (x, y, wide, tall)), cropped[(seen > 0.3) & (rows[:, 4] > 0)]


def area(boxes: np.ndarray) -> np.ndarray:
    """Of each box (n, 4)."""
    return (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)


def window(
    rng: np.random.Generator, shape: tuple[int, ...], least: float, most: float
) -> tuple[float, float, float, float]:
    """Left, top, width and height of a part with a picture's aspect; its share of the width."""
    height, width = shape[:2]
    aspect = SIZE[1] / SIZE[0]
    share = np.exp(rng.uniform(np.log(least), np.log(most)))
    wide = min(share * width, height * aspect)
    tall = wide / aspect
    return rng.uniform(0, width - wide), rng.uniform(0, max(0, height - tall)), wide, tall


def scaled(image: np.ndarray, part: tuple[float, float, float, float]) -> np.ndarray:
    """A part of an image at the size of a picture."""
    (height, width), (x, y, wide, tall) = SIZE, part
    if wide > 1.3 * width:
        image = cv2.GaussianBlur(image, (0, 0), 0.4 * wide / width)
    moved = np.array([[wide / width, 0, x], [0, tall / height, y]], np.float32)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(image, moved, (width, height), flags=flags, borderMode=cv2.BORDER_REFLECT)


def composed(
    rng: np.random.Generator, scenes: Sequence[np.ndarray], people: Sequence[Cutout]
) -> tuple[np.ndarray, np.ndarray]:
    """Up to six people before a part of a scene, small ones first."""
    height, width = SIZE
    scene = scenes[rng.integers(len(scenes))]
    image = scaled(scene, window(rng, scene.shape, 0.3, 1.0))
    if rng.random() < 0.7:  # people are enlarged more than most scenes, and so are less sharp
        less = 1 / rng.uniform(1, 3)
        small = cv2.resize(image, None, fx=less, fy=less, interpolation=cv2.INTER_AREA)
        image = cv2.resize(small, (width, height))
    image, owner = image.astype(np.float32), np.full(SIZE, -1)
    boxes: list[np.ndarray] = []
    sizes: list[int] = []
    typical = np.exp(rng.uniform(np.log(55), np.log(240)))
    heights = typical * np.exp(rng.normal(0, 0.35, rng.integers(0, 7)))
    for tall in sorted(heights.clip(SMALLEST, TALLEST)):
        pixels, mask, box = resized(rng, people[rng.integers(len(people))], tall)
        x, y = place(rng, mask.shape, boxes)
        rows = slice(max(y, 0), min(y + mask.shape[0], height))
        columns = slice(max(x, 0), min(x + mask.shape[1], width))
        inside = slice(rows.start - y, rows.stop - y), slice(columns.start - x, columns.stop - x)
        cover = mask[inside][..., None]
        image[rows, columns] += (pixels[inside] - image[rows, columns]) * cover
        owner[rows, columns][cover[..., 0] > 0.5] = len(boxes)
        boxes.append(box + np.array([x, y, x, y]))
        sizes.append(max(1, int((mask > 0.5).sum())))
    seen = [(owner == number).sum() / size > 0.25 for number, size in enumerate(sizes)]
    table = np.array(boxes).reshape(-1, 4).clip(0, [width, height, width, height])
    return image.clip(0, 255).astype(np.uint8), table[np.array(seen, bool)]


def resized(rng: np.random.Generator, person: Cutout, tall: float) -> Cutout:
    """A person of a height, now and then mirrored, in other colours, with a soft edge."""
    down = tall / (person.box[3] - person.box[1])
    right = down * rng.uniform(0.9, 1.25)
    pixels, mask, box = 255 * coloured(rng, person.pixels), person.mask, person.box
    if rng.random() < 0.5:
        pixels, mask, box = pixels[:, ::-1], mask[:, ::-1], mirrored(box[None], mask.shape[1])[0]
    size = round(mask.shape[1] * right), round(mask.shape[0] * down)
    soft = cv2.resize(cv2.GaussianBlur(mask, (0, 0), 0.7), size)
    return Cutout(
        cv2.resize(pixels, size),
        ((soft - 0.35) / 0.3).clip(0, 1),
        box * [right, down, right, down],
    )


def place(
    rng: np.random.Generator, shape: tuple[int, ...], boxes: Sequence[np.ndarray]
) -> tuple[int, int]:
    """Where a person stands: anywhere, or two times out of five before somebody."""
    tall, wide = shape
    if boxes and rng.random() < 0.4:
        other = boxes[rng.integers(len(boxes))]
        x, y = other[0] + rng.uniform(-0.8, 0.8) * wide, other[3] - rng.uniform(0.85, 1.1) * tall
    else:
        x = rng.uniform(-0.3 * wide, SIZE[1] - 0.7 * wide)
        y = rng.uniform(-0.1 * tall, SIZE[0] - 0.75 * tall)
    keep = 0.2  # of a person at least is inside the picture
    x = np.clip(x, (keep - 1) * wide, SIZE[1] - keep * wide)
    return int(x), int(np.clip(y, (keep - 1) * tall, SIZE[0] - keep * tall))


def mirrored(boxes: np.ndarray, width: float) -> np.ndarray:
    """Boxes (n, 4) in an image that is turned from left to right."""
    return np.column_stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]])


def coloured(rng: np.random.Generator, pixels: np.ndarray) -> np.ndarray:
    """Four times out of five another hue, saturation, contrast and brightness; in [0, 1]."""
    image = pixels.astype(np.float32) / 255
    if rng.random() > 0.8:
        return image
    hue, saturation, value = cv2.split(cv2.cvtColor(image, cv2.COLOR_RGB2HSV))
    hue = (hue + rng.uniform(-25, 25)) % 360
    saturation = (saturation * rng.uniform(0.3, 1.4)).clip(0, 1)
    parts = [part.astype(np.float32) for part in (hue, saturation, value)]
    image = cv2.cvtColor(cv2.merge(parts), cv2.COLOR_HSV2RGB)
    contrast, brighter = rng.uniform(0.6, 1.3), rng.uniform(-0.15, 0.15)
    return ((image - 0.5) * contrast + 0.5 + brighter).clip(0, 1) ** rng.uniform(0.7, 1.4)


def varied(rng: np.random.Generator, pixels: np.ndarray, boxes: np.ndarray) -> Picture:
    """A picture as another camera might have taken it."""
    if rng.random() < 0.5:
        pixels, boxes = pixels[:, ::-1], mirrored(boxes, pixels.shape[1])
    image = coloured(rng, pixels)
    if rng.random() < 0.2:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.5, 1.5))
    if rng.random() < 0.3:
        image = (image + rng.normal(0, rng.uniform(0.005, 0.03), image.shape)).clip(0, 1)
    return Picture(np.ascontiguousarray(image, np.float32), boxes)
