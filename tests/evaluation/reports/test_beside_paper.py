"""The paper's points beside ours."""

from eventful.evaluation.reports.beside_paper import plot
from eventful.evaluation.reports.files import paper_points


def test_the_papers_points(vid):
    task = vid()
    assert paper_points(task) == []
    task.paper = ("vitdet_b_vid", 672)
    points = paper_points(task)
    assert [one["accuracy"] for one in points if one["variant"] == "dense"] == [82.28]
    assert {one["label"] for one in points} == {
        "dense",
        "full",
        "token-wise",
        "stgt",
        "spatial",
        "spatiotemporal",
    }
    assert len(points) == 1 + 3 * 6 + 1 + 6
    (full,) = [one for one in points if one["label"] == "full" and one["r"] == 256]
    assert (full["operations"], full["accuracy"]) == (33.5e9, 80.16)


def test_the_plot_holds_the_papers_points_beside_ours(kinetics, tmp_path):
    task = kinetics()
    scores = {"top1": 70.0, "top5": 90.0}
    ours = {"setting": "full, top:24", "variant": "full", "label": "full", "scores": scores}
    content = {
        "title": "Kinetics-400",
        "per": "video",
        "measures": ["top1", "top5"],
        "weights": {"file": "w"},
        "paper": paper_points(task),
        "settings": [ours | {"operations": 0.618e12, "scored": 9}],
    }
    plot(content, [tmp_path / "plot.svg"])
    text = (tmp_path / "plot.svg").read_text()
    for label in ("full (paper)", "dense (paper)", "full", "Kinetics-400: 9 videos scored"):
        assert f"<!-- {label} -->" in text
