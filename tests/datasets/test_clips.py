"""Views of clips, frames of files by time, EPIC-Kitchens and Kinetics."""

from fractions import Fraction

import pytest
import torch

from eventful.datasets import Action, EpicKitchens, Kinetics, Problems, Views, seeking
from eventful.datasets.seeking import ClipFile
from eventful.video import Reader

SMALL = Views(frames=4, stride=1, rate=30, size=8, temporal=2, spatial=3)


def tensor(picture):
    return torch.from_numpy(picture.copy()).permute(2, 0, 1) / 255


def times(*values):
    return [Fraction(value) for value in values]


class TestViews:
    def test_the_papers_views_in_time(self):
        # A second of Kinetics is 25 frames; a view spans 64 of the 250.
        views = Views(frames=32, stride=2, temporal=4)
        assert views.starts(250) == [0, 62, 124, 186]
        assert views.indices(250)[3] == list(range(186, 250, 2))

    def test_a_single_view_is_in_the_middle(self):
        views = Views(frames=3, stride=2, temporal=1, spatial=1, size=10)
        assert views.indices(11) == [[2, 4, 6]]
        assert views.corners(10, 25) == [(0, 7)]

    def test_short_clips_repeat_their_last_frame(self):
        assert Views(frames=4, stride=2, temporal=2).indices(5) == [[0, 2, 4, 4]] * 2
        assert Views(frames=3, stride=1, temporal=2).indices(1) == [[0, 0, 0]] * 2

    def test_crops_go_along_the_long_side(self):
        views = Views(size=320)
        assert views.corners(320, 569) == [(0, 0), (0, 124), (0, 249)]
        assert views.corners(569, 320) == [(0, 0), (124, 0), (249, 0)]
        assert views.corners(320, 320) == [(0, 0)] * 3

    @pytest.mark.parametrize(
        ("option", "error"),
        [
            ({"frames": 0}, ValueError),
            ({"size": 2.5}, TypeError),
            ({"rate": 0}, ValueError),
            ({"rate": float("nan")}, ValueError),
            ({"rate": "30"}, TypeError),
        ],
    )
    def test_wrong_options(self, option, error):
        with pytest.raises(error, match=next(iter(option))):
            Views(**option)

    def test_rates_are_exact(self):
        assert Views(rate=12.5).exact_rate == Fraction(25, 2)
        assert Views(rate=Fraction(30000, 1001)).exact_rate == Fraction(30000, 1001)
        assert Views(rate=None).exact_rate is None


class TestClipFile:
    @pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
    def test_the_nearest_frame(self, tmp_path, clip, shown, name):
        problems = Problems()
        file = ClipFile(clip(tmp_path / name, 20, rate=10), problems)
        assert (file.rate, file.seconds, file.shape) == (10, 2, (24, 48))
        # At 0.05 both are as near: the earlier. 1.95 lies within the last frame.
        asked = times(0, "0.04", "0.05", "0.06", "0.7", "1.9", "1.95")
        found = file.at(reversed(asked), size=12)
        assert found.keys() == set(asked)
        pictures = [tensor(found[time]) for time in asked]
        assert shown(pictures) == [0, 0, 0, 1, 7, 19, 19]
        assert {picture.shape for picture in pictures} == {(3, 12, 24)}
        assert not problems

    def test_past_the_end_there_is_none(self, tmp_path, clip):
        file = ClipFile(clip(tmp_path / "a.mp4", 20, rate=10), Problems())
        assert file.at(times(1, 2, 3), size=8).keys() == {1}
        assert file.at(times(7), size=8) == {}
        assert file.seconds == 2

    @pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
    def test_jumps_find_the_same_frames(self, tmp_path, clip, shown, monkeypatch, name):
        path = clip(tmp_path / name, 100, rate=25, every=12)
        monkeypatch.setattr(seeking, "JUMP", Fraction(1, 5))
        problems = Problems()
        file = ClipFile(path, problems)
        for first in (3, 12, 23, 24, 60, 95):
            asked = [Fraction(k, 25) for k in (first, first + 1, first + 4)]
            found = file.at(asked, size=24)
            assert shown([tensor(found[t]) for t in asked]) == [
                first,
                first + 1,
                first + 4,
            ]
        assert not problems

    def test_jumps_spare_decoding(self, tmp_path, clip, monkeypatch):
        path = clip(tmp_path / "a.mp4", 100, rate=25, every=10)
        monkeypatch.setattr(seeking, "JUMP", Fraction(1, 2))
        file = ClipFile(path, Problems())
        decoded, decode = [], file._decoded

        def counted(*args):
            for frame in decode(*args):
                decoded.append(frame)
                yield frame

        monkeypatch.setattr(file, "_decoded", counted)
        assert len(file.at([Fraction(k, 25) for k in (5, 80, 82)], size=8)) == 3
        assert len(decoded) < 20

    def test_colours_and_size_are_those_of_the_reader(self, tmp_path, clip):
        path = clip(tmp_path / "a.mp4", 5, size=(34, 22))
        with Reader(path) as reader:
            frame = list(reader)[3]
        (found,) = ClipFile(path, Problems()).at([frame.time], size=22).values()
        assert (found == frame.pixels).all()

    def test_no_video(self, tmp_path):
        (tmp_path / "a.mp4").write_text("no video")
        with pytest.raises(ValueError, match=r"a\.mp4"):
            ClipFile(tmp_path / "a.mp4", Problems())

    def test_a_file_that_breaks_off(self, tmp_path, clip, truncate):
        path = clip(tmp_path / "a.mp4", 100, rate=25, every=10)
        truncate(path, 0.7)
        problems = Problems()
        file = ClipFile(path, problems)
        assert file.seconds == 4
        found = file.at(times("0.2", "3.9"), size=8)
        assert found.keys() == {Fraction(1, 5)}
        assert 1 < file.seconds < Fraction(39, 10)
        assert problems.counts.keys() == {"video"}
        assert "declares 4.00 s but" in str(problems)

    @pytest.mark.parametrize("part", [1, 0.7])
    def test_files_that_are_read_from_the_start(self, tmp_path, clip, shown, truncate, part):
        path = clip(tmp_path / "a.avi", 60, rate=10, every=10)
        truncate(path, part)
        problems = Problems()
        file = ClipFile(path, problems)
        asked = times("1.2", "5.9")
        assert shown([tensor(picture) for picture in file.at(asked, size=24).values()])[0] == 12
        assert len(file.at(asked, size=24)) == (2 if part == 1 else 1)
        assert problems.counts.keys() == (set() if part == 1 else {"video"})

    def test_a_jump_past_what_is_left_of_a_file(self, tmp_path, clip, truncate, monkeypatch):
        monkeypatch.setattr(seeking, "JUMP", Fraction(1, 5))
        path = clip(tmp_path / "a.mp4", 100, rate=25, every=10)
        truncate(path, 0.8)
        file = ClipFile(path, Problems())
        assert file.at(times("3.9"), size=8) == {}
        assert 1 < file.seconds < Fraction(39, 10)

    def test_damage_in_the_middle(self, tmp_path, clip, shown):
        path = clip(tmp_path / "a.mp4", 100, rate=25, every=10)
        data = bytearray(path.read_bytes())
        begin = data.index(b"mdat")
        middle = begin + (len(data) - begin) // 2
        data[middle : middle + 400] = b"\xff" * 400
        path.write_bytes(data)
        problems = Problems()
        found = ClipFile(path, problems).at(times("0.2", "3.8"), size=24)
        pictures = [tensor(picture) for picture in found.values()]
        assert shown(pictures) == [5, 95]
        assert problems.counts.keys() == {"video"}


class TestEpic:
    def test_views_of_an_action(self, tmp_path, clip, epic, shown):
        clip(tmp_path / "P01/videos/P01_11.MP4", 90)
        root = epic({"start_timestamp": "00:00:01.00", "stop_timestamp": "00:00:02.00"})
        (action,) = EpicKitchens(root, views=SMALL, strict=True)
        assert (action.id, len(action)) == ("P01_11_0", 6)
        assert action.target == Action(4, "close", 3, "close door")
        views = list(action)
        assert [view.id for view in views] == [
            f"P01_11_0/t{t}s{s}" for t in (0, 1) for s in (0, 1, 2)
        ]
        assert shown(views[0].frames) == [30, 31, 32, 33]
        assert shown(views[5].frames) == [56, 57, 58, 59]
        assert views[5].numbers == (26, 27, 28, 29)
        assert views[0].frames.shape == (4, 3, 8, 8)
        samples = list(views[5])
        assert [sample.number for sample in samples] == [26, 27, 28, 29]
        assert torch.equal(torch.stack([s.image for s in samples]), views[5].frames)
        assert (samples[0].size, samples[0].original) == ((8, 8), (24, 48))
        assert samples[0].target is action.target

    @pytest.mark.parametrize(("rate", "step"), [(60, 2), (30, 1), (15, 0.5)])
    def test_other_rates_are_resampled_by_time(self, tmp_path, clip, epic, shown, rate, step):
        clip(tmp_path / "P01/P01_11.mp4", 90, rate=rate)
        (action,) = EpicKitchens(epic({"stop_timestamp": "00:00:01.50"}), views=SMALL)
        first, *_, last = action
        nearest = [int(k * step) for k in range(4)]  # halves go to the earlier
        assert shown(first.frames) == nearest
        assert shown(last.frames)[0] == int(41 * step)

    def test_fifty_frames_a_second(self, tmp_path, clip, epic, shown):
        clip(tmp_path / "P01/P01_11.mp4", 60, rate=50)
        (action,) = EpicKitchens(epic({"stop_timestamp": "00:00:01.00"}), views=SMALL)
        # 0, 33.3, 66.7, 100 ms beside frames every 20 ms.
        assert shown(next(iter(action)).frames) == [0, 2, 3, 5]

    @pytest.mark.parametrize(
        "place",
        [
            "P01/videos/P01_11.MP4",
            "P01/P01_11.MP4",
            "videos/P01_11.mp4",
            "EPIC-KITCHENS/P01/videos/P01_11.MP4",
        ],
    )
    def test_where_videos_may_lie(self, tmp_path, clip, epic, place):
        clip(tmp_path / place, 60)
        (action,) = EpicKitchens(epic({}), views=SMALL, strict=True)
        assert len(list(action)) == 6

    def test_a_file_without_suffix(self, tmp_path, clip, epic):
        clip(tmp_path / "a.mp4", 60).rename(tmp_path / "b")
        (tmp_path / "P01").mkdir()
        (tmp_path / "b").rename(tmp_path / "P01/P01_11")
        (action,) = EpicKitchens(epic({}), views=SMALL)
        assert action.path == tmp_path / "P01/P01_11"
        assert len(list(action)) == 6

    def test_the_other_split_and_another_table(self, tmp_path, clip, epic):
        clip(tmp_path / "P01/P01_11.MP4", 60)
        root = epic({}, {}, split="train")
        assert len(EpicKitchens(root, "train")) == 2
        table = tmp_path / "EPIC_100_train.csv"
        assert len(EpicKitchens(root, annotations=table)) == 2
        with pytest.raises(
            FileNotFoundError, match=r"EPIC_100_validation\.csv.*epic-kitchens\.github"
        ):
            EpicKitchens(root)
        with pytest.raises(ValueError, match="'train', 'validation'"):
            EpicKitchens(root, "val")

    def test_rows_outside_their_video(self, tmp_path, clip, epic, shown):
        clip(tmp_path / "P01/P01_11.MP4", 60)  # two seconds
        root = epic(
            {"start_timestamp": "00:00:02.00", "stop_timestamp": "00:00:03.00"},
            {"start_timestamp": "00:00:01.00", "stop_timestamp": "00:00:09.00"},
            {},
        )
        dataset = EpicKitchens(root, views=SMALL)
        outside, beyond, inside = (list(action) for action in dataset)
        assert (len(outside), len(beyond), len(inside)) == (0, 6, 6)
        assert shown(beyond[-1].frames) == [56, 57, 58, 59]
        assert dataset.problems.counts == {"row": 2}
        text = str(dataset.problems)
        assert "P01_11_0, from 2.00 to 3.00 s, lies outside" in text
        assert "P01_11_1, from 1.00 to 9.00 s, goes beyond" in text
        assert "EPIC_100_validation.csv" in text
        strict = EpicKitchens(root, views=SMALL, strict=True)
        for position in (0, 1):
            with pytest.raises(ValueError, match=f"P01_11_{position}"):
                list(strict[position])

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            ({"stop_timestamp": "00:00:00.00"}, "stops before it starts"),
            ({"start_timestamp": "soon"}, "'soon' is no time"),
            ({"verb_class": "97"}, "verb_class '97' is no number from 0 to 96"),
            ({"noun_class": ""}, "noun_class ''"),
        ],
    )
    def test_rows_that_cannot_be_read(self, tmp_path, clip, epic, change, reason):
        clip(tmp_path / "P01/P01_11.MP4", 60)
        dataset = EpicKitchens(epic({}, change))
        assert len(dataset) == 1
        (problem,) = dataset.problems
        assert problem.reason.startswith("line 3: ")
        assert reason in problem.reason
        with pytest.raises(ValueError, match="line 3"):
            EpicKitchens(tmp_path, strict=True)

    def test_missing_videos(self, tmp_path, clip, epic):
        root = epic({}, {"video_id": "P01_12"}, {"video_id": "P01_12"})
        with pytest.raises(
            FileNotFoundError, match=r"P01/videos/P01_11\.MP4 .*epic-kitchens\.github"
        ):
            EpicKitchens(root)
        clip(tmp_path / "P01/P01_11.MP4", 60)
        dataset = EpicKitchens(root)
        assert len(dataset) == 1
        assert dataset.problems.counts == {"missing": 1}
        with pytest.raises(FileNotFoundError, match=r"P01_12\.MP4"):
            EpicKitchens(root, strict=True)

    def test_no_usable_row(self, tmp_path, clip, epic):
        clip(tmp_path / "P01/P01_11.MP4", 60)
        with pytest.raises(ValueError, match=r"(?s)no row of .*verb_class"):
            EpicKitchens(epic({"verb_class": "x"}))

    def test_a_file_that_is_no_video(self, tmp_path, epic):
        (tmp_path / "P01").mkdir()
        (tmp_path / "P01/P01_11.MP4").write_text("no video")
        dataset = EpicKitchens(epic({}, {}))
        assert [list(action) for action in dataset] == [[], []]
        assert dataset.problems.counts == {"video": 1}
        with pytest.raises(ValueError, match=r"P01_11\.MP4"):
            list(EpicKitchens(tmp_path, strict=True)[0])

    def test_a_video_that_breaks_off_within_a_row(self, tmp_path, clip, epic, truncate, shown):
        truncate(clip(tmp_path / "P01/P01_11.MP4", 60, every=10), 0.7)
        dataset = EpicKitchens(epic({}), views=SMALL)
        views = list(dataset[0])
        assert len(views) == 6
        assert shown(views[0].frames) == [0, 1, 2, 3]
        assert 3 < shown(views[-1].frames)[-1] < 59
        assert dataset.problems.counts["row"] == 1
        assert dataset.problems.counts["video"] >= 1


class TestKinetics:
    HEAD = "label,youtube_id,time_start,time_end,split,is_cc\n"

    def root(self, tmp_path, clip, rows=None, name="val.csv"):
        default = "zumba,a-1,7,17,val,0\narchery,_b_2,120,130,val,0\n"
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(self.HEAD + (default if rows is None else rows))
        clip(tmp_path / "val/zumba/a-1_000007_000017.mp4", 40, rate=25)
        clip(tmp_path / "val/_b_2_000120_000130.mp4", 10, rate=25)
        return tmp_path

    def test_clips_and_labels(self, tmp_path, clip, shown):
        views = Views(frames=4, stride=2, rate=25, size=8, temporal=2, spatial=1)
        dataset = Kinetics(self.root(tmp_path, clip), views=views, strict=True)
        assert (dataset.labels, dataset.classes) == (("archery", "zumba"), 2)
        assert [action.target for action in dataset] == [Action(1, "zumba"), Action(0, "archery")]
        assert [action.id for action in dataset] == ["a-1_000007_000017", "_b_2_000120_000130"]
        first, second = dataset[0]
        assert shown(first.frames) == [0, 2, 4, 6]
        assert shown(second.frames) == [32, 34, 36, 38]
        assert [view.numbers for view in dataset[1]] == [(0, 2, 4, 6), (2, 4, 6, 8)]

    def test_crops(self, tmp_path, clip):
        dataset = Kinetics(self.root(tmp_path, clip), views=Views(frames=1, size=12))
        assert {view.frames.shape for view in dataset[0]} == {(1, 3, 12, 12)}
        assert len(dataset[0]) == len(list(dataset[0])) == 12

    def test_at_their_own_rate(self, tmp_path, clip, shown):
        root = self.root(tmp_path, clip)
        clip(root / "val/zumba/a-1_000007_000017.mp4", 40, rate=50)
        own = Views(frames=4, stride=1, rate=None, size=8)
        assert shown(next(iter(Kinetics(root, views=own)[0])).frames) == [0, 1, 2, 3]

    @pytest.mark.parametrize(
        "name",
        ["validate.csv", "annotations/val.csv", "kinetics400_val.csv", "kinetics-400_val.csv"],
    )
    def test_names_of_the_table(self, tmp_path, clip, name):
        assert len(Kinetics(self.root(tmp_path, clip, name=name))) == 2

    def test_rows_of_other_splits_count_for_labels_alone(self, tmp_path, clip):
        rows = "zumba,a-1,7,17,validate,0\narchery,x,0,10,train,0\n"
        dataset = Kinetics(self.root(tmp_path, clip, rows), strict=True)
        assert [action.target.label for action in dataset] == [1]
        with pytest.raises(ValueError, match="rows of the split 'test'"):
            Kinetics(tmp_path, "test", annotations=tmp_path / "val.csv")

    def test_given_labels(self, tmp_path, clip):
        root = self.root(tmp_path, clip)
        dataset = Kinetics(root, labels=["abseiling", "zumba"])
        assert [action.target.label for action in dataset] == [1]
        assert "'archery' is none of the labels" in str(dataset.problems)

    def test_missing_parts(self, tmp_path, clip):
        with pytest.raises(FileNotFoundError, match=r"val\.csv.*annotations of Kinetics-400"):
            Kinetics(tmp_path)
        rows = "zumba,a-1,7,17,val,0\nzumba,gone,0,10,val,0\n"
        dataset = Kinetics(self.root(tmp_path, clip, rows))
        assert len(dataset) == 1
        (problem,) = dataset.problems
        assert (problem.kind, problem.path.name) == ("missing", "gone_000000_000010.mp4")
        with pytest.raises(FileNotFoundError, match="gone_000000_000010"):
            Kinetics(tmp_path, strict=True)
        (tmp_path / "val").rename(tmp_path / "away")
        (tmp_path / "val").mkdir()
        with pytest.raises(FileNotFoundError, match="expected clips of"):
            Kinetics(tmp_path)

    @pytest.mark.parametrize(
        "row", ["zumba,a,soon,17,val,0", "zumba,,7,17,val,0", "zumba,a,inf,1,val,0"]
    )
    def test_rows_that_cannot_be_read(self, tmp_path, clip, row):
        dataset = Kinetics(self.root(tmp_path, clip, f"zumba,a-1,7,17,val,0\n{row}\n"))
        assert len(dataset) == 1
        (problem,) = dataset.problems
        assert (problem.kind, problem.reason[:7]) == ("row", "line 3:")

    def test_a_damaged_clip_is_seen_as_far_as_it_goes(self, tmp_path, clip, truncate, shown):
        root = self.root(tmp_path, clip)
        truncate(clip(root / "val/zumba/a-1_000007_000017.mp4", 100, rate=25, every=10), 0.7)
        dataset = Kinetics(root, views=Views(frames=2, stride=1, rate=25, size=8))
        views = list(dataset[0])
        assert len(views) == 12
        assert shown(views[0].frames) == [0, 1]
        assert 1 < shown(views[-1].frames)[-1] < 99
        assert dataset.problems.counts.keys() == {"video"}
