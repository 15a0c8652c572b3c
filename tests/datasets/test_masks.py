"""DAVIS and CDnet: masks of what moves, tiny and real."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from eventful.datasets import CDnet, Davis


def save(path, values, palette=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.array(values, np.uint8))
    if palette:
        image.putpalette(palette)
    image.save(path)
    return path


def real(name):
    if "EVENTFUL_DATA" not in os.environ:
        pytest.skip(f"EVENTFUL_DATA is not set: the folder that holds {name}/")
    path = Path(os.environ["EVENTFUL_DATA"]) / name
    if not path.is_dir():
        pytest.skip(f"EVENTFUL_DATA holds no {name}/")
    return path


class TestDavis:
    @pytest.fixture
    def root(self, tmp_path, frames):
        for name, numbers in (("camel", (0, 1, 2)), ("boat", (0,))):
            frames(tmp_path / "JPEGImages/480p" / name, numbers, (7, 5), "{:05d}.jpg")
            for number in numbers:
                mask = np.zeros((5, 7), np.uint8)
                mask[1, 2 + number] = 255
                save(self.mask(tmp_path, name, number), mask)
        return tmp_path

    @staticmethod
    def mask(root, name, number):
        return root / f"Annotations/480p/{name}/{number:05d}.png"

    def test_frames_and_masks(self, root):
        dataset = Davis(root)
        assert [(video.id, len(video)) for video in dataset] == [("boat", 1), ("camel", 3)]
        for number, frame in enumerate(dataset[1]):
            assert frame.image.shape == (3, 5, 7)
            assert frame.target.dtype == torch.bool
            assert frame.target.nonzero().tolist() == [[1, 2 + number]]
            assert (frame.number, frame.size, frame.original) == (number, (5, 7), (5, 7))
        assert not dataset.problems

    def test_chosen_sequences_at_another_size(self, root):
        (video,) = Davis(root, ["camel"], size=(10, 21))
        frame = next(iter(video))
        assert frame.image.shape == (3, 10, 21)
        assert (frame.size, frame.original) == ((10, 21), (5, 7))
        rows, columns = frame.target.nonzero(as_tuple=True)
        assert (rows.unique().tolist(), columns.unique().tolist()) == ([2, 3], [6, 7, 8])
        assert next(iter(Davis(root, size=6)[0])).image.shape == (3, 6, 6)

    def test_masks_of_several_objects(self, root):
        path = self.mask(root, "boat", 0)
        save(path, [[0, 1, 2, 0, 0, 0, 0]] * 5, [0, 0, 0, 128, 0, 0, 0, 128, 0])
        (frame,) = Davis(root, ["boat"])[0]
        assert frame.target[0].tolist() == [False, True, True] + [False] * 4

    def test_missing_folders(self, root):
        with pytest.raises(FileNotFoundError, match=r"frames of goat .*goat.*davischallenge\.org"):
            Davis(root, ["goat"])
        (root / "Annotations/480p/boat").rename(root / "boat")
        with pytest.raises(FileNotFoundError, match=r"masks of boat .*Annotations/480p/boat"):
            Davis(root)
        (root / "Annotations/480p").rename(root / "masks")
        with pytest.raises(FileNotFoundError, match=r"masks of DAVIS at .*Annotations/480p"):
            Davis(root)

    @pytest.mark.parametrize("what", ["missing", "broken", "other size"])
    def test_a_mask_that_cannot_be_used(self, root, what, truncate):
        path = self.mask(root, "camel", 1)
        if what == "missing":
            path.unlink()
        elif what == "broken":
            truncate(path)
        else:
            save(path, np.zeros((7, 5)))
        dataset = Davis(root, ["camel"])
        assert [frame.target is None for frame in dataset[0]] == [False, True, False]
        (problem,) = dataset.problems
        assert problem.path == path
        if what == "other size":
            assert "has 5 x 7 pixels, its frame 7 x 5" in problem.reason
        with pytest.raises((ValueError, FileNotFoundError), match=path.name):
            list(Davis(root, ["camel"], strict=True)[0])

    def test_a_frame_that_cannot_be_read(self, root, truncate):
        truncate(root / "JPEGImages/480p/camel/00001.jpg")
        dataset = Davis(root, ["camel"])
        assert [(frame.number, frame.gap) for frame in dataset[0]] == [(0, 0), (2, 1)]
        assert dataset.problems.counts == {"image": 1}

    def test_real_sequences(self):
        dataset = Davis(real("davis2016"), strict=True)
        assert {"blackswan", "camel", "parkour"} <= {video.id for video in dataset}
        (video,) = (video for video in dataset if video.id == "camel")
        assert video.numbers == tuple(range(90))
        frame = next(iter(video))
        assert frame.image.shape == (3, 480, 854)
        assert frame.target.shape == (480, 854)
        assert 0.02 < frame.target.float().mean() < 0.5
        assert next(iter(Davis(real("davis2016"), ["camel"], size=28)[0])).target.shape == (28, 28)


class TestCDnet:
    LABELS = ((0, 50, 85), (170, 255, 255))

    @pytest.fixture
    def root(self, tmp_path, frames):
        for name in ("highway", "office"):
            folder = tmp_path / "baseline" / name
            frames(folder / "input", range(1, 5), (3, 2), "in{:06d}.jpg")
            for number in range(1, 5):
                save(folder / f"groundtruth/gt{number:06d}.png", self.LABELS)
            save(folder / "ROI.bmp", [[255, 255, 255], [255, 255, 0]])
            (folder / "temporalROI.txt").write_text("2 3")
        return tmp_path

    def test_labels_in_the_labelled_range(self, root):
        dataset = CDnet(root)
        assert [video.id for video in dataset] == ["baseline/highway", "baseline/office"]
        frames = list(dataset[0])
        assert [frame.number for frame in frames] == [1, 2, 3, 4]
        assert [frame.target is None for frame in frames] == [True, False, False, True]
        assert dataset.labelled(0) == range(2, 4)
        motion = frames[1].target
        assert motion.labels.tolist() == [list(row) for row in self.LABELS]
        assert motion.region.tolist() == [[True] * 3, [True, True, False]]
        assert motion.moving.tolist() == [[False] * 3, [False, True, True]]
        assert motion.scored.tolist() == [[True, True, False], [False, True, False]]

    def test_a_category_or_one_video_is_a_root_too(self, root):
        assert [video.id for video in CDnet(root / "baseline")] == ["highway", "office"]
        assert [video.id for video in CDnet(root / "baseline/office")] == ["office"]

    def test_another_size(self, root):
        frame = list(CDnet(root, size=(4, 9))[0])[1]
        assert frame.image.shape == (3, 4, 9)
        assert frame.target.labels[0].tolist() == [0] * 3 + [50] * 3 + [85] * 3
        assert frame.target.region.sum() == 4 * 9 - 2 * 3

    @pytest.mark.parametrize("name", ["groundtruth", "temporalROI.txt", "ROI.bmp"])
    def test_missing_parts(self, root, name):
        (root / "baseline/office" / name).rename(root / "away")
        with pytest.raises(FileNotFoundError, match=f"office.*{name}.*changedetection.net"):
            CDnet(root)

    def test_no_videos(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="folders that hold input/"):
            CDnet(tmp_path / "nowhere")

    def test_a_broken_range_or_region(self, root):
        folder = root / "baseline/highway"
        (folder / "temporalROI.txt").write_text("470")
        with pytest.raises(ValueError, match=r"first and last, in .*highway/temporalROI\.txt"):
            CDnet(root)
        (folder / "temporalROI.txt").write_text("2 3")
        (folder / "ROI.bmp").write_text("no image")
        with pytest.raises(ValueError, match=r"ROI\.bmp"):
            CDnet(root)

    @pytest.mark.parametrize(
        ("labels", "reason"),
        [
            (None, "no such mask"),
            ([[0, 0, 0]], "has 3 x 1 pixels, its frame 3 x 2"),
            ([[0, 1, 0], [0, 0, 0]], "holds 1, which is none of"),
        ],
    )
    def test_labels_that_cannot_be_used(self, root, labels, reason):
        path = root / "baseline/highway/groundtruth/gt000002.png"
        path.unlink()
        if labels:
            save(path, labels)
        dataset = CDnet(root)
        assert [frame.target is None for frame in dataset[0]] == [True, True, False, True]
        (problem,) = dataset.problems
        assert problem.path == path
        assert reason in problem.reason
        with pytest.raises((ValueError, FileNotFoundError), match=path.name):
            list(CDnet(root, strict=True)[0])

    def test_labels_outside_the_range_are_not_asked_for(self, root):
        (root / "baseline/highway/groundtruth/gt000001.png").unlink()
        dataset = CDnet(root, strict=True)
        assert len(list(dataset[0])) == 4

    def test_a_region_of_another_size(self, root):
        save(root / "baseline/highway/ROI.bmp", [[0, 0, 0, 0]])
        dataset = CDnet(root)
        targets = [frame.target for frame in dataset[0] if frame.target]
        assert all(target.region.all() for target in targets)
        assert dataset.problems.counts == {"annotation": 1}

    def test_a_real_video(self):
        (video,) = (v for v in CDnet(real("cdnet2014"), strict=True) if v.id == "highway")
        assert len(video) == 1700
        numbered = dict(zip(video.numbers, video._frames, strict=True))
        assert video._read(*numbered[469]).target is None
        frame = video._read(*numbered[700])
        assert frame.image.shape == (3, 240, 320)
        assert 0.001 < frame.target.moving.float().mean() < 0.5
        assert 0.5 < frame.target.scored.float().mean() < 1
