"""The detector of people: its weights, and maps of three scales."""

import pytest
import torch
from safetensors.torch import save_file

from eventful.models.detector import PatchDetector
from eventful.models.people import SCALES, WEIGHTS, people_detector
from eventful.models.vehicles import vehicle_detector
from eventful.models.weights.files import read_metadata


def test_cells_of_three_maps():
    """Odd grids too: the coarsest map leaves the last row and column to the finer ones."""
    detector = PatchDetector(dim=12, channels=32, convs=1, scales=SCALES)
    _, (fine, middle, coarse) = detector._predict(torch.zeros(1, 5 * 7, 12), (5, 7))
    assert [len(one) for one in (fine, middle, coarse)] == [10 * 14, 5 * 7, 2 * 3]
    assert coarse[3 + 2].tolist() == [56, 28, 84, 56]  # row 1, column 2
    assert middle[7 + 2].tolist() == [28, 14, 42, 28]


@pytest.mark.parametrize(("side", "reached"), [(20.0, False), (150.0, True)])
def test_large_objects_belong_to_coarse_maps(side, reached):
    """A gradient of the distances reaches the coarsest map only where an object is large."""
    torch.manual_seed(3)
    detector = PatchDetector(dim=12, channels=32, convs=1, scales=SCALES)
    maps = []
    detector.fcos.backbone.register_forward_hook(lambda module, given, out: maps.extend(out))
    outputs, cells = detector._predict(torch.randn(1, 12 * 12, 12), (12, 12))
    box = torch.tensor([[10.0, 10.0, 10 + side, 10 + side]])
    targets = [{"boxes": box, "labels": torch.zeros(1).long()}]
    lengths = [len(level) for level in cells]
    losses = detector.fcos.compute_loss(targets, outputs, [torch.cat(cells)], lengths)
    (gradient,) = torch.autograd.grad(losses["bbox_regression"], maps[-1])
    assert bool(gradient.abs().sum() > 0) == reached


class TestWeights:
    def test_they_are_small_and_say_where_they_come_from(self):
        assert WEIGHTS.stat().st_size < 4e6
        about = read_metadata(WEIGHTS)
        assert about["made_by"] == "benchmarks/train_people.py"
        assert "vtest.avi" in about["trained_on"]

    def test_they_load(self):
        detector = people_detector()
        assert not detector.training
        with torch.inference_mode():
            (found,) = detector(torch.zeros(1, 12, 384), (3, 4))
        assert found.boxes.shape[1] == 4

    def test_those_of_vehicles_do_not_fit(self, tmp_path):
        save_file(vehicle_detector().state_dict(), tmp_path / "vehicles.safetensors")
        message = r"vehicles.safetensors holds no weights of this PatchDetector; .*train_people"
        with pytest.raises(ValueError, match=message):
            people_detector(tmp_path / "vehicles.safetensors")
