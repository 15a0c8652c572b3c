"""The engine on Ray: the same rows, on one node and on several of which one dies."""

import json
import os
import threading
import time
from types import SimpleNamespace

import pytest

from eventful import archive
from eventful.archive.engines.engine import Call, Lost
from tests.archive import tiny
from tests.archive.conftest import OPTIONS, rows
from tests.archive.test_archive import copied_costs

ray = pytest.importorskip("ray")
cluster_utils = pytest.importorskip("ray.cluster_utils")
on_ray = pytest.importorskip("eventful.archive.engines.on_ray")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # Ray's own
]


@pytest.fixture
def cluster(environment, monkeypatch):
    """Three raylets on this machine; the first has the driver and no room for a worker."""
    monkeypatch.setenv("PYTHONPATH", environment["PYTHONPATH"])
    monkeypatch.setenv("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    made = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    made.nodes = [made.add_node(num_cpus=1), made.add_node(num_cpus=1)]
    made.wait_for_nodes()
    ray.init(address=made.address, log_to_driver=False)
    yield made
    ray.shutdown()
    made.shutdown()


def test_ray_gives_the_same_rows_though_a_node_dies(archived, videos, tmp_path, cluster):
    out = copied_costs(archived[0], tmp_path / "out")
    killed = []

    def kill():
        while not list(out.glob("frames/*/.*.part")):
            time.sleep(0.01)
        cluster.remove_node(cluster.nodes[0], allow_graceful=False)
        killed.append(True)  # and nobody puts another in its place

    killer = threading.Thread(target=kill)
    killer.start()
    report = archive.run([videos], out, tiny.slow_network, engine="ray", workers=2, **OPTIONS)
    killer.join()
    assert killed
    assert report.problems == []
    assert rows(out) == rows(archived[0])
    assert json.loads((out / "manifest.json").read_text())["complete"]
    assert ray.is_initialized()  # the cluster was the caller's


def test_ray_data_reads_the_rows_as_they_are(archived, cluster):
    data = pytest.importorskip("ray.data")
    out, _ = archived
    files = sorted(map(str, (out / "frames").glob("*/*.parquet")))
    found = data.read_parquet(files, override_num_blocks=2).take_all()
    found.sort(key=lambda row: (row["video"], row["frame"]))
    expected = rows(out)
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.keys() == theirs.keys()
        for name in ("frame", "time", "kind", "reason", "tokens", "scene"):
            assert ours[name] == theirs[name]
        assert list(ours["embedding"]) == theirs["embedding"]
        assert [list(patch) for patch in ours["patches"]] == theirs["patches"]


def test_a_workers_error_comes_to_the_driver(archived, videos, tmp_path, cluster):
    out = copied_costs(archived[0], tmp_path / "out")
    manifest = json.loads((out / "manifest.json").read_text())
    for shape in manifest["shapes"].values():
        shape["weights"] = "0123"
    (out / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="the weights of tiny are others than"):
        archive.run([videos], out, tiny.network, engine="ray", workers=1, **OPTIONS)


class Fragile:
    """A worker that some calls kill."""

    def __init__(self, settings):
        self.settings = settings

    def ready(self):
        """Nothing."""

    def ten_times(self, number):
        """Or the end of the process, at 1."""
        if number == 1:
            os._exit(1)
        return 10 * number


class Unbuilt(Fragile):
    """One that does not start."""

    def __init__(self, settings):
        raise RuntimeError("cannot be built")


def test_a_call_that_kills_its_workers_is_given_up_and_the_rest_goes_on(cluster, monkeypatch):
    monkeypatch.setattr(on_ray, "Worker", Fragile)
    with on_ray.OnRay(SimpleNamespace(threads=1), 2) as engine:
        found = dict(engine.run([Call("ten_times", number) for number in range(5)]))
    assert isinstance(found.pop(Call("ten_times", 1)), Lost)
    assert found == {Call("ten_times", number): 10 * number for number in (0, 2, 3, 4)}


def test_workers_that_do_not_start_end_the_run(cluster, monkeypatch):
    monkeypatch.setattr(on_ray, "Worker", Unbuilt)
    died = pytest.raises(ray.exceptions.RayActorError, match="cannot be built")
    with on_ray.OnRay(SimpleNamespace(threads=1), 2) as engine, died:
        list(engine.run([Call("ten_times", 0)]))
