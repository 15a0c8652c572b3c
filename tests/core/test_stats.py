"""A stream's statistics by hand."""

from eventful.counting import Operations
from eventful.stream.stats import Flush, Stats


def test_totals_and_ratio_over_frames():
    stats = Stats()
    stats.count(Operations(qkv=100, mlp=20), Operations(qkv=120))
    stats.count(Operations(qkv=3, gates=7), Operations(qkv=120))
    assert stats.frames == 2
    assert stats.operations == Operations(qkv=3, gates=7)
    assert stats.dense_operations == Operations(qkv=120)
    assert (stats.total_operations, stats.total_dense_operations) == (130, 240)
    assert stats.ratio == 240 / 130


def test_the_ratio_of_no_frames_is_nought():
    assert Stats().ratio == 0


def test_flushes_carry_their_frame_and_are_counted_by_reason():
    stats = Stats()
    for row in (0, 1):
        stats.flush(row, "first frame")
    stats.count(Operations(), Operations())
    stats.flush(1, "scene cut")
    assert list(stats.flushes) == [
        Flush(0, 0, "first frame"),
        Flush(0, 1, "first frame"),
        Flush(1, 1, "scene cut"),
    ]
    assert stats.flush_reasons == {"first frame": 2, "scene cut": 1}


def test_only_the_latest_flushes_are_kept_and_all_are_counted():
    stats = Stats()
    for _ in range(1005):
        stats.flush(0, "requested")
        stats.count(Operations(), Operations())
    assert len(stats.flushes) == 1000
    assert stats.flushes[0].frame == 5
    assert stats.flush_reasons["requested"] == 1005


def test_stats_of_two_streams_are_apart():
    one, other = Stats(), Stats()
    one.flush(0, "requested")
    one.updated["gate"] = (1,)
    assert (other.updated, list(other.flushes), other.flush_reasons) == ({}, [], {})


def test_text_says_what_was_saved():
    stats = Stats(updated={"a": (2, 0), "b": (3, 1)}, state_bytes=2_500_000, seconds=0.0125)
    stats.count(Operations(qkv=10**9), Operations(qkv=4 * 10**9))
    text = str(stats)
    for figure in ("1.00 G", "4.00 G", "4.00x", "6 tokens over 2 gates", "2.5 MB", "12.5 ms"):
        assert figure in text
