"""What a stream asks of an inference runtime."""

from __future__ import annotations

import logging
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.export import ExportedProgram

from eventful.runtimes.precision import Precision


class Graph(ABC):
    """A compiled graph; to be run by one thread at a time."""

    @abstractmethod
    def __call__(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Run it.

        Args:
            inputs: Contiguous tensors on the CPU, which are read where they lie.

        Returns:
            What it gives, which may be written over by the next call.
        """

    @abstractmethod
    def twin(self) -> Graph:
        """The same graph, for another stream; no weight is copied."""


class Runtime(ABC):
    """Compiles traced programs into graphs.

    Args:
        precision: What its graphs compute with.

    Attributes:
        name: As in `Stream(runtime=...)`.
    """

    name: ClassVar[str]

    def __init__(self, precision: Precision = "float32") -> None:
        self.precision: Precision = precision

    @abstractmethod
    def _converted(self, program: ExportedProgram) -> Any:
        """A program in the runtime's own form."""

    @abstractmethod
    def quantized(self, models: dict[str, Any], samples: Any) -> dict[str, Any]:
        """Quantise what `convert` gave to int8.

        Args:
            models: By the names of their graphs.
            samples: `Samples` to calibrate activations on; None without.

        Raises:
            ValueError: The runtime's own way to quantise does not calibrate.
            ModuleNotFoundError: The tool is not installed; the message has the pip line.
        """

    @abstractmethod
    def write(self, model: Any, path: Path) -> None:
        """Write what `convert` gave to files of this name, an ending added."""

    @abstractmethod
    def read(self, path: Path) -> Any:
        """Read what `write` wrote."""

    @abstractmethod
    def load(self, model: Any) -> Graph:
        """Compile what `convert` or `read` gave."""

    def convert(self, program: ExportedProgram) -> Any:
        """Bring a program whose inputs and outputs are tensors into the runtime's own form.

        Raises:
            ValueError: The runtime's converter does not know all of its operators.
        """
        with (
            torch.inference_mode(False),
            torch.no_grad(),
            warnings.catch_warnings(),
            _same_log(),
        ):
            warnings.simplefilter("ignore")  # of the runtimes, about themselves
            try:
                return self._converted(program)
            except ModuleNotFoundError:
                raise
            except Exception as error:
                raise ValueError(
                    f"{self.name} cannot convert this model; use another runtime, or build the "
                    f"model for the one size that frames have: {error}"
                ) from error

    def compile(self, program: ExportedProgram) -> Graph:
        """Convert a program and compile it."""
        return self.load(self.convert(program))


@contextmanager
def _same_log() -> Iterator[None]:
    """Leave the process's log as it is: OpenVINO's converter sets its level and a handler."""
    root = logging.getLogger()
    level, handlers = root.level, [*root.handlers]
    try:
        yield
    finally:
        root.setLevel(level)
        root.handlers[:] = handlers


def place(name: str) -> int:
    """The place of an input among a program's, which converters may leave out or name again."""
    return int(name.rpartition("_")[2])


def input_shapes(program: ExportedProgram) -> dict[str, list[int]]:
    """The shape of each input of a program, by name; -1 where it varies."""
    names = set(program.graph_signature.user_inputs)
    return {
        str(node.name): [size if isinstance(size, int) else -1 for size in node.meta["val"].shape]
        for node in program.graph.nodes
        if node.op == "placeholder" and node.name in names
    }


def imported(module: str, extra: str) -> Any:
    """A module of an optional library.

    Raises:
        ModuleNotFoundError: It is not installed; the message has the pip line.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"this needs {module.partition('.')[0]}: pip install 'eventful-transformers[{extra}]'"
        ) from error
