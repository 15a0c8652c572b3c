"""Memory of each contender, every one in a process of its own."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import asdict, dataclass
from typing import Any

import torch

from eventful.attention import AttentionName
from eventful.bench.case import Report, Row, Setup
from eventful.bench.equality import TOLERANCE, require
from eventful.bench.subjects import Subject

_FRAMES = 4


@dataclass(frozen=True)
class Tenant:
    """What a process holds.

    Attributes:
        convert: Convert the model; otherwise it is the original one.
        attention: Run a stream with this form; None runs the model without a stream.
        state_dtype: What the stream keeps references and buffers in.
    """

    convert: bool = True
    attention: AttentionName | None = None
    state_dtype: str | None = None


TENANTS = {
    "dense": Tenant(convert=False),
    "dense converted": Tenant(),
    "cached": Tenant(attention="cached"),
    "incremental": Tenant(attention="incremental"),
    "incremental bfloat16 state": Tenant(attention="incremental", state_dtype="bfloat16"),
    "incremental float16 state": Tenant(attention="incremental", state_dtype="float16"),
}


@dataclass(frozen=True)
class MemoryCase:
    """Peak memory and state of a model on a short clip.

    Attributes:
        subject: The model.
        r: Patches updated on a frame, beside the prefix tokens.
    """

    subject: Subject
    r: int

    @property
    def name(self) -> str:
        """Suite, model and size, r."""
        return f"memory/{self.subject.label}-r{self.r}"

    def measure(self, setup: Setup) -> Report:
        """Run every contender alone, and test what streams keep of attention."""
        found = {name: _in_own_process(self, tenant, setup) for name, tenant in TENANTS.items()}
        limit = TOLERANCE[setup.dtype]
        checks = {
            f"attention in {name!r}": require(f"attention in {name!r}", result["error"], limit)
            for name, result in found.items()
            if TENANTS[name].attention == "incremental"
        }
        rows = [
            Row(
                contender=name,
                operation_ratio=result["ratio"],
                attention_error=result["error"],
                figures=result["figures"],
            )
            for name, result in found.items()
        ]
        return Report(rows, checks=checks)


def _in_own_process(case: MemoryCase, tenant: Tenant, setup: Setup) -> dict[str, Any]:
    """Measure one contender by `eventful.bench.probe`.

    The paper's form may need more memory than there is; that is a result, without a peak.

    Raises:
        RuntimeError: The process failed; the message ends with its last lines.
    """
    order = {
        "subject": asdict(case.subject),
        "tenant": asdict(tenant),
        "r": case.r,
        "frames": _FRAMES,
        "device": str(setup.device),
        "dtype": str(setup.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
    }
    command = [sys.executable, "-m", "eventful.bench.probe", json.dumps(order)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == -signal.SIGKILL and tenant.attention == "cached":
        return {"figures": {"peak_bytes": None}, "ratio": None, "error": None}
    if done.returncode != 0:
        last = " ".join(done.stderr.strip().splitlines()[-3:])
        raise RuntimeError(
            f"the process that holds {tenant} ended with code {done.returncode} (-9: out of "
            f"memory); a smaller case may fit. It said: {last or 'nothing'}"
        )
    return json.loads(done.stdout)
