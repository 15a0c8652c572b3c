"""A converted model as a stream runs it: its own blocks, weights that it shares."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from eventful.block.bindings import binding, state_bytes
from eventful.block.block import EventfulBlock, eventful_blocks
from eventful.block.state import BlockState, Frame, KeysValues
from eventful.block.twin import bound_copy
from eventful.counting import Observer, outside
from eventful.counting.account import Account
from eventful.policies import FramePolicy
from eventful.runtimes.export import Subject
from eventful.stream.checked import checked

_FRAMES = "pixel_values", "pixel_values_videos"  # transformers' names of the frame


class Bound:
    """Ties a stream's copy of a model's blocks to the stream.

    Args:
        model: A converted model.
        method: The model's method to run.
        frame: What the stream's blocks share while a frame passes.

    Attributes:
        frame: The same.
        method: The same.
        module: The stream's copy: eventful blocks and what holds them; all else is the model's.
        blocks: The stream's, by name.
        account: Counts their operations.
        parts: The model's modules: bounds for which they are equal run the same.

    Raises:
        ValueError: The model is not converted, has been changed since in a way that its adapter
            does not know, has no weights, or has no such method.
    """

    def __init__(self, model: nn.Module, method: str, frame: Frame) -> None:
        originals = eventful_blocks(model).values()
        self._originals, self.method = (model, *originals), method
        self._account()
        self.frame = frame
        self.module = bound_copy(model, frame, method)
        self.blocks: Mapping[str, EventfulBlock] = {
            block.name: block for block in eventful_blocks(self.module).values()
        }
        if not self.blocks:
            raise ValueError(
                "this model holds no eventful block; call eventful.convert(model) first"
            )
        if self.weight.is_meta:
            raise ValueError("this model's weights are on the meta device; load them first")
        self.account = Account(self.blocks)
        self.parts = tuple(model.modules())
        self._call = _by_name(_method(self.module, method))
        self._held = [
            tensors
            for module in model.modules()
            for tensors in (module._parameters, module._buffers)
            if tensors
        ]
        self._weights = self._fingerprint()
        self._hooks = [
            hooks
            for block in originals
            for module in block.original.modules()
            for hooks in (module._forward_hooks, module._forward_pre_hooks)
        ]
        self._hooked = [len(hooks) for hooks in self._hooks]

    def _account(self) -> None:
        """Check that blocks still hold only what their adapters know."""
        _, *blocks = self._originals
        for block in blocks:
            block.account(block.original, block.name)

    @property
    def model(self) -> nn.Module:
        """The model that was handed in."""
        return self._originals[0]

    @property
    def subject(self) -> Subject:
        """What a runtime's graphs are traced from."""
        own = self.module, self._call, self.blocks, self.frame
        return Subject(*own, self.model, self.method, self._fingerprint)

    @property
    def default_policy(self) -> FramePolicy | None:
        """The frame policy that the model was converted with, if it was one."""
        return next(iter(self.blocks.values())).frame_policy

    @property
    def taps(self) -> tuple[str, ...] | None:
        """Blocks that something else reads, as said when the model was converted."""
        return next(iter(self.blocks.values())).taps

    @property
    def weight(self) -> Tensor:
        """Any weight, for its device and dtype."""
        return next(self.module.parameters())

    def check(self) -> None:
        """Refuse to run a model in train mode, or with hooks that would never be called.

        Raises:
            RuntimeError: It is in train mode.
            ValueError: Since the stream was made, a hook was put on a module that is not called.
        """
        if any(module.training for module in self._originals):
            raise RuntimeError("the model is in train mode; call model.eval()")
        hooked = [len(hooks) for hooks in self._hooks]
        if hooked != self._hooked:
            self._account()
            self._hooked = hooked

    def _fingerprint(self) -> tuple[tuple[int, int, int], ...]:
        """Changes when weights do: in place, by another tensor, or by another parameter."""
        return tuple(
            (id(x), x.data_ptr(), 0 if x.is_inference() else x._version)
            for tensors in self._held
            for x in tensors.values()
            if x is not None
        )

    @property
    def changed(self) -> bool:
        """Whether weights have changed since `settle`."""
        return self._fingerprint() != self._weights

    def settle(self) -> None:
        """Take the weights as they are."""
        self._weights = self._fingerprint()

    def run(self, x: Tensor, inputs: Mapping[str, Any]) -> tuple[Any, float]:
        """Run the model and time it; every eventful block must take part exactly once.

        Raises:
            RuntimeError: A block did not, or ran twice.
        """
        self.frame.flush, self.frame.reached = [], False
        for block in self.blocks.values():
            binding(block).runs = 0
        start = now(x)
        output = self._call(x, **inputs)
        seconds = now(x) - start
        runs = {name: binding(block).runs for name, block in self.blocks.items()}
        odd = {name: count for name, count in runs.items() if count != 1}
        if odd:
            raise RuntimeError(
                f"on each frame every eventful block must run once; these ran this often: {odd}; "
                f"leave them out with convert(..., where=...)"
            )
        return output, seconds

    def observe(
        self, x: Tensor, inputs: Mapping[str, Any], check: bool
    ) -> tuple[Any, float, Observer]:
        """Run a first frame: count what runs outside the blocks, and hold them to their originals.

        Args:
            x: The frame.
            inputs: What else the model takes.
            check: Compare every block's output with its original's.

        Raises:
            ValueError: A block's output is not its original's; the message names it.
        """
        blocks = list(self.blocks.values())
        with checked(blocks, check), outside(blocks) as observer:
            output, seconds = self.run(x, inputs)
        return output, seconds, observer

    @contextmanager
    def fresh_states(self) -> Iterator[None]:
        """Let blocks begin anew; if that fails, what they remembered comes back."""
        before = {name: binding(block).state for name, block in self.blocks.items()}
        for block in self.blocks.values():
            binding(block).state = BlockState()
        try:
            yield
        except BaseException:
            for name, block in self.blocks.items():
                binding(block).state = before[name]
            self.frame.reached = False
            raise

    @property
    def kept(self) -> dict[str, KeysValues]:
        """The keys and values that are kept, by block."""
        states = {name: binding(block).state for name, block in self.blocks.items()}
        return {name: state.kv for name, state in states.items() if state.kv is not None}

    @property
    def state_bytes(self) -> int:
        """Memory of what the blocks remember."""
        return state_bytes(self.blocks)


def _by_name(call: Callable[..., Any]) -> Callable[..., Any]:
    """Hand a model its frame by name, where its first argument may be another one."""
    target = call.forward if isinstance(call, nn.Module) else call
    names = inspect.signature(target).parameters
    name = next((name for name in _FRAMES if name in names), None)
    return call if name is None else lambda x, **inputs: call(**{name: x}, **inputs)


def now(x: Tensor) -> float:
    """The time when all work queued on x's device is done."""
    if x.is_cuda:
        torch.cuda.synchronize(x.device)
    return time.perf_counter()


def _method(module: nn.Module, name: str) -> Callable[..., Any]:
    if name == "forward":
        return module  # with its hooks
    method = getattr(module, name, None)
    if not callable(method):
        raise ValueError(f"a {type(module).__name__} has no method {name!r}")
    return method
