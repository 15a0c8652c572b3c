"""Scene cuts by hand."""

import math

import pytest
import torch

from eventful.stream.cuts import SceneCuts, change, picture_change


def test_change_is_that_of_the_quarters_means():
    """Every quarter's mean token has norm 5, so that the reference's size is 10."""
    reference = torch.tensor([3.0, 4.0]).expand(1, 8, 2)
    c = reference.clone()
    c[0, 0] = 0  # half of the first quarter: its mean moves by (1.5, 2), norm 2.5
    assert change(reference, c).tolist() == [0.25]
    c[0, 4:6] = torch.tensor([-3.0, -4.0])  # the whole third quarter: by (6, 8), norm 10
    assert change(reference, c).tolist() == pytest.approx([math.hypot(2.5, 10) / 10])


def test_movement_within_a_quarter_does_not_count_and_between_quarters_does():
    reference = torch.tensor([1.0, 9.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]).view(1, 8, 1)
    order = [1, 0, 2, 3, 4, 5, 6, 7]
    assert change(reference, reference[:, order]).tolist() == [0.0]
    order = [0, 2, 1, 3, 4, 5, 6, 7]  # two quarters' means move by 4, of 5, 1, 1, 1
    assert change(reference, reference[:, order]).tolist() == pytest.approx([math.sqrt(32 / 28)])


def test_rows_are_measured_apart():
    reference, c = torch.ones(3, 4, 2), torch.ones(3, 4, 2)
    c[1] = 0
    c[2] = 3
    assert change(reference, c).tolist() == [0.0, 1.0, 2.0]


@pytest.mark.parametrize("tokens", [1, 2, 3, 5, 7, 11])
def test_tokens_that_do_not_divide_by_four(tokens):
    reference = torch.ones(1, tokens, 2)
    assert change(reference, 3 * reference).tolist() == pytest.approx([2.0])


def test_from_nothing_to_something_is_a_cut_and_from_nothing_to_nothing_is_none():
    empty = torch.zeros(2, 4, 2)
    c = torch.stack([torch.zeros(4, 2), torch.full((4, 2), 1e-3)])
    still, appeared = change(empty, c).tolist()
    assert not SceneCuts().is_cut(still, [])
    assert SceneCuts().is_cut(appeared, [0.1])


def test_half_types_are_measured_to_their_accuracy():
    reference = torch.ones(1, 8, 2, dtype=torch.bfloat16)
    assert change(reference, 0.5 * reference).tolist() == pytest.approx([0.5], rel=1e-2)


@pytest.mark.parametrize(
    ("value", "history", "cut"),
    [
        (0.5, [], True),
        (0.49, [], False),
        (0.49, [0.01], False),
        (0.5, [0.25], True),
        (0.5, [0.26], False),
        (0.9, [0.1, 0.45, 5.0], True),
        (0.9, [0.1, 0.46, 5.0], False),
        (0.9, [0.1, 0.8], True),  # the median of two is their mean
        (0.9, [0.11, 0.8], False),
    ],
)
def test_a_cut_reaches_the_level_and_jumps_over_the_median(value, history, cut):
    assert SceneCuts(level=0.5, jump=2.0).is_cut(value, history) is cut


def test_a_history_forgets_all_but_the_last():
    history = SceneCuts(memory=2).new_history()
    history.extend([0.9, 0.1, 0.2])
    assert list(history) == [0.1, 0.2]


@pytest.mark.parametrize(
    "options", [{"level": 0.0}, {"level": math.nan}, {"jump": -1.0}, {"memory": 0}], ids=str
)
def test_a_cut_needs_positive_settings(options):
    with pytest.raises(ValueError, match="must be positive"):
        SceneCuts(**options)


def test_pictures_of_the_demo_clips_show_their_cuts_and_no_others():
    pytest.importorskip("av")  # the oldest PyTorch is tested without it
    from eventful.models import demo_clip, still_clip  # noqa: PLC0415 - optional libraries
    from eventful.video import read  # noqa: PLC0415

    found = []
    for path in (demo_clip(), still_clip()):
        cuts, before = SceneCuts(), None
        history = cuts.new_history()
        for number, frame in enumerate(read(path, 112, keep_aspect=True)):
            now = torch.nn.functional.interpolate(frame, (16, 16), mode="area").flatten(2).mT
            if before is not None:
                moved = picture_change(before, now).item()
                found += [(path.name, number)] if cuts.is_cut(moved, history) else []
                history.append(moved)
            before = now
    assert found == [("bikes.mp4", number) for number in (30, 76, 137, 187, 242)]


@pytest.mark.parametrize("level", [0.0, 0.3, 1.0])
def test_pictures_that_are_all_but_flat_show_no_cut(level):
    noise = 0.01 * torch.randn(2, 1, 60, 3)
    assert picture_change(level + noise[0], level + noise[1]).item() < 0.1
