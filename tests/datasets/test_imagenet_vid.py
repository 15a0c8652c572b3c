"""ImageNet VID: layout, gaps, boxes, and what is broken in it."""

import numpy as np
import pytest
import torch
from PIL import Image

from eventful.datasets import ImageNetVID

DOG, CAR = "n02084071", "n02958343"  # labels 8 and 6


def paths(root, video, number, split="val"):
    stem = f"VID/{split}/{video}/{number:06d}"
    return root / f"Data/{stem}.JPEG", root / f"Annotations/{stem}.xml"


class TestFrames:
    def test_boxes_are_scaled_with_their_frame(self, vid):
        # 40 x 20 at size 96: x min(60 / 20, 96 / 40) = 2.4, so 96 x 48.
        root = vid("street", {0: [(DOG, (5, 0, 10, 20)), (CAR, (0, 5, 40, 15))]})
        (video,) = ImageNetVID(root, size=96)
        (frame,) = video
        assert (frame.size, frame.original, frame.number) == ((48, 96), (20, 40), 0)
        expected = [[12, 0, 24, 48], [0, 12, 96, 36]]
        torch.testing.assert_close(frame.target.boxes, torch.tensor(expected, dtype=torch.float32))
        assert frame.target.labels.tolist() == [8, 6]
        assert frame.target.tracks.tolist() == [0, 1]

    def test_each_axis_has_its_own_scale(self, vid):
        # 25 x 20 at size 16: 12.5 x 10, rounded to 13 x 10.
        root = vid("street", {0: [(DOG, (5, 4, 25, 20))]}, size=(25, 20))
        (frame,) = ImageNetVID(root, size=16)[0]
        expected = torch.tensor([[5 * 13 / 25, 2, 13, 10]])
        torch.testing.assert_close(frame.target.boxes, expected)

    def test_pictures_are_padded_with_the_mean(self, vid):
        (frame,) = ImageNetVID(vid("street", {3: []}), size=80)[0]
        assert frame.image.shape == (3, 80, 80)
        assert frame.image.dtype == torch.float32
        assert torch.equal(frame.image[:, 79, 79], torch.tensor([0.485, 0.456, 0.406]))
        inside, outside = frame.image[:, :40], frame.image[:, 40:]
        assert outside.std(dim=(1, 2)).max() < 1e-6
        red, green, blue = inside
        assert (red[:, -1] - red[:, 0]).min() > 0.8  # grows to the right
        assert (green[-1] - green[0]).min() > 0.8
        assert (blue - 30 / 255).abs().max() < 0.05

    def test_another_padding(self, vid):
        (frame,) = ImageNetVID(vid("street", {0: []}), size=80, fill=(0, 0, 1))[0]
        assert frame.image[:, 79, 0].tolist() == [0, 0, 1]

    def test_frames_without_objects_are_there(self, vid):
        video = ImageNetVID(vid("street", {0: [], 1: [(DOG, (0, 0, 5, 5))]}), size=32)[0]
        assert [len(frame.target.boxes) for frame in video] == [0, 1]
        assert [frame.target.boxes.shape[1] for frame in video] == [4, 4]


class TestVideos:
    def test_videos_are_split_at_gaps(self, vid):
        root = vid("b", {n: [] for n in (7, 8, 2, 4, 5)})
        vid("a", {0: [], 1: []})
        dataset = ImageNetVID(root, size=16)
        assert len(dataset) == 4
        assert [video.id for video in dataset] == ["a", "b@000002", "b@000004", "b@000007"]
        assert [video.numbers for video in dataset] == [(0, 1), (2,), (4, 5), (7, 8)]
        assert [frame.number for frame in dataset[2]] == [4, 5]
        assert not dataset.problems

    def test_training_videos_lie_a_folder_deeper(self, vid):
        root = vid("part_0000/a", {0: []}, split="train")
        vid("part_0001/b", {0: [], 2: []}, split="train")
        ids = [video.id for video in ImageNetVID(root, "train", size=16)]
        assert ids == ["part_0000/a", "part_0001/b@000000", "part_0001/b@000002"]

    def test_iterations_are_independent(self, vid):
        video = ImageNetVID(vid("a", {0: [], 1: []}), size=16)[0]
        for first, second in zip(video, video, strict=True):
            assert torch.equal(first.image, second.image)

    def test_the_root_may_lie_above(self, vid, tmp_path):
        root = vid("a", {0: []})
        (root / "set").mkdir()
        for part in ("Data", "Annotations"):
            (root / part).rename(root / "set" / part)
        (root / "set").rename(root / "ILSVRC2015")
        assert len(ImageNetVID(root, size=16)) == 1

    def test_frames_are_not_read_before_they_are_asked_for(self, vid):
        root = vid("a", {0: [], 1: []})
        dataset = ImageNetVID(root, size=16, strict=True)
        paths(root, "a", 1)[0].write_bytes(b"")
        frames = iter(dataset[0])
        assert next(frames).number == 0
        with pytest.raises(ValueError, match=r"000001\.JPEG"):
            next(frames)


class TestMissing:
    def test_no_frames(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"frames .*Data/VID/val.*image-net\.org"):
            ImageNetVID(tmp_path)

    def test_no_annotations(self, vid):
        root = vid("a", {0: []})
        (root / "Annotations").rename(root / "Elsewhere")
        with pytest.raises(FileNotFoundError, match=r"annotations .*Annotations/VID/val"):
            ImageNetVID(root)

    def test_no_videos(self, vid):
        root = vid("a", {0: []})
        (root / "Data/VID/val/a").rename(root / "a")
        with pytest.raises(FileNotFoundError, match="one folder a video"):
            ImageNetVID(root)

    def test_a_video_without_annotations_is_left_out(self, vid):
        root = vid("a", {0: []})
        vid("b", {0: []})
        (root / "Annotations/VID/val/a").rename(root / "away")
        dataset = ImageNetVID(root, size=16)
        assert [video.id for video in dataset] == ["b"]
        (problem,) = dataset.problems
        assert problem.path == root / "Annotations/VID/val/a"
        assert "is left out" in problem.reason
        with pytest.raises(FileNotFoundError, match="Annotations/VID/val/a"):
            ImageNetVID(root, strict=True)

    def test_a_video_without_frames_is_left_out(self, vid):
        root = vid("a", {0: []})
        vid("b", {})
        dataset = ImageNetVID(root, size=16)
        assert [video.id for video in dataset] == ["a"]
        assert dataset.problems.counts == {"missing": 1}

    @pytest.mark.parametrize(("split", "size"), [("test", 16), ("val", 0)])
    def test_wrong_arguments(self, vid, split, size):
        with pytest.raises(ValueError, match="must be"):
            ImageNetVID(vid("a", {0: []}), split, size)


class TestDamage:
    def test_an_unreadable_frame_is_skipped_and_the_video_goes_on(self, vid, truncate):
        root = vid("a", {n: [] for n in range(5)})
        truncate(paths(root, "a", 1)[0])
        paths(root, "a", 2)[0].write_text("no image")
        dataset = ImageNetVID(root, size=16)
        video = dataset[0]
        assert len(video) == 5
        for _ in range(2):
            assert [(frame.number, frame.gap) for frame in video] == [(0, 0), (3, 2), (4, 0)]
        assert dataset.problems.counts == {"image": 2}
        assert "it is no image" in str(dataset.problems)

    @pytest.mark.parametrize(
        "content",
        [b"<annotation><object>", b"", b"\x00\xff", b"<?xml version='1.0' encoding='x'?>"],
    )
    def test_broken_xml_gives_a_frame_without_target(self, vid, content):
        root = vid("a", {0: [(DOG, (0, 0, 5, 5))], 1: []})
        path = paths(root, "a", 0)[1]
        path.write_bytes(content)
        dataset = ImageNetVID(root, size=16)
        assert [frame.target is None for frame in dataset[0]] == [True, False]
        (problem,) = dataset.problems
        assert (problem.kind, problem.path) == ("annotation", path)
        with pytest.raises(ValueError, match="broken XML"):
            list(ImageNetVID(root, size=16, strict=True)[0])

    def test_a_frame_without_xml(self, vid):
        root = vid("a", {0: [], 1: []})
        paths(root, "a", 1)[1].unlink()
        dataset = ImageNetVID(root, size=16)
        assert [frame.target is None for frame in dataset[0]] == [False, True]
        assert dataset.problems.counts == {"missing": 1}
        with pytest.raises(FileNotFoundError, match=r"000001\.xml"):
            list(ImageNetVID(root, size=16, strict=True)[0])

    @pytest.mark.parametrize(
        ("thing", "reason"),
        [
            ((DOG, (5, 5, 5, 9)), "has no area"),
            ((DOG, (5, 9, 8, 5)), "has no area"),
            ((DOG, (5, 5, "nan", 9)), "has no area"),
            ((DOG, (40, 5, 44, 9)), "lies outside the 40 x 20"),
            ((DOG, (5, "five", 8, 9)), "'five' is no number"),
            (("n00000001", (5, 5, 8, 9)), "none of the 30"),
        ],
    )
    def test_an_unusable_object_is_left_out(self, vid, thing, reason):
        root = vid("a", {0: [(CAR, (0, 0, 8, 8)), thing, (DOG, (1, 1, 9, 9))]})
        dataset = ImageNetVID(root, size=32)
        (frame,) = dataset[0]
        assert frame.target.labels.tolist() == [6, 8]
        (problem,) = dataset.problems
        assert problem.kind == "box"
        assert problem.reason.startswith("object 2: ")
        assert reason in problem.reason
        with pytest.raises(ValueError, match=reason):
            list(ImageNetVID(root, size=32, strict=True)[0])

    def test_a_box_without_a_side(self, vid):
        root = vid("a", {0: [(CAR, (0, 0, 8, 8))]})
        path = paths(root, "a", 0)[1]
        path.write_text(path.read_text().replace("<xmin>0</xmin>", ""))
        dataset = ImageNetVID(root, size=16)
        (frame,) = dataset[0]
        assert len(frame.target.boxes) == 0
        assert "has no xmin" in str(dataset.problems)

    def test_an_annotation_for_another_size(self, vid):
        root = vid("a", {0: [(CAR, (0, 0, 8, 8))]})
        Image.fromarray(np.zeros((10, 20, 3), np.uint8)).save(paths(root, "a", 0)[0], "JPEG")
        dataset = ImageNetVID(root, size=16)
        (frame,) = dataset[0]
        assert frame.target is None
        assert "for 40 x 20 pixels, its frame has 20 x 10" in str(dataset.problems)

    def test_an_annotation_that_says_no_size_is_taken_as_it_is(self, vid):
        root = vid("a", {0: [(CAR, (0, 0, 8, 8))]})
        path = paths(root, "a", 0)[1]
        path.write_text(path.read_text().replace("<width>40</width>", "<width>0</width>"))
        (frame,) = ImageNetVID(root, size=16, strict=True)[0]
        assert len(frame.target.boxes) == 1
