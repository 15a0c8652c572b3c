"""Videos with boxes in the text format of the MOT challenge."""

import numpy as np
import pytest

from eventful.datasets import Mot
from eventful.video import Writer


@pytest.fixture
def root(tmp_path):
    with Writer(tmp_path / "street.mp4", rate=10) as writer:
        for level in (30, 60, 90):
            writer.write(np.full((20, 32, 3), level, np.uint8))
    (tmp_path / "gt.txt").write_text(
        "1,3,5,2,7,11,1,-1,-1,-1\n\n3,3,8.5,2,7,11,1,-1,-1,-1\n3,9,-2,4,5,6,0,-1,-1,-1\n"
    )
    return tmp_path


def test_boxes_of_every_frame(root):
    (video,) = Mot(root, "street.mp4", "gt.txt", strict=True)
    assert video.id == "street"
    frames = list(video)
    assert [(one.number, one.size) for one in frames] == [(n, (20, 32)) for n in (1, 2, 3)]
    assert [one.target.boxes.tolist() for one in frames] == [
        [[5, 2, 12, 13]],
        [],
        [[8.5, 2, 15.5, 13]],
    ]
    assert [one.target.doubtful.tolist() for one in frames] == [[], [], [[-2, 4, 3, 10]]]
    assert frames[1].target.boxes.shape == (0, 4)


def test_each_pass_begins_anew(root):
    (video,) = Mot(root, "street.mp4", "gt.txt")
    assert [len(list(video)) for _ in range(2)] == [3, 3]


@pytest.mark.parametrize("line", ["2,1,3,4", "2,1,three,4,5,6,1", "nothing"])
def test_lines_that_are_no_box(root, line):
    with (root / "gt.txt").open("a") as file:
        file.write(line + "\n")
    data = Mot(root, "street.mp4", "gt.txt")
    assert len(list(data[0])[2].target.boxes) == 1
    (problem,) = data.problems
    assert "line 5 is no box" in str(problem)
    with pytest.raises(ValueError, match="line 5 is no box"):
        list(Mot(root, "street.mp4", "gt.txt", strict=True)[0])


@pytest.mark.parametrize("name", ["street.mp4", "gt.txt"])
def test_a_missing_file(root, name):
    (root / name).unlink()
    with pytest.raises(FileNotFoundError, match=rf"{name}; there is nothing.*motchallenge\.net"):
        Mot(root, "street.mp4", "gt.txt")


def test_a_damaged_video_ends_and_is_reported(tmp_path):
    rng = np.random.default_rng(2)
    with Writer(tmp_path / "street.avi", rate=10) as writer:
        for _ in range(9):
            writer.write(rng.integers(0, 255, (60, 80, 3), np.uint8))
    path = tmp_path / "street.avi"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    (tmp_path / "gt.txt").write_text("1,3,5,2,7,11,1")
    data = Mot(tmp_path, "street.avi", "gt.txt")
    assert 0 < len(list(data[0])) < 9
    (problem,) = data.problems
    assert problem.kind == "video"
