"""The detector of vehicles: shapes, decoding by hand, training, packaged weights."""

import pytest
import torch
from safetensors.torch import save_file

from eventful.models.vehicles import WEIGHTS, VehicleDetector, vehicle_detector
from eventful.models.weights.files import read_metadata

GRID = (5, 7)
TOKENS = GRID[0] * GRID[1]


def small(dim=12, channels=32):
    torch.manual_seed(3)
    return VehicleDetector(dim, channels, convs=1)


class TestDetector:
    def test_one_list_of_boxes_an_image_inside_it(self):
        detector = small().eval()
        detector.fcos.score_thresh = 0.0
        with torch.inference_mode():
            found = detector(torch.randn(3, TOKENS, 12), GRID)
        assert len(found) == 3
        for one in found:
            assert one.boxes.shape == (len(one), 4)
            assert len(one) > 0
            assert one.labels.tolist() == [0] * len(one)
            assert one.boxes.min() >= 0
            assert (one.boxes <= torch.tensor([98.0, 70.0, 98.0, 70.0])).all()

    def test_cells_are_those_of_both_maps(self):
        detector = small()
        outputs, (fine, coarse) = detector._predict(torch.zeros(1, TOKENS, 12), GRID)
        assert fine.shape == (4 * TOKENS, 4)
        assert outputs["bbox_regression"].shape == (1, 5 * TOKENS, 4)
        assert fine[14 + 2].tolist() == [14, 7, 21, 14]  # row 1, column 2
        assert coarse[7 + 2].tolist() == [28, 14, 42, 28]

    def test_decoding_by_hand(self):
        """One cell is certain; its distances are in units of its side, from its centre."""
        detector = small().eval()

        class Head(torch.nn.Module):
            def forward(self, maps):
                count = 5 * TOKENS
                logits = torch.full((1, count, 1), -20.0)
                distances = torch.zeros(1, count, 4)
                at = 4 * TOKENS + 2 * 7 + 3  # the coarse map's row 2, column 3: centre (49, 35)
                logits[0, at] = 20.0
                distances[0, at] = torch.tensor([1.0, 0.5, 2.0, 1.5])
                centre = torch.zeros(1, count, 1)  # sigmoid: a half
                return {
                    "cls_logits": logits,
                    "bbox_regression": distances,
                    "bbox_ctrness": centre,
                }

        detector.fcos.head = Head()
        (found,) = detector(torch.zeros(1, TOKENS, 12), GRID)
        assert found.boxes.tolist() == [[49 - 14, 35 - 7, 49 + 28, 35 + 21]]
        assert found.scores.item() == pytest.approx(0.5**0.5)

    def test_tokens_that_do_not_fill_the_grid(self):
        with pytest.raises(ValueError, match=r"5 x 7 = 35 patch tokens, got 36.*class token"):
            small()(torch.zeros(1, 36, 12), GRID)

    def test_a_frame_without_vehicles_has_a_loss(self):
        loss = small().loss(torch.randn(2, TOKENS, 12), GRID, [torch.zeros(0, 4)] * 2)
        assert loss.isfinite()
        assert loss > 0


def test_training_finds_what_is_there():
    """Tokens of two kinds; after some steps the box around those of one kind is found."""
    torch.manual_seed(5)
    tokens = 0.1 * torch.randn(2, *GRID, 12)
    tokens[0, 1:3, 2:5, 0] += 3
    tokens[1, 2:5, 0:2, 0] += 3
    boxes = [torch.tensor([[28.0, 14.0, 70.0, 42.0]]), torch.tensor([[0.0, 28.0, 28.0, 70.0]])]
    detector = small()
    optimizer = torch.optim.AdamW(detector.parameters(), 3e-3)
    losses = []
    for _ in range(60):
        loss = detector.loss(tokens.flatten(1, 2), GRID, boxes)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    with torch.inference_mode():
        found = detector.eval()(tokens.flatten(1, 2), GRID)
    for one, box in zip(found, boxes, strict=True):
        assert (one.boxes[0] - box[0]).abs().max() < 7


class TestWeights:
    def test_they_are_small_and_say_where_they_come_from(self):
        assert WEIGHTS.stat().st_size < 10e6
        assert read_metadata(WEIGHTS)["made_by"] == "benchmarks/train_vehicles.py"

    def test_they_load(self):
        detector = vehicle_detector()
        assert not detector.training
        with torch.inference_mode():
            (found,) = detector(torch.zeros(1, 12, 384), (3, 4))
        assert found.boxes.shape[1] == 4

    def test_a_copy_elsewhere(self, tmp_path):
        detector = VehicleDetector()
        save_file(detector.state_dict(), tmp_path / "mine.safetensors")
        loaded = vehicle_detector(tmp_path / "mine.safetensors").state_dict()
        assert all(torch.equal(loaded[name], x) for name, x in detector.state_dict().items())

    def test_other_files(self, tmp_path):
        with pytest.raises(FileNotFoundError):
            vehicle_detector(tmp_path / "none.safetensors")
        save_file({"weight": torch.ones(3)}, tmp_path / "other.safetensors")
        torch.save({}, tmp_path / "other.pth")
        for name in ("other.safetensors", "other.pth"):
            with pytest.raises(ValueError, match="holds no weights of this PatchDetector"):
                vehicle_detector(tmp_path / name)
