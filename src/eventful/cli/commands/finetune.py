"""`eventful finetune`: cache spatial outputs, train the temporal model on them, classify."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from torch import Tensor

from eventful.cli.devices import device_of
from eventful.cli.options import ConvertedWeights, Device, Json, Strict
from eventful.cli.output import errors, show
from eventful.convert import convert
from eventful.datasets import Clip, EpicKitchens, Kinetics
from eventful.evaluation import VARIANTS, combined
from eventful.finetuning import (
    PRESETS,
    CacheProgress,
    SpatialCache,
    Step,
    cache_spatial_outputs,
    evaluate,
    finetune,
    load_finetuned,
)
from eventful.finetuning.checkpoints import weights_path
from eventful.models.vivit import ViViT, vivit_b_epic, vivit_b_kinetics
from eventful.models.weights import load
from eventful.policies import KeepAll, Policy, parse_tokens

DATASETS: dict[str, Callable[..., EpicKitchens | Kinetics]] = {
    "epic": EpicKitchens,
    "kinetics": Kinetics,
}
MODELS: dict[str, Callable[[], ViViT]] = {"epic": vivit_b_epic, "kinetics": vivit_b_kinetics}
LOSSES = ("logits", "probabilities")

group = typer.Typer(
    no_args_is_help=True,
    help="Train ViViT's temporal model on what an eventful spatial model gives it.",
)

ActionSet = Annotated[str, typer.Argument(help=f"One of {', '.join(MODELS)}.")]
Cache = Annotated[Path, typer.Option(help="Folder that `finetune cache` has filled.")]


@dataclass(frozen=True)
class CacheSettings:
    """The options of `eventful finetune cache`."""

    dataset: str
    root: Path
    split: str
    weights: Path
    policy: Policy
    out: Path
    variant: str = "incremental"
    limit: int | None = None
    strict: bool = False
    device: str = ""


@dataclass(frozen=True)
class TrainSettings:
    """The options of `eventful finetune train`; None leaves the paper's setting."""

    dataset: str
    cache: Path
    weights: Path
    out: Path
    validation: Path | None = None
    epochs: int | None = None
    learning_rate: float | None = None
    batch_size: int | None = None
    dropout: float | None = None
    loss: str | None = None
    seed: int | None = None
    device: str = ""


@dataclass(frozen=True)
class ClassifySettings:
    """The options of `eventful finetune classify`."""

    dataset: str
    cache: Path
    weights: Path
    checkpoint: Path | None = None
    device: str = ""


def cache(settings: CacheSettings, console: Console) -> dict[str, Any]:
    """Run the eventful spatial model over a data set; see `eventful finetune cache --help`.

    Returns:
        Counts, operations and problems, for JSON.

    Raises:
        FileNotFoundError: The weights, or parts of the data set, are not there.
        ValueError: Something does not fit; the message says what.
    """
    [setting] = combined([settings.variant], [settings.policy])
    policy = setting.policy if isinstance(setting.policy, Policy) else KeepAll()
    options = {"prefix": "gated", **setting.options}
    model = _model(settings.dataset, settings.weights, settings.device)
    data = DATASETS[settings.dataset](settings.root, settings.split, strict=settings.strict)
    if data.classes != model.head.out_features:
        raise ValueError(
            f"the table of {settings.root} has {data.classes} classes and the model "
            f"{model.head.out_features}; use the complete table, or labels would be wrong"
        )
    convert(model.spatial, policy, **options)
    total = min(len(data), settings.limit or len(data))
    about = {"dataset": settings.dataset, "split": settings.split, "views": str(data.views)}
    last: CacheProgress | None = None
    with _progress(console) as progress:
        task = progress.add_task("cache", total=total)

        def report(done: CacheProgress) -> None:
            nonlocal last
            last = done
            progress.update(task, completed=done.done, description=done.video)

        videos = islice(_triples(data), settings.limit)
        held = cache_spatial_outputs(
            model, videos, None, settings.out, normalize=True, about=about, progress=report
        )
    used, dense = held.operations()
    return {
        "folder": str(settings.out),
        "setting": setting.as_dict(),
        "videos": len(held),
        "computed": last.computed if last else 0,
        "unreadable": last.unreadable if last else 0,
        "problems": data.problems.counts,
        "operations": {"eventful": used, "dense": dense},
    }


def train(settings: TrainSettings, console: Console) -> dict[str, Any]:
    """Fine-tune the temporal model; see `eventful finetune train --help`.

    Returns:
        The settings, what each epoch gave, and where the weights are, for JSON.

    Raises:
        FileNotFoundError: The weights are not there.
        ValueError: Something does not fit, or the loss does not fall.
    """
    model = _model(settings.dataset, settings.weights, settings.device)
    if settings.loss not in (None, *LOSSES):
        raise ValueError(f"--loss is one of {', '.join(LOSSES)}, got {settings.loss!r}")
    names = ("epochs", "learning_rate", "batch_size", "dropout", "loss", "seed")
    given = {name: getattr(settings, name) for name in names}
    asked = {name: value for name, value in given.items() if value is not None}
    chosen = replace(PRESETS[settings.dataset], **asked)
    data = SpatialCache(settings.cache)
    validation = None if settings.validation is None else SpatialCache(settings.validation)
    with _progress(console) as progress:
        task = progress.add_task("train", total=None)

        def report(step: Step) -> None:
            done = (step.epoch - 1) * step.steps + step.step
            text = f"epoch {step.epoch} of {chosen.epochs}, loss {step.loss:.4f}"
            total = chosen.epochs * step.steps
            progress.update(task, completed=done, total=total, description=text)

        history = finetune(
            model, data, chosen, settings.out, validation=validation, progress=report
        )
    return {
        "settings": asdict(chosen),
        "cache": str(settings.cache),
        "videos": len(data),
        "epochs": [asdict(epoch) for epoch in history],
        "weights": str(weights_path(settings.out, len(history))),
    }


def classify(settings: ClassifySettings) -> dict[str, Any]:
    """Classify the videos of a cache; see `eventful finetune classify --help`.

    Returns:
        Accuracy and loss, for JSON.

    Raises:
        FileNotFoundError: The weights or the checkpoint are not there.
        ValueError: Something does not fit.
    """
    model = _model(settings.dataset, settings.weights, settings.device)
    if settings.checkpoint is not None:
        load_finetuned(model, settings.checkpoint)
    held = SpatialCache(settings.cache)
    used, dense = held.operations()
    return evaluate(model, held)._asdict() | {"operations": {"eventful": used, "dense": dense}}


def cache_table(result: dict[str, Any]) -> Table:
    """What was cached, for people."""
    table = _table(f"{result['videos']} videos in {result['folder']}")
    table.add_row("variant", result["setting"]["variant"])
    table.add_row("policy", result["setting"]["policy"] or "-")
    table.add_row("computed now", str(result["computed"]))
    table.add_row("unreadable", str(result["unreadable"]))
    for kind, count in result["problems"].items():
        table.add_row(f"problems: {kind}", str(count))
    return _with_operations(table, result)


def train_table(result: dict[str, Any]) -> Table:
    """What training gave, for people."""
    table = Table(title=f"{result['videos']} videos of {result['cache']}")
    for name in ("epoch", "loss", "checked loss", "top-1", "top-5"):
        table.add_column(name, justify="right")
    for epoch in result["epochs"]:
        losses = [f"{epoch[name]:.4f}" for name in ("loss", "checked_loss")]
        scores = [_percent(epoch[name]) for name in ("top1", "top5")]
        table.add_row(str(epoch["number"]), *losses, *scores)
    table.caption = result["weights"]
    return table


def classify_table(result: dict[str, Any]) -> Table:
    """Accuracy, for people."""
    table = _table(f"{result['videos']} videos")
    table.add_row("top-1", _percent(result["top1"]))
    table.add_row("top-5", _percent(result["top5"]))
    table.add_row("loss", f"{result['loss']:.4f}")
    return _with_operations(table, result)


def _model(dataset: str, weights: Path, device: str) -> ViViT:
    if dataset not in MODELS:
        raise ValueError(f"DATASET is one of {', '.join(MODELS)}, got {dataset!r}")
    model = MODELS[dataset]()
    load(model, weights)
    return model.to(device_of(device))


def _triples(data: EpicKitchens | Kinetics) -> Iterator[tuple[str, Callable[[], Any], int]]:
    return ((clip.id, partial(_views, clip), clip.target.label) for clip in data)


def _views(clip: Clip) -> Tensor | None:
    """All views (views, frames, 3, size, size) of a clip; None where nothing can be read."""
    views = [view.frames for view in clip]
    return torch.stack(views) if views else None


def _progress(console: Console) -> Progress:
    return Progress(
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
        console=console,
    )


def _table(title: str) -> Table:
    table = Table(title=title, show_header=False)
    table.add_column()
    table.add_column(justify="right")
    return table


def _with_operations(table: Table, result: dict[str, Any]) -> Table:
    counts = result["operations"]
    table.add_row("spatial model, a video", f"{counts['eventful'] / 1e12:.3g} T operations")
    table.add_row("the same, dense", f"{counts['dense'] / 1e12:.3g} T operations")
    return table


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f} %"


@group.command("cache")
def cache_command(
    dataset: ActionSet,
    root: Annotated[Path, typer.Option(help="Folder of the data set.")],
    weights: ConvertedWeights,
    policy: Annotated[str, typer.Option(help="top:100, fraction:0.25, threshold:1.0 or all.")],
    out: Annotated[Path, typer.Option(help="Folder to write to; a run that ended goes on there.")],
    split: Annotated[str, typer.Option(help="train or validation (epic), train or val.")] = "train",
    variant: Annotated[
        str, typer.Option(help=f"One of {', '.join(VARIANTS)}; the paper's is full.")
    ] = "incremental",
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many clips.")] = None,
    strict: Strict = False,
    device: Device = "",
    json_output: Json = False,
) -> None:
    """Run the eventful spatial model over a data set and keep its class tokens.

    The class token competes with the others for the budget, as in the paper. `--variant dense`
    keeps what the dense model gives.
    """
    with errors():
        settings = CacheSettings(
            dataset=dataset,
            root=root,
            split=split,
            weights=weights,
            policy=parse_tokens(policy),
            out=out,
            variant=variant,
            limit=limit,
            strict=strict,
            device=device,
        )
        result = cache(settings, Console(stderr=True))
    show(result, json_output, cache_table)


@group.command("train")
def train_command(
    dataset: ActionSet,
    cache: Cache,
    weights: ConvertedWeights,
    out: Annotated[Path, typer.Option(help="Folder for checkpoints; a run goes on there.")],
    validation: Annotated[
        Path | None, typer.Option(help="A cache to classify after each epoch.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="[5 for epic, 10 for kinetics]")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="[1e-5, 2e-6]")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="[8, 16]")] = None,
    dropout: Annotated[float | None, typer.Option(help="Before the classifier [0.5].")] = None,
    loss: Annotated[
        str | None, typer.Option(help="logits, or probabilities as published [probabilities].")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of shuffling and dropout [0].")] = None,
    device: Device = "",
    json_output: Json = False,
) -> None:
    """Train the temporal model and the classifier on cached outputs; the paper's settings.

    Stops if the loss does not fall over the first epoch.
    """
    with errors():
        settings = TrainSettings(
            dataset=dataset,
            cache=cache,
            weights=weights,
            out=out,
            validation=validation,
            epochs=epochs,
            learning_rate=learning_rate,
            batch_size=batch_size,
            dropout=dropout,
            loss=loss,
            seed=seed,
            device=device,
        )
        result = train(settings, Console(stderr=True))
    show(result, json_output, train_table)


@group.command("classify")
def classify_command(
    dataset: ActionSet,
    cache: Cache,
    weights: ConvertedWeights,
    checkpoint: Annotated[
        Path | None, typer.Option(help="epoch-*.safetensors of `finetune train`.")
    ] = None,
    device: Device = "",
    json_output: Json = False,
) -> None:
    """Classify the videos of a cache, their views averaged."""
    with errors():
        settings = ClassifySettings(
            dataset=dataset, cache=cache, weights=weights, checkpoint=checkpoint, device=device
        )
        result = classify(settings)
    show(result, json_output, classify_table)
