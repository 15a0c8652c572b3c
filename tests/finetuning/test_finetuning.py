"""Training on cached spatial outputs, and what goes wrong on the way."""

import copy
import importlib.util
import math
import pickle
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from eventful.finetuning import (
    EPIC,
    KINETICS,
    LossError,
    MovingShapes,
    Settings,
    cache_spatial_outputs,
    evaluate,
    finetune,
    load_finetuned,
)
from tests.finetuning.tiny import videos, vivit

SETTINGS = Settings(epochs=4, learning_rate=1e-3, batch_size=4, dropout=0.3)
SCRIPT = Path(__file__).parents[2] / "benchmarks" / "finetuning.py"


def test_accuracy_by_hand(model, cache):
    logits = torch.stack([model.classify(tokens[None])[0] for _, tokens, _ in cache]).detach()
    labels = torch.tensor([label for _, _, label in cache])
    found = evaluate(model, cache, batch_size=3)
    assert found.top1 == (logits.argmax(dim=1) == labels).sum().item() / 10
    assert found.top5 == 1.0  # of three classes
    assert found.loss == pytest.approx(F.cross_entropy(logits, labels).item(), abs=1e-6)
    assert found.videos == 10


def test_the_papers_settings():
    common = {"weight_decay": 0.05, "dropout": 0.5, "loss": "probabilities"}
    assert Settings(5, 1e-5, 8, **common) == EPIC
    assert Settings(10, 2e-6, 16, **common) == KINETICS


class TestFinetune:
    def test_the_loss_falls_and_the_spatial_model_stays(self, model, cache, tmp_path):
        before = copy.deepcopy(model.state_dict())
        history = finetune(model, cache, replace(SETTINGS, epochs=12), tmp_path / "run")
        assert [epoch.number for epoch in history] == list(range(1, 13))
        assert history[-1].checked_loss < 0.8 * history[0].checked_loss
        assert evaluate(model, cache).loss == pytest.approx(history[-1].checked_loss, rel=1e-5)
        for name, weight in model.state_dict().items():
            assert torch.equal(weight, before[name]) == name.startswith("spatial.")
        assert not model.training
        assert model.head_drop.p == 0.5

    def test_a_first_step_by_hand(self, model, cache, tmp_path):
        """One batch, no dropout: AdamW's first step is the decay and the gradient's sign."""
        settings = Settings(1, 1e-3, batch_size=10, weight_decay=0.1, dropout=0.0)
        tokens, labels = cache.batch(list(range(10)))
        twin = copy.deepcopy(model)
        F.cross_entropy(twin.classify(tokens), labels).backward()
        bias, gradient = twin.head.bias.detach(), twin.head.bias.grad
        finetune(model, cache, settings, tmp_path / "run")
        expected = bias * (1 - 1e-3 * 0.1) - 1e-3 * gradient.sign()
        assert torch.allclose(model.head.bias, expected, atol=1e-6)

    def test_the_papers_loss_has_two_softmaxes(self, model, cache, tmp_path):
        settings = Settings(1, 1e-9, batch_size=10, dropout=0.0, loss="probabilities", check=10)
        tokens, labels = cache.batch(list(range(10)))
        with torch.no_grad():
            expected = F.cross_entropy(model.classify(tokens).softmax(dim=1), labels).item()
        with pytest.raises(LossError, match="does not fall") as error:  # by less than it can show
            finetune(model, cache, settings, tmp_path / "run")
        assert f"it was {expected:.4f}"[:-1] in str(error.value)

    def test_each_epoch_is_kept_and_can_be_loaded(self, model, cache, tmp_path):
        finetune(model, cache, SETTINGS, tmp_path)
        names = sorted(path.name for path in tmp_path.iterdir() if path.is_file())
        epochs = [f"epoch-00{i}.safetensors" for i in range(1, 5)]
        assert names == [*epochs, "start.safetensors", "training.pt"]
        other = load_finetuned(vivit(seed=0), tmp_path / "epoch-004.safetensors")
        assert evaluate(other, cache) == evaluate(model, cache)
        assert torch.load(tmp_path / "training.pt", weights_only=True)["epoch"] == 4

    def test_validation_and_progress(self, model, cache, tmp_path):
        steps = []
        history = finetune(
            model, cache, SETTINGS, tmp_path, validation=cache, progress=steps.append
        )
        found = evaluate(model, cache)
        assert (history[-1].top1, history[-1].top5) == (found.top1, found.top5)
        assert [(step.epoch, step.step) for step in steps[:4]] == [(1, 1), (1, 2), (1, 3), (2, 1)]
        assert {step.steps for step in steps} == {3}
        mean = (4 * steps[0].loss + 4 * steps[1].loss + 2 * steps[2].loss) / 10
        assert history[0].loss == pytest.approx(mean)

    def test_the_callers_random_numbers_are_left_alone(self, model, cache, tmp_path):
        torch.manual_seed(5)
        expected = torch.rand(3)
        torch.manual_seed(5)
        finetune(model, cache, SETTINGS, tmp_path)
        assert torch.equal(torch.rand(3), expected)


class KilledError(Exception):
    """Stands for the end of the process."""


class TestResume:
    @pytest.mark.parametrize("at", [(1, 2), (3, 1), (3, 3)])
    def test_gives_what_an_uninterrupted_run_gives(self, model, cache, tmp_path, at):
        whole = vivit()
        expected = finetune(whole, cache, SETTINGS, tmp_path / "whole")

        def kill(step):
            if (step.epoch, step.step) == at:
                raise KilledError

        with pytest.raises(KilledError):
            finetune(model, cache, SETTINGS, tmp_path / "run", progress=kill)
        again = vivit()
        with torch.no_grad():
            again.head.bias.add_(1.0)  # what counts is what the folder holds
        torch.rand(7)
        assert finetune(again, cache, SETTINGS, tmp_path / "run") == expected
        for name, weight in again.state_dict().items():
            assert torch.equal(weight, whole.state_dict()[name])

    def test_more_epochs_may_be_asked_for(self, model, cache, tmp_path):
        expected = finetune(vivit(), cache, SETTINGS, tmp_path / "whole")
        finetune(model, cache, replace(SETTINGS, epochs=2), tmp_path / "run")
        assert finetune(model, cache, SETTINGS, tmp_path / "run") == expected

    def test_fewer_epochs_give_the_checkpoint_of_their_number(self, model, cache, tmp_path):
        history = finetune(model, cache, SETTINGS, tmp_path)
        assert finetune(model, cache, replace(SETTINGS, epochs=2), tmp_path) == history[:2]
        other = load_finetuned(vivit(), tmp_path / "epoch-002.safetensors")
        assert torch.equal(model.head.weight, other.head.weight)


class TestFinetuneErrors:
    def test_a_rate_that_is_too_low(self, model, cache, tmp_path):
        with pytest.raises(LossError, match=r"the loss does not fall: .*ten times as much"):
            finetune(model, cache, replace(SETTINGS, learning_rate=1e-30), tmp_path)
        assert not (tmp_path / "epoch-004.safetensors").exists()

    def test_the_loss_is_looked_at_once_there_were_enough_steps(self, model, cache, tmp_path):
        """Three steps an epoch: 50 are done in the seventeenth."""
        settings = replace(SETTINGS, learning_rate=1e-30, epochs=20)
        with pytest.raises(LossError, match="after epoch 17, over 10 videos"):
            finetune(model, cache, settings, tmp_path)

    def test_a_rate_that_is_too_high(self, model, cache, tmp_path):
        with pytest.raises(LossError, match="a tenth of the learning rate"):
            finetune(model, cache, replace(SETTINGS, learning_rate=50.0), tmp_path)

    def test_a_loss_that_is_not_finite(self, model, cache, tmp_path):
        with torch.no_grad():
            model.head.weight[0, 0] = math.nan
        with pytest.raises(LossError, match="the loss is nan at step 1 of epoch 1"):
            finetune(model, cache, SETTINGS, tmp_path)

    def test_other_settings_in_one_folder(self, model, cache, tmp_path):
        finetune(model, cache, SETTINGS, tmp_path / "run")
        other = replace(SETTINGS, learning_rate=1e-4)
        with pytest.raises(ValueError, match=r"a run with learning_rate=0\.001, and this one has"):
            finetune(model, cache, other, tmp_path / "run")

    def test_another_cache_in_one_folder(self, model, cache, tmp_path):
        finetune(model, cache, SETTINGS, tmp_path / "run")
        larger = cache_spatial_outputs(model, videos(11), None, tmp_path / "larger")
        with pytest.raises(ValueError, match="holds a run on another cache"):
            finetune(model, larger, SETTINGS, tmp_path / "run")

    def test_a_cache_of_another_model(self, cache, tmp_path):
        with pytest.raises(ValueError, match="outputs of a spatial model with other weights"):
            finetune(vivit(seed=1), cache, SETTINGS, tmp_path)
        with pytest.raises(ValueError, match="outputs of a spatial model with other weights"):
            evaluate(vivit(seed=1), cache)

    def test_labels_that_are_no_classes(self, model, tmp_path):
        cache = cache_spatial_outputs(model, videos(2, labels=[0, 9]), None, tmp_path / "cache")
        with pytest.raises(ValueError, match=r"classes 0 to 2, and the videos have \[0, 9\]"):
            evaluate(model, cache)

    def test_a_state_that_holds_code(self, model, cache, tmp_path):
        finetune(model, cache, SETTINGS, tmp_path)
        (tmp_path / "training.pt").write_bytes(pickle.dumps(Path("x")))
        with pytest.raises(ValueError, match="damaged or holds more than tensors"):
            finetune(model, cache, SETTINGS, tmp_path)
        torch.save({"epoch": 1}, tmp_path / "training.pt")
        with pytest.raises(ValueError, match="is no state of a training run"):
            finetune(model, cache, SETTINGS, tmp_path)

    def test_a_checkpoint_of_another_model(self, model, cache, tmp_path):
        finetune(model, cache, SETTINGS, tmp_path)
        path = tmp_path / "epoch-001.safetensors"
        with pytest.raises(ValueError, match=r"of another model: head\.bias, head\.weight"):
            load_finetuned(vivit(classes=5), path)
        with pytest.raises(FileNotFoundError, match="no checkpoint"):
            load_finetuned(model, tmp_path / "epoch-009.safetensors")

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("epochs", 0),
            ("learning_rate", 0.0),
            ("learning_rate", math.nan),
            ("batch_size", 0),
            ("weight_decay", -0.1),
            ("dropout", 1.0),
            ("loss", "hinge"),
            ("check", 0),
        ],
    )
    def test_settings_out_of_range(self, name, value):
        with pytest.raises(ValueError, match=name):
            replace(SETTINGS, **{name: value})


class TestMovingShapes:
    def test_the_square_moves_as_its_class_says(self):
        shapes = MovingShapes(videos=8, seed=3, lights=0, noise=0.0)
        for _, views, label in shapes:
            down, right = shapes.motions[label]
            still = views[0].amin(dim=0)
            covered = ((views[0] - still) > 0.05).any(dim=1)
            for before, after in pairwise(covered):
                assert torch.equal(before.roll((down, right), (0, 1)), after)

    def test_videos_are_drawn_again_and_sets_differ(self):
        shapes, other = MovingShapes(9, seed=1), MovingShapes(9, seed=2)
        assert torch.equal(shapes[4][1], MovingShapes(9, seed=1)[4][1])
        assert not torch.equal(shapes[4][1], other[4][1])
        assert sorted({label for _, _, label in shapes}) == list(range(8))
        assert len(shapes) == 9
        with pytest.raises(IndexError, match="videos 0 to 8, got 9"):
            shapes[9]


@pytest.mark.slow
def test_finetuning_brings_back_what_naive_conversion_loses():
    """As the benchmark does it, at one r; half of what its committed result shows is asked for."""
    spec = importlib.util.spec_from_file_location("finetuning_benchmark", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    model = script.small_vivit()
    script.train_dense(model, script.TRAIN, script.EPOCHS)
    dense = script.dense_accuracy(model, script.TEST)
    row = script.measure(model, 2, script.SETTINGS, script.TRAIN, script.TEST)
    assert dense > 0.9
    assert row["naive_top1"] < dense - 0.12
    assert row["finetuned_top1"] > row["naive_top1"] + 0.05
