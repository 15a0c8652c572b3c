"""A model of transformers, its processor and its task, from a folder or a hub."""

from __future__ import annotations

import copy
import importlib
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from eventful.pretrained.tasks import TASKS, Task

PREFIX = "hf:"
FRAMES = ("pixel_values", "pixel_values_videos")
_SPARE = ("pooler", "pooling")  # parts that task models leave out of their files
_GETTERS = ("get_image_features", "get_image_embeddings")


@dataclass(frozen=True, eq=False)
class Loaded:
    """A model, ready to be converted.

    Attributes:
        name: Of its folder or on the hub.
        model: The model, in eval mode.
        method: The method that takes frames.
        processor: Its image (or video) processor.
        task: What it is run for.
        clip: Frames that it takes at once.
    """

    name: str
    model: nn.Module
    method: str
    processor: Any
    task: Task
    clip: int = 1

    @cached_property
    def takes(self) -> frozenset[str]:
        """The names of the method's arguments."""
        return frozenset(inspect.signature(getattr(self.model, self.method)).parameters)


def source(text: str) -> str:
    """The folder or name in `hf:FOLDER_OR_NAME`.

    Raises:
        ValueError: The text is none.
        FileNotFoundError: It is a path, and there is no such folder.

    Example:
        >>> source("hf:facebook/dinov2-small")
        'facebook/dinov2-small'
    """
    name = text.removeprefix(PREFIX)
    if not text.startswith(PREFIX) or not name:
        near = f"; do you mean {PREFIX}{text}?" if text else ""
        raise ValueError(f"--model is hf:FOLDER or hf:NAME on the hub, got {text!r}{near}")
    if Path(name).is_dir():
        if not Path(name, "config.json").is_file():
            raise ValueError(
                f"{name} holds no config.json; expected a folder that save_pretrained has written"
            )
    elif name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise FileNotFoundError(
            f"there is no folder {name}; names on the hub are OWNER/NAME, with one slash"
        )
    return name


def load(text: str, task: str | None = None, threshold: float = 0.3) -> Loaded:
    """Load what `from_pretrained` loads.

    Args:
        text: `hf:` and a folder that `save_pretrained` has written, or a name on the hub.
        task: One of `TASKS`; None for what the checkpoint says it is.
        threshold: The score that boxes and key points of the dense model count from.

    Raises:
        ImportError: transformers is not installed.
        ValueError: The model is not for the task, its files lack weights or its processor, or
            there is nothing of this name to be had.

    Example: see `eventful.pretrained.compare`.
    """
    name, transformers = source(text), _library()
    _check_task(task)
    with _quiet(transformers, Path(name).is_dir()):
        config = _got(transformers.AutoConfig, name, "the configuration")
        kind, loader = _loader(transformers, config, task)
        model = _loaded(loader, name)
        _check_frames(model, name)
        processor = _processor(transformers, name)
    return _assembled(name, model, config, kind(processor, threshold))


def outlined(text: str, task: str | None = None) -> tuple[Loaded, Callable[[], nn.Module]]:
    """The same without weights: a model on no device, and what makes further ones.

    Raises:
        ImportError: transformers is not installed.
        ValueError: The model is not for the task, or there is nothing of this name to be had.

    Example: see `load`.
    """
    name, transformers = source(text), _library()
    _check_task(task)
    with _quiet(transformers, Path(name).is_dir()):
        config = _got(transformers.AutoConfig, name, "the configuration")
        kind, loader = _loader(transformers, config, task)

    def build() -> nn.Module:

        make = getattr(loader, "from_config", None) or loader._from_config
        with _quiet(transformers, True), torch.device("meta"):
            return make(copy.deepcopy(config)).eval()

    model = build()
    _check_frames(model, name)
    return _assembled(name, model, config, kind(_processor(transformers, name), 0.0)), build


def _check_task(task: str | None) -> None:
    if task is not None and task not in TASKS:
        near = get_close_matches(task, TASKS, n=1)
        hint = f"; do you mean {near[0]}?" if near else ""
        raise ValueError(f"--task is one of {', '.join(TASKS)}, got {task!r}{hint}")


def _check_frames(model: nn.Module, name: str) -> None:
    """Refuse a model that takes no frames.

    Raises:
        ValueError: It takes none.
    """
    names = inspect.signature(model.forward).parameters
    if not {*FRAMES} & {*names}:
        raise ValueError(
            f"{name} is a {type(model).__name__}, which takes no frames: expected a model that "
            f"takes pixel_values, and it takes {', '.join([*names][:3])}"
        )


def _assembled(name: str, model: nn.Module, config: Any, task: Task) -> Loaded:
    """With the method that gives what the task reads, and the frames that it takes at once."""
    method = "forward"
    if task.name == "features" and getattr(model, "main_input_name", "") != "pixel_values":
        method = next((getter for getter in _GETTERS if hasattr(model, getter)), method)
    elif task.name == "features" and hasattr(model, "get_image_embeddings"):
        method = "get_image_embeddings"
    frames = getattr(config, "num_frames", None) or getattr(config, "frames_per_clip", None)
    return Loaded(name, model.eval(), method, task.processor, task, frames or 1)


def _library() -> Any:
    try:
        return importlib.import_module("transformers")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "models of hf:... need transformers; pip install 'eventful-transformers[transformers]'",
            name="transformers",
        ) from error


@contextmanager
def _quiet(transformers: Any, local: bool) -> Iterator[None]:
    """Without the library's own bars and warnings; what matters of them is raised here."""
    logging = transformers.utils.logging
    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    if local:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()


def _loader(transformers: Any, config: Any, task: str | None) -> tuple[type[Task], Any]:
    """The task, and the class whose `from_pretrained` loads the model.

    Raises:
        ValueError: The model is not for the task; the message says what it is for.
    """
    named = next(iter(getattr(config, "architectures", None) or ()), type(config).__name__)
    found = {
        name: loader for name in TASKS if (loader := _class(transformers, config, name, named))
    }
    if task is None:
        sure = [n for n in found if named in _classes(transformers, config, n) | {*TASKS[n].named}]
        task = sure[0] if sure else "features"
    if task not in found:
        able = f"give --task {' or '.join(found)}" if found else "it is for none of them"
        raise ValueError(f"a {named} gives no {task}; {able}")
    return TASKS[task], found[task]


def _class(transformers: Any, config: Any, task: str, named: str) -> Any:
    """What loads a model for a task: one of the library's `Auto` classes, else its own class."""
    kind = TASKS[task]
    for name in kind.autos:
        auto = getattr(transformers, name, None)
        if auto is not None and type(config) in auto._model_mapping:
            backbone = task == "features" and named.endswith("Backbone")
            return _own(config, named) if backbone else auto  # AutoBackbone loads no folders
    if named in kind.named or (task == "features" and not _is_for_a_task(transformers, config)):
        return _own(config, named)
    return None


def _classes(transformers: Any, config: Any, task: str) -> set[str]:
    """The classes that a task's `Auto` classes load for a configuration."""
    found: set[str] = set()
    for name in TASKS[task].autos:
        mapping = getattr(getattr(transformers, name, None), "_model_mapping", {})
        if type(config) in mapping:
            kinds = mapping[type(config)]
            found |= {k.__name__ for k in (kinds if isinstance(kinds, tuple) else (kinds,))}
    return found


def _is_for_a_task(transformers: Any, config: Any) -> bool:
    return any(_classes(transformers, config, name) for name in TASKS if name != "features")


def _own(config: Any, named: str) -> Any:
    """A class that stands beside its configuration; some have no `Auto` class."""
    if not type(config).__module__.startswith("transformers."):
        return None
    module = importlib.import_module(type(config).__module__.replace("configuration_", "modeling_"))
    return getattr(module, named, None)


def _got(loader: Any, name: str, what: str, **options: Any) -> Any:
    """Call `from_pretrained`, whose mistakes come in many kinds and many lines."""
    try:
        return loader.from_pretrained(name, **options)
    except Exception as error:
        line = next((line for line in str(error).splitlines() if line.strip()), "")
        raise ValueError(
            f"transformers cannot load {what} of {name} ({type(error).__name__}: {line.strip()}); "
            f"expected a folder that save_pretrained has written, or with a network a name on "
            f"the hub"
        ) from error


def _loaded(loader: Any, name: str) -> nn.Module:
    """The model with all its weights.

    Raises:
        ValueError: Some are not in the checkpoint, or are of another shape.
    """
    options = {"output_loading_info": True, "ignore_mismatched_sizes": True, "dtype": "auto"}
    model, info = _got(loader, name, "the model", **options)
    missing = {key for key in info["missing_keys"] if not any(s in key for s in _SPARE)}
    missing |= {key for key, *_ in info["mismatched_keys"]}
    if missing:
        raise ValueError(
            f"the checkpoint {name} lacks {len(missing)} of the weights of a "
            f"{type(model).__name__}, such as {min(missing)}, or has them in another shape; they "
            f"would be random. Give a whole checkpoint, or the --task that it was made for"
        )
    if any(weight.is_meta for weight in model.parameters()):
        raise ValueError(f"weights of {name} are on the meta device; load them first")
    return model


def _processor(transformers: Any, name: str) -> Any:
    """The image processor, or for clips the video processor."""
    failed: ValueError | None = None
    for kind in ("AutoImageProcessor", "AutoVideoProcessor"):
        try:
            return _got(getattr(transformers, kind), name, "the image processor")
        except ValueError as error:
            failed = failed or error
    raise ValueError(
        f"{failed}. Frames need the model's own processor: save it beside the model "
        f"(processor.save_pretrained), as preprocessor_config.json"
    )


def tokenizer(name: str) -> Any:
    """The tokenizer of a model that takes text.

    Raises:
        ValueError: There is none.
    """
    return _got(_library().AutoTokenizer, name, "the tokenizer")


def device_of(model: nn.Module) -> torch.device:
    """Where a model's inputs have to be."""
    device = next(model.parameters()).device
    return torch.device("cpu") if device.type == "meta" else device
