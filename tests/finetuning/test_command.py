"""`eventful finetune` on a small Kinetics, from video files to accuracy."""

import io
import json

import numpy as np
import pytest
import torch
import typer
from rich.console import Console
from safetensors.torch import save_file
from typer.testing import CliRunner

from eventful.cli.commands import finetune as command
from eventful.datasets import Kinetics, Views
from eventful.models.vivit import ViViT
from eventful.policies import TopR
from eventful.video import Writer

CLASSES = ("archery", "bowling", "zumba")
VIEWS = Views(frames=4, stride=1, rate=25, size=16, temporal=2, spatial=1)


def vivit() -> ViViT:
    torch.manual_seed(0)
    options = {"frames": 4, "dim": 24, "heads": 3, "depth": 2, "temporal_depth": 1, "patch": 4}
    return ViViT(classes=len(CLASSES), img_size=16, **options).eval()


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Six clips whose brightness goes with their class, one of them damaged."""
    root = tmp_path_factory.mktemp("kinetics")
    (root / "val").mkdir()
    rows = ["label,youtube_id,time_start,time_end,split"]
    for i in range(6):
        rows.append(f"{CLASSES[i % 3]},clip{i},0,1,val")
        path = root / "val" / f"clip{i}_000000_000001.mp4"
        with Writer(path, rate=25) as writer:
            for t in range(8):
                writer.write(np.full((16, 24, 3), 80 * (i % 3) + 3 * t, np.uint8))
    path.write_bytes(path.read_bytes()[:40])
    (root / "val.csv").write_text("\n".join(rows) + "\n")
    return root


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "vivit.safetensors"
    save_file(vivit().state_dict(), path)
    return path


@pytest.fixture(autouse=True)
def small(monkeypatch):
    def kinetics(root, split, strict):
        return Kinetics(root, split, views=VIEWS, strict=strict)

    monkeypatch.setitem(command.MODELS, "kinetics", vivit)
    monkeypatch.setitem(command.DATASETS, "kinetics", kinetics)


@pytest.fixture
def console():
    return Console(file=io.StringIO())


def cache(root, weights, out, console, **options):
    chosen = {"dataset": "kinetics", "root": root, "split": "val", "policy": TopR(4)} | options
    return command.cache(command.CacheSettings(weights=weights, out=out, **chosen), console)


def shown(table) -> str:
    console = Console(file=io.StringIO(), width=120)
    console.print(table)
    return console.file.getvalue()


def test_from_videos_to_accuracy(root, weights, tmp_path, console):
    cached = cache(root, weights, tmp_path / "cache", console)
    assert (cached["videos"], cached["computed"], cached["unreadable"]) == (5, 5, 1)
    assert cached["setting"]["variant"] == "incremental"
    assert cached["problems"] == {"video": 1}
    assert cached["operations"]["eventful"] < cached["operations"]["dense"]
    about = json.loads((tmp_path / "cache" / "manifest.json").read_text())["about"]
    assert (about["dataset"], about["split"]) == ("kinetics", "val")

    settings = command.TrainSettings(
        "kinetics",
        tmp_path / "cache",
        weights,
        tmp_path / "run",
        validation=tmp_path / "cache",
        epochs=3,
        learning_rate=1e-3,
        loss="logits",
    )
    trained = command.train(settings, console)
    assert trained["settings"]["batch_size"] == 16  # the paper's
    assert [epoch["number"] for epoch in trained["epochs"]] == [1, 2, 3]
    assert trained["epochs"][2]["checked_loss"] < trained["epochs"][0]["checked_loss"]

    at = command.ClassifySettings("kinetics", tmp_path / "cache", weights)
    naive = command.classify(at)
    tuned = command.classify(
        command.ClassifySettings(
            "kinetics", tmp_path / "cache", weights, tmp_path / "run" / "epoch-003.safetensors"
        )
    )
    assert trained["weights"] == str(tmp_path / "run" / "epoch-003.safetensors")
    assert tuned["loss"] < naive["loss"]
    assert tuned["top1"] == trained["epochs"][2]["top1"]

    json.dumps([cached, trained, tuned])
    assert "unreadable" in shown(command.cache_table(cached))
    assert "checked loss" in shown(command.train_table(trained))
    assert "top-5" in shown(command.classify_table(tuned))


class TestCommands:
    @staticmethod
    def invoke(*arguments):
        app = typer.Typer(rich_markup_mode=None)
        app.add_typer(command.group, name="finetune")
        app.command()(lambda: None)
        return CliRunner().invoke(app, [str(argument) for argument in ("finetune", *arguments)])

    def test_from_videos_to_accuracy(self, root, weights, tmp_path):
        held, run = tmp_path / "cache", tmp_path / "run"
        common = ("kinetics", "--weights", weights, "--json")
        where = ("--root", root, "--split", "val", "--policy", "top:4", "--out", held)
        cached = self.invoke("cache", *common, *where)
        assert cached.exit_code == 0, cached.output
        assert json.loads(cached.stdout)["videos"] == 5
        how = ("--epochs", 2, "--learning-rate", 1e-3, "--batch-size", 2, "--loss", "logits")
        trained = self.invoke("train", *common, "--cache", held, "--out", run, *how)
        assert trained.exit_code == 0, trained.output
        result = json.loads(trained.stdout)
        assert result["settings"]["weight_decay"] == 0.05
        at = ("--cache", held, "--checkpoint", result["weights"])
        classified = self.invoke("classify", *common, *at)
        assert classified.exit_code == 0, classified.output
        assert json.loads(classified.stdout)["videos"] == 5

    def test_a_mistake_is_one_line(self, root, weights, tmp_path):
        missing = ("--cache", tmp_path, "--weights", weights)
        result = self.invoke("classify", "kinetics", *missing)
        assert result.exit_code == 2
        assert result.stderr.startswith("error: ")
        assert "is not a folder that cache_spatial_outputs has made" in result.stderr


def test_goes_on_where_it_was(root, weights, tmp_path, console):
    assert cache(root, weights, tmp_path, console, limit=2)["computed"] == 2
    again = cache(root, weights, tmp_path, console)
    assert (again["videos"], again["computed"]) == (5, 3)


def test_a_table_with_fewer_classes_than_the_model_is_refused(
    root, weights, tmp_path, console, monkeypatch
):
    def part(root, split, strict):
        return Kinetics(root, split, views=VIEWS, labels=CLASSES[:2], strict=strict)

    monkeypatch.setitem(command.DATASETS, "kinetics", part)
    with pytest.raises(ValueError, match="has 2 classes and the model 3; use the complete table"):
        cache(root, weights, tmp_path, console)


def test_variants_are_those_of_evaluate(root, weights, tmp_path, console):
    full = cache(root, weights, tmp_path / "full", console, variant="full")
    options = json.loads((tmp_path / "full" / "manifest.json").read_text())["options"]["blocks.0"]
    assert full["setting"]["options"] == {"attention": "cached", "half_precision": True}
    assert "attention='cached'" in options
    assert "half_precision=True" in options
    assert "prefix='gated'" in options
    dense = cache(root, weights, tmp_path / "dense", console, variant="dense")
    assert dense["setting"]["policy"] is None
    with pytest.raises(ValueError, match="expected a variant out of"):
        cache(root, weights, tmp_path, console, variant="cached")


def test_what_is_not_known_is_refused(root, weights, tmp_path, console):
    with pytest.raises(ValueError, match="DATASET is one of epic, kinetics, got 'vid'"):
        cache(root, weights, tmp_path, console, dataset="vid")
    with pytest.raises(ValueError, match="--device nowhere cannot be used here"):
        cache(root, weights, tmp_path, console, device="nowhere")
    settings = command.TrainSettings("kinetics", tmp_path, weights, tmp_path, loss="hinge")
    with pytest.raises(ValueError, match="--loss is one of logits, probabilities, got 'hinge'"):
        command.train(settings, console)
