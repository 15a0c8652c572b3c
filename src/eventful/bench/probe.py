"""The process in which one contender's memory is measured: `python -m eventful.bench.probe JSON`.

Python, PyTorch and the weights count too, so that figures are what a user's process would show.
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from eventful.bench.case import Setup
from eventful.bench.equality import attention_error, bound_blocks
from eventful.bench.subjects import Subject
from eventful.convert import convert
from eventful.policies import TopR
from eventful.stream import Stream


@torch.inference_mode()
def measure(order: dict[str, Any]) -> dict[str, Any]:
    """Run a clip and say what it took.

    Args:
        order: As `eventful.bench.memory` writes it.

    Returns:
        Figures in bytes, the operations ratio of the last frame, and the attention error.
    """
    torch.set_num_threads(order["threads"])
    setup = Setup(torch.device(order["device"]), getattr(torch, order["dtype"]))
    subject, tenant = Subject(**order["subject"]), order["tenant"]
    model = subject.build(setup)
    clip = subject.clip(order["frames"], 1, setup)
    if tenant["convert"]:
        convert(model, TopR(order["r"]), attention=tenant["attention"] or "incremental")
    built = peak_bytes(setup.device)
    if tenant["attention"] is None:
        for frame in clip:
            getattr(model, subject.method)(frame)
        peak = peak_bytes(setup.device)
        return {"figures": {"peak_bytes": peak, "built_bytes": built}, "ratio": 1.0, "error": None}
    stream = _stream(model, subject, clip, tenant["state_dtype"])
    figures = {"peak_bytes": peak_bytes(setup.device), "built_bytes": built} | _state(stream)
    ratio = stream.stats.dense_operations.total / stream.stats.operations.total
    return {"figures": figures, "ratio": ratio, "error": attention_error(stream)}


def _stream(model: nn.Module, subject: Subject, clip: list[Tensor], dtype: str | None) -> Stream:
    stream = Stream(
        model,
        scene_cuts=None,
        method=subject.method,
        state_dtype=None if dtype is None else getattr(torch, dtype),
    )
    for frame in clip:
        stream(frame)
    return stream


def _state(stream: Stream) -> dict[str, float]:
    """Bytes of state, and its values in units of tokens times dim, mean over the blocks."""
    shares = []
    for block in bound_blocks(stream):
        assert block.binding is not None
        state = block.binding.state
        unit = state.gates["qkv"].reference.numel()
        shares.append(sum(tensor.numel() for tensor in state.tensors().values()) / unit)
    return {
        "state_bytes": stream.stats.state_bytes,
        "state_values_per_block": sum(shares) / len(shares),
    }


def peak_bytes(device: torch.device) -> int:
    """The most memory held so far: of the GPU, or of this process.

    On Linux it is the kernel's own account of this program, VmHWM: `ru_maxrss` would begin with
    what the process held that started this one.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    if status.exists():
        line = next(x for x in status.read_text().splitlines() if x.startswith("VmHWM"))
        return 1024 * int(line.split()[1])
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    sys.stdout.write(json.dumps(measure(json.loads(sys.argv[1]))) + "\n")
