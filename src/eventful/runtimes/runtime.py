"""What a stream asks of an inference runtime."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from torch import Tensor
from torch.export import ExportedProgram


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


class Runtime(ABC):
    """Compiles traced programs into graphs."""

    @abstractmethod
    def compile(self, program: ExportedProgram) -> Graph:
        """Compile a program whose inputs and outputs are tensors."""


def input_shapes(program: ExportedProgram) -> dict[str, list[int]]:
    """The shape of each input of a program, by name and in order; -1 where it varies."""
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
