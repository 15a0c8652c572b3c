"""The commands `eventful finetune cache`, `train` and `classify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from eventful.cli import finetuning
from eventful.cli.output import Json, errors, show
from eventful.evaluation import VARIANTS
from eventful.policies import parse_tokens

finetune = typer.Typer(
    no_args_is_help=True,
    help="Train ViViT's temporal model on what an eventful spatial model gives it.",
)

ActionSet = Annotated[str, typer.Argument(help=f"One of {', '.join(finetuning.MODELS)}.")]
Weights = Annotated[Path, typer.Option(help="What `eventful weights` has written for the model.")]
Device = Annotated[str, typer.Option(help="Such as cpu or cuda [the GPU, if any].")]


def add_to(app: typer.Typer) -> None:
    """Add these commands to others."""
    app.add_typer(finetune, name="finetune")


@finetune.command("cache")
def finetune_cache(
    dataset: ActionSet,
    root: Annotated[Path, typer.Option(help="Folder of the data set.")],
    weights: Weights,
    policy: Annotated[str, typer.Option(help="top:100, fraction:0.25, threshold:1.0 or all.")],
    out: Annotated[Path, typer.Option(help="Folder to write to; a run that ended goes on there.")],
    split: Annotated[str, typer.Option(help="train or validation (epic), train or val.")] = "train",
    variant: Annotated[
        str, typer.Option(help=f"One of {', '.join(VARIANTS)}; the paper's is full.")
    ] = "incremental",
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many clips.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at a file of no use.")] = False,
    device: Device = "",
    json_output: Json = False,
) -> None:
    """Run the eventful spatial model over a data set and keep its class tokens.

    The class token competes with the others for the budget, as in the paper. `--variant dense`
    keeps what the dense model gives.
    """
    with errors():
        settings = finetuning.CacheSettings(
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
        result = finetuning.cache(settings, Console(stderr=True))
    show(result, json_output, finetuning.cache_table)


@finetune.command("train")
def finetune_train(
    dataset: ActionSet,
    cache: Annotated[Path, typer.Option(help="Folder that `finetune cache` has filled.")],
    weights: Weights,
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
        settings = finetuning.TrainSettings(
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
        result = finetuning.train(settings, Console(stderr=True))
    show(result, json_output, finetuning.train_table)


@finetune.command("classify")
def finetune_classify(
    dataset: ActionSet,
    cache: Annotated[Path, typer.Option(help="Folder that `finetune cache` has filled.")],
    weights: Weights,
    checkpoint: Annotated[
        Path | None, typer.Option(help="epoch-*.safetensors of `finetune train`.")
    ] = None,
    device: Device = "",
    json_output: Json = False,
) -> None:
    """Classify the videos of a cache, their views averaged."""
    with errors():
        settings = finetuning.ClassifySettings(
            dataset=dataset, cache=cache, weights=weights, checkpoint=checkpoint, device=device
        )
        result = finetuning.classify(settings)
    show(result, json_output, finetuning.classify_table)
