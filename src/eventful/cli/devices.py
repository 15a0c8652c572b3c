"""Where models run."""

from __future__ import annotations

import torch


def device_of(name: str) -> torch.device:
    """The device of a name; without one, the GPU, if there is one.

    Raises:
        ValueError: It cannot be used.

    Example:
        >>> device_of("cpu")
        device(type='cpu')
    """
    default = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name or default)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        what = str(error).partition("\n")[0]
        raise ValueError(f"--device {name} cannot be used here: {what}") from error
    return device
