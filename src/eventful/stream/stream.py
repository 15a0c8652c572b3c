"""A stream: one video (or a batch of them) running through a converted model."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from eventful.block import bindings
from eventful.block.bindings import binding
from eventful.block.block import bound_copy, eventful_blocks
from eventful.block.state import BlockState, Frame
from eventful.counting import Operations, outside
from eventful.counting.account import Account
from eventful.policies import Policy, for_gates
from eventful.stream import compiled, snapshots
from eventful.stream.cuts import SceneCuts, change
from eventful.stream.inputs import Inputs, refuse
from eventful.stream.stats import Stats
from eventful.stream.steering import Steering


class GateView(NamedTuple):
    """What a gate saw and did on the last frame.

    Attributes:
        error: (batch, tokens) L2 norm of e = u - c; 0 on a frame that was flushed whole.
        updated: (batch, tokens) whether the token was updated.
    """

    error: Tensor
    updated: Tensor


class Stream:
    """Runs frames through a converted model and owns what is remembered between them.

    Several streams share one set of weights; each may run in a thread of its own. Batch rows are
    independent videos of equal size. The first frame is computed in full; so is a row at a scene
    cut, and everything when the frame's size, the model's dtype or device, or its weights change.
    A module that is replaced in the model after the stream was made is not seen by it.

    Args:
        model: A model that `eventful.convert` has converted.
        policy: Overrides the policy given to `convert`; see the attribute.
        normalize: Apply the model's own mean and standard deviation (its `pretrained_cfg`) to
            frames in [0, 1]; otherwise frames are what the model takes.
        scene_cuts: How scene cuts are found; None turns this off, as every reproduction of the
            paper does.
        method: The model's method to run, such as "forward_features".
        compile: Compile the blocks with `torch.compile`. Policies must then let a fixed number of
            tokens through (`TopR`, `TopFraction`, `KeepAll`). Each such number compiles once;
            `prepare` does it ahead of time.
        state_dtype: What references and buffers are kept in: torch.float32, bfloat16 or float16;
            by default as the model computes them. What incremental attention sums up is kept in
            float32 at least.
        max_error: Relative error of the output to hold, as a mean over any 50 frames that are not
            flushes: the policy is then where the budget starts, and is moved on every frame. Some
            frames are checked against the dense model; these are flushes, and return its output.
            `stats.error` says what was held; see docs/targets.md.
        latency_ms: Milliseconds that a frame which is no flush is to take in the mean; the budget
            is moved likewise, and is the smaller one where both targets are set. `stats.latency`
            says what was held.
        check_every: Frames from one check to the next; the first ones come sooner, and one comes
            soon behind a scene cut.

    Raises:
        ValueError: The model is not converted, has been changed since in a way that its adapter
            does not know, has no such method, says no mean and standard deviation, or was converted
            with a form of attention that does not compile; a target is not positive, or set with
            policies that cannot be moved or with `compile`.
        TypeError: `state_dtype` is none of these, or a target no number.

    Example:
        >>> import timm, eventful
        >>> model = timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=5).eval()
        >>> stream = Stream(eventful.convert(model, policy=eventful.TopR(1)), scene_cuts=None)
        >>> for frame in torch.rand(3, 1, 3, 32, 32):
        ...     logits = stream(frame)
        >>> stream.stats.updated["blocks.0.qkv"]  # the class token and one patch
        (2,)
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        policy: Policy | Mapping[str, Policy] | None = None,
        normalize: bool = False,
        scene_cuts: SceneCuts | None = SceneCuts(),  # noqa: B008 - frozen
        method: str = "forward",
        compile: bool = False,
        state_dtype: torch.dtype | None = None,
        max_error: float | None = None,
        latency_ms: float | None = None,
        check_every: int = 10,
    ) -> None:
        if state_dtype not in (None, torch.float32, torch.bfloat16, torch.float16):
            raise TypeError(
                f"state_dtype must be torch.float32, torch.bfloat16 or torch.float16, or None for "
                f"the model's own, got {state_dtype!r}"
            )
        self._compile = compile
        self._settings: dict[str, Any] = {
            "normalize": normalize,
            "scene_cuts": scene_cuts,
            "method": method,
            "compile": compile,
            "state_dtype": state_dtype,
        }
        self._frame = Frame(self._first_gate, *compiled.steps(compile), state_dtype)
        originals = eventful_blocks(model).values()
        for block in originals:
            block.account(block.original, block.name)
        self._originals = (model, *originals)
        self._module = bound_copy(model, self._frame)
        self._blocks = {block.name: block for block in eventful_blocks(self._module).values()}
        if not self._blocks:
            raise ValueError(
                "this model holds no eventful block; call eventful.convert(model, policy=...) first"
            )
        if compile:
            compiled.check(self._blocks.values())
        self._account = Account(self._blocks)
        self._call = _method(self._module, method)
        self._inputs = Inputs(model, normalize)
        self._weights = list(model.parameters())
        self._version = _version(self._weights)
        self._scene_cuts = scene_cuts
        self._size: tuple[Any, ...] | None = None
        self._pending: tuple[list[int] | None, str] | None = None
        self._flushed: dict[int, str] = {}
        self._histories: list[deque[float]] = []
        self._checked: object = None
        self._moved: Tensor | None = None
        self._checking = False
        self._steering: Steering | None = None
        self.stats = Stats()
        if policy is not None:
            self.policy = policy
        if max_error is not None or latency_ms is not None:
            if compile:
                raise ValueError(
                    "max_error and latency_ms change the number of tokens on every frame, and each "
                    "number would compile anew; leave compile=False"
                )
            self._steering = Steering(self._blocks, max_error, latency_ms, check_every)

    @property
    def policy(self) -> Policy | dict[str, Policy]:
        """The policy of all gates, or one for each where they differ.

        Set it between any two frames, to a policy or to a mapping from gate names (or patterns
        such as `*.mlp`) to policies; gates that a mapping leaves out keep theirs. With `max_error`
        or `latency_ms` it is where the budget stands, and what is set is where it starts anew.
        """
        policies = self._policies()
        first, *rest = policies.values()
        return first if all(policy == first for policy in rest) else policies

    @policy.setter
    def policy(self, policy: Policy | Mapping[str, Policy]) -> None:
        now = self._policies()
        chosen = for_gates(policy, list(now), default=now)
        if self._steering is not None:
            self._steering.start_from(chosen)
        bindings.set_policies(self._blocks, chosen)

    @torch.inference_mode()
    def __call__(self, frame: Tensor) -> Any:
        """Process one frame of every batch row.

        Args:
            frame: (batch, channels, height, width) floating point, on any device.

        Returns:
            What the model's method returns.

        Raises:
            TypeError: The frame is not a floating-point tensor.
            ValueError: It holds NaN or infinity, has the wrong shape, or a policy does not fit
                its number of tokens. The stream is then as it was before.
            RuntimeError: The model is in train mode, or the frame asks for gradients.
        """
        start = _clock()
        output = self._process(frame)
        if self._steering is not None:
            if not self._flushed:
                self._steering.clock(_clock() - start)
            self.stats.error, self.stats.latency = self._steering.reports(self.stats.frames)
        return output

    def _process(self, frame: Tensor) -> Any:
        if any(module.training for module in self._originals):
            raise RuntimeError("the model is in train mode; call model.eval()")
        x = self._inputs.prepare(frame, self._weights[0], self.stats.frames, not self._compile)
        reason = self._reset_reason(x)
        usual = reason is None and self._pending is None and not self._frame.anew
        if self._compile and usual:
            return self._run_fixed(x)
        if self._compile and not x.isfinite().all():
            refuse(self.stats.frames, "NaN or infinity")
        return self._run(x) if reason is None else self._run_first(x, reason)

    def prepare(self, frame: Tensor, policies: Iterable[Policy | Mapping[str, Policy]]) -> None:
        """Compile ahead for some policies, so that moving between them costs nothing later.

        The stream is as it was afterwards: frames run through a twin.

        Args:
            frame: Any frame of the size to come.
            policies: What `policy` will be set to.
        """
        for policy in policies if self._compile else ():
            twin = Stream(self._originals[0], policy=self._policies(), **self._settings)
            twin.policy = policy
            for _ in range(2):
                twin(frame)

    @property
    def gates(self) -> list[str]:
        """The names of all gates."""
        return list(self._policies())

    def reset(self, rows: list[int] | None = None) -> None:
        """Compute the next frame in full, of all batch rows or of the given ones.

        Raises:
            ValueError: There is no such row.
        """
        if self._size is None or (self._pending is not None and self._pending[0] is None):
            return  # the next frame is computed in full anyway
        batch = len(self._histories)
        if rows is not None and not all(0 <= row < batch for row in rows):
            raise ValueError(f"rows must lie from 0 to {batch - 1}, got {rows}")
        asked = self._pending[0] or [] if self._pending else []
        self._pending = None if rows is None else sorted({*asked, *rows}), "requested"

    def gate(self, name: str) -> GateView:
        """Look at what a gate, such as "blocks.3.qkv", did on the last frame.

        Raises:
            ValueError: There is no such gate, or no frame yet.
        """
        block, _, stage = name.rpartition(".")
        if name not in self.gates:
            raise ValueError(f"no gate is called {name!r}; there are {', '.join(self.gates)}")
        state = binding(self._blocks[block]).state.gates.get(stage)  # type: ignore[call-overload]
        if state is None:
            raise ValueError("there is nothing to see at a gate before the first frame")
        return GateView(state.error.clone(), state.index.mask())

    def snapshot(self, path: str | os.PathLike[str] | None = None) -> dict[str, Any]:
        """Copy out all that is needed to go on with the same output in another process.

        Args:
            path: Also write it to this file, in one step, for `load_snapshot`.

        Raises:
            ValueError: There was no frame yet.
        """
        if self._size is None:
            raise ValueError("there is nothing to save before the first frame")
        content = {
            "model": snapshots.describe(self._module, self._blocks),
            "frame": snapshots.frame_of(self._size),
            **snapshots.capture(self._blocks),
            "histories": [list(history) for history in self._histories],
            "pending": list(self._pending) if self._pending else None,
            "state_dtype": str(self._frame.state_dtype),
            "outside": self._account.outside,
            "counts": [getattr(self.stats, name) for name in _COUNTS],
            "steering": None if self._steering is None else self._steering.state(),
        }
        if path is not None:
            snapshots.write(content, path)
        return content

    def load_snapshot(self, source: Mapping[str, Any] | str | os.PathLike[str]) -> None:
        """Go on from a snapshot, or from the file it was written to.

        Policies come with it, except those of your own making. Files are read without running any
        code they may hold.

        Raises:
            ValueError: It is of another model, other weights or options, or another frame size
                than this stream already runs; or it is no snapshot. The stream is then unchanged.
            FileNotFoundError: There is no such file.
        """
        content = snapshots.read(source)
        snapshots.check(content["model"], snapshots.describe(self._module, self._blocks))
        snapshots.check_state_dtype(content, self._frame.state_dtype)
        size = snapshots.size_in(content, self._device)
        snapshots.check_size(size, self._size)
        states = snapshots.states_in(content, self._device)
        self.policy = snapshots.parse_policies(content["policies"]) or self.policy
        for name, block in self._blocks.items():
            binding(block).state, binding(block).grid = states[name], content["grids"][name]
        self._account.measure()
        self._frame.anew = False
        self._size, self._account.outside = size, content["outside"]
        self._version = _version(self._weights)
        self._pending = tuple(content["pending"]) if content["pending"] else None
        cuts = self._scene_cuts or SceneCuts()
        self._histories = [cuts.new_history() for _ in content["histories"]]
        for history, saved in zip(self._histories, content["histories"], strict=True):
            history.extend(saved)
        for name, value in zip(_COUNTS, content["counts"], strict=True):
            setattr(self.stats, name, value)
        if self._steering is not None:
            self._steering.load(content["steering"])
            self.stats.error, self.stats.latency = self._steering.reports(self.stats.frames)
        self.stats.state_bytes = self._state_bytes()

    @property
    def _device(self) -> torch.device:
        return next(self._module.parameters()).device

    def _reset_reason(self, x: Tensor) -> str | None:
        """Say why nothing remembered can be used, if so."""
        if self._size is None:
            return "first frame"
        if self._pending is not None and self._pending[0] is None:
            return self._pending[1]
        if _version(self._weights) != self._version:
            return "weights changed"
        names = ("frame size", "dtype", "device")
        for name, new, old in zip(names, _size(x), self._size, strict=True):
            if new != old:
                return f"{name} changed from {old} to {new}"
        return None

    def _run_first(self, x: Tensor, reason: str) -> Any:
        """Compute a frame in full, into new state; what was remembered stays until it is done."""
        before = {name: binding(block).state for name, block in self._blocks.items()}
        for block in self._blocks.values():
            binding(block).state = BlockState()
        try:
            with outside(list(self._blocks.values())) as observer:
                output, seconds = self._timed(x)
            self._check_policies()  # needs the number of tokens, known only now
            if self._steering is not None:
                self._steering.begin(output, anew=self._size != _size(x) or "weights" in reason)
        except BaseException:
            for name, block in self._blocks.items():
                binding(block).state = before[name]
            raise
        self._size, self._pending, self._account.outside = _size(x), None, observer.total
        self._frame.anew = False
        self._account.measure()
        self._version = _version(self._weights)
        self._histories = [(self._scene_cuts or SceneCuts()).new_history() for _ in x]
        self._flushed = dict.fromkeys(range(len(x)), reason)
        self.stats.state_bytes = self._state_bytes()
        self._report(seconds)
        return output

    def _run(self, x: Tensor) -> Any:
        """Compute a frame from what is remembered."""
        try:
            output, seconds = self._timed(x)
        except BaseException:
            self._interrupted()
            raise
        self._frame.anew = False
        if self._steering is not None and self._steering.due(self._flushed):
            return self._check_error(x, output, seconds, self._steering)
        self._report(seconds)
        return output

    def _check_error(self, x: Tensor, output: Any, seconds: float, steering: Steering) -> Any:
        """Flush a frame that was computed from what is remembered, and compare the outputs."""
        before, first = self._flushed, self._account.used(self._flushed)
        self._checking = True
        try:
            exact, more = self._timed(x)
        except BaseException:
            self._interrupted()
            raise
        finally:
            self._checking = False
        steering.learn(output, exact, len(x), before)
        self._flushed = dict.fromkeys(range(len(x)), "error check") | before
        steering.operations += first.total
        self._report(seconds + more, first)
        return exact

    def _run_fixed(self, x: Tensor) -> Any:
        """Compute a frame by compiled updates; take it back if it should not have been."""
        views = bindings.gate_states(self._blocks)
        seen = [(gate.error, gate.index) for gate in views]
        self._frame.fixed, self._frame.bounded = True, compiled.must_bound(x.device)
        try:
            output, seconds = self._timed(x)
        except BaseException:
            self._interrupted()
            raise
        finally:
            self._frame.fixed = self._frame.bounded = False
        verdict = compiled.read(x, self._blocks.values(), self._moved)
        self._flushed = {}
        if verdict.finite and not verdict.overflow and not self._cuts(verdict.moved):
            self._remember(verdict.moved)
            self._report(seconds)
            return output
        for block in self._blocks.values():
            binding(block).state.undo_()
        for gate, (error, index) in zip(views, seen, strict=True):
            gate.error, gate.index = error, index
        self._frame.anew = True  # attention states cannot be taken back, but follow from buffers
        if not verdict.finite:
            refuse(self.stats.frames, "NaN or infinity")
        self.stats.fallbacks += verdict.overflow
        return self._run(x)

    def _interrupted(self) -> None:
        """Compute the next frame in full, if some gates have moved on and others have not."""
        if self._frame.reached:
            self._pending = None, "interrupted"

    def _timed(self, x: Tensor) -> tuple[Any, float]:
        """Run the model; every eventful block must take part exactly once."""
        self._frame.flush, self._frame.reached = [], False
        for block in self._blocks.values():
            binding(block).runs = 0
        start = _now(x)
        output = self._call(x)
        seconds = _now(x) - start
        runs = {name: binding(block).runs for name, block in self._blocks.items()}
        odd = {name: count for name, count in runs.items() if count != 1}
        if odd:
            raise RuntimeError(
                f"on each frame every eventful block must run once; these ran this often: {odd}; "
                f"leave them out with convert(..., where=...)"
            )
        return output, seconds

    def _first_gate(self, reference: Tensor, c: Tensor) -> list[int]:
        """Before any state changes: check the policies and choose the rows to flush."""
        if self._checking:
            return list(range(len(c)))
        self._check_policies()
        moved = None if self._scene_cuts is None else change(reference, c)
        if self._frame.fixed:
            self._moved = moved  # judged when it is read back, behind the frame
            return []
        rows, reason = self._pending or (None, "")
        self._flushed = dict.fromkeys(rows or [], reason)
        if moved is not None:
            changes = moved.tolist()
            for row in self._cuts(changes):
                self._flushed.setdefault(row, "scene cut")
            self._remember(changes)
        self._pending = None
        if self._steering is not None:
            self._steering.choose(reference, c, self._flushed)
            self._checked = self._policies(), bindings.choices(self._blocks)  # they fit
        return list(self._flushed)

    def _cuts(self, moved: list[float]) -> list[int]:
        """The batch rows that show another scene."""
        cuts = self._scene_cuts
        rows = enumerate(zip(moved, self._histories, strict=False))
        return [row for row, (m, history) in rows if cuts is not None and cuts.is_cut(m, history)]

    def _remember(self, moved: list[float]) -> None:
        """Enter the rows' changes, a cut's too, or noise would be cut for ever."""
        for change_of_row, history in zip(moved, self._histories, strict=False):
            history.append(change_of_row)

    def _check_policies(self) -> None:
        """Let every policy choose once, so that one that does not fit fails before any change."""
        policies, choices = self._policies(), bindings.choices(self._blocks)
        if self._checked != (policies, choices):
            like = bindings.gate_states(self._blocks)[0].reference
            bindings.check_policies(policies, choices, like, fixed=self._compile)
            self._checked = policies, choices

    def _report(self, seconds: float, more: Operations = Operations()) -> None:  # noqa: B008
        """Enter a processed frame into the statistics, and what was spent on it before."""
        for name, block in self._blocks.items():
            binding(block).state.forget_undo()
            for stage, gate in binding(block).state.gates.items():
                self.stats.updated[f"{name}.{stage}"] = gate.index.counts
        for row, reason in self._flushed.items():
            self.stats.flush(row, reason)
        used = self._account.used(self._flushed) + more
        self.stats.count(used, self._account.dense(len(self._histories)))
        self.stats.seconds = seconds

    def _policies(self) -> dict[str, Policy]:
        return bindings.policies(self._blocks)

    def _state_bytes(self) -> int:
        return bindings.state_bytes(self._blocks)


_COUNTS = ("frames", "total_operations", "total_dense_operations")


def _size(x: Tensor) -> tuple[Any, ...]:
    return tuple(x.shape), x.dtype, x.device


def _version(weights: list[nn.Parameter]) -> int:
    """Counts changes of weights in place, as by `load_state_dict`."""
    return sum(0 if weight.is_inference() else weight._version for weight in weights)


def _clock() -> float:
    """Seconds, from any start; tests put another clock here."""
    return time.perf_counter()


def _now(x: Tensor) -> float:
    """The time when all work queued on x's device is done."""
    if x.is_cuda:
        torch.cuda.synchronize(x.device)
    return time.perf_counter()


def _method(module: nn.Module, name: str) -> Callable[[Tensor], Any]:
    if name == "forward":
        return module  # with its hooks
    method = getattr(module, name, None)
    if not callable(method):
        raise ValueError(f"a {type(module).__name__} has no method {name!r}")
    return method
