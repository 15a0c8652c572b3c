"""Tasks on the same tokens give together what each gives alone."""

import pytest

from eventful.evaluation.tasks.joint import Joint
from eventful.evaluation.tasks.propagation import DavisPropagation
from eventful.evaluation.tasks.saliency import DavisSaliency
from tests.evaluation import annotated_data as data

KINDS = (DavisSaliency, DavisPropagation)


@pytest.fixture(scope="module")
def models():
    return data.models()


@pytest.fixture
def tasks(folder, models):
    """Fresh ones on every call, with the same weights."""
    dataset = data.Davis(folder / "data")
    return lambda: [kind(models, dataset, folder / "dense", data.SIZE) for kind in KINDS]


@pytest.fixture
def folder(tmp_path):
    data.write_davis(tmp_path / "data", {"boat": 7, "camel": 5})
    return tmp_path


def test_judges_do_not_see_each_other(folder, tasks):
    both = data.rows(Joint("davis", tasks()), folder / "both", "top:3")
    alone = [data.rows(task, folder / task.name, "top:3") for task in tasks()]
    for part in ("dense", "rows"):
        entries = [one[part] if part == "dense" else one[part][0] for one in (both, *alone)]
        joint, *each = entries
        assert joint["quality"] == {**each[0]["quality"], **each[1]["quality"]}
        for key in ("operations", "operations_ratio", "relative_error", "relative_error_objects"):
            assert joint.get(key) == each[0].get(key) == each[1].get(key)
    assert [video["scored"] for video in both["dense"]["videos"]] == [5, 3]


def test_tasks_that_do_not_fit(tasks):
    one, other = tasks()
    with pytest.raises(ValueError, match="measures of their own"):
        Joint("twice", [one, one])
    other.size = 84
    with pytest.raises(ValueError, match="the same size and number of frames"):
        Joint("sizes", [one, other])
