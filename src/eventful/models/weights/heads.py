"""Small heads that come with the package, or that its training scripts have made."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeVar

from torch import nn

from eventful.models.weights.files import is_safetensors, read_safetensors

M = TypeVar("M", bound=nn.Module)


def loaded(head: M, path: str | os.PathLike[str], script: str) -> M:
    """Put the weights of a safetensors file into a head, in eval mode.

    Args:
        head: Of the right shape.
        path: The file.
        script: What makes such files.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It holds something else.

    Example:
        >>> import tempfile
        >>> from safetensors.torch import save_file
        >>> path = Path(tempfile.mkdtemp(), "head.safetensors")
        >>> save_file(nn.Linear(3, 5).state_dict(), path)
        >>> loaded(nn.Linear(3, 5), path, "train.py").training
        False
        >>> try:
        ...     loaded(nn.Linear(3, 7), path, "train.py")
        ... except ValueError as error:
        ...     print(str(error).partition("head.safetensors ")[2])
        holds no weights of this Linear; train.py makes them
    """
    source = Path(path)
    weights = read_safetensors(source) if is_safetensors(source) else {}
    try:
        head.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        kind = type(head).__name__
        raise ValueError(
            f"{source} holds no weights of this {kind}; {script} makes them"
        ) from error
    return head.eval()
