"""A stream: one video (or a batch of them) running through a converted model."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from eventful import runtimes
from eventful.block.state import Frame
from eventful.policies import FramePolicy, Policy
from eventful.runtimes.passes import Passes
from eventful.stream import compiled, engines, snapshots
from eventful.stream.bound import Bound
from eventful.stream.budget import Budget, check_shared
from eventful.stream.costs import Costs
from eventful.stream.cuts import SceneCuts
from eventful.stream.engine import Asked, Engine
from eventful.stream.frames import Frames
from eventful.stream.gated import Gated, GateView
from eventful.stream.inputs import Inputs, Normalize, Pixels, check_state_dtype
from eventful.stream.intake import ANOTHER_KIND, Intake, Runner
from eventful.stream.layout import Layout
from eventful.stream.lookahead import Lookahead
from eventful.stream.schedule import Schedule
from eventful.stream.stats import Report, Stats
from eventful.stream.together import Joining, Ticket, Together, Waiting

AnyPolicy = FramePolicy | Policy | Mapping[str, Policy]


class Stream:
    """Runs frames through a converted model and owns what is remembered between them.

    Several streams share one set of weights; each may run in a thread of its own. Batch rows are
    independent videos of equal size. The first frame is computed in full; so is a row at a scene
    cut, and everything when the frame's size, the model's dtype or device, or its weights change.
    A module replaced after the stream was made is not seen by it, nor a weight written to in place
    through `.data`; then call `reset`.

    Args:
        model: A model that `eventful.convert` has converted.
        policy: Overrides the policy given to `convert`; see the attribute.
        normalize: Frames are in [0, 1] and are normalised by the model's own mean and standard
            deviation (True: its `pretrained_cfg`), by a pair (mean, std), or as an image processor
            says. False: frames are what the model takes.
        pixels: Turns a frame as handed in into a picture (batch, channels, height, width) in
            [0, 1], for policies that follow motion; needed where that cannot be told otherwise.
        scene_cuts: How scene cuts are found; None turns this off, as every reproduction of the
            paper does. `Skip` looks at no picture and finds none.
        method: The model's method to run, such as "forward_features".
        compile: Compile the blocks with `torch.compile`, under token policies that let a fixed
            number of tokens through (`TopR`, `TopFraction`, `KeepAll`). Each such number compiles
            once; `prepare` does it ahead of time.
        state_dtype: Of what is remembered: torch.float32 or 16 bits; by default as computed. Sums
            of incremental attention are kept in float32 at least.
        costs: What frames cost, for `Auto`; by default counted (`share`) or measured on the first
            frame, which takes some four dense frames' time.
        check: On first frames, hold every block to its original, and a runtime's graphs to PyTorch;
            this doubles their time.
        runtime: What runs frames after the first under a frame policy: "torch", "openvino" or
            "onnxruntime", whose graphs the first frame makes in some seconds; see docs/runtimes.md.
        budget: Shared with other streams, under `Auto(share=...)` or `Auto(time=...)`.

    Raises:
        ValueError: The model is not converted, has been changed since in a way that its adapter
            does not know, has no such method, says no mean and standard deviation, or was converted
            with a form of attention that does not compile; or a policy does not go with the rest.
        ModuleNotFoundError: The runtime is not installed; the message has the pip line.
        TypeError: `state_dtype` is none of these, or the policy none.

    Example:
        >>> import timm, eventful
        >>> model = timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=5).eval()
        >>> stream = Stream(eventful.convert(model, policy=eventful.Skip(2)))
        >>> for frame in torch.rand(3, 1, 3, 32, 32):
        ...     logits = stream(frame)
        >>> dict(stream.stats.kinds)
        {'dense': 2, 'held': 1}
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        policy: AnyPolicy | None = None,
        normalize: Normalize = False,
        pixels: Pixels | None = None,
        scene_cuts: SceneCuts | None = SceneCuts(),  # noqa: B008 - frozen
        method: str = "forward",
        compile: bool = False,
        state_dtype: torch.dtype | None = None,
        costs: Costs | None = None,
        check: bool = True,
        runtime: runtimes.Name = "torch",
        budget: Budget | None = None,
    ) -> None:
        check_state_dtype(state_dtype)
        self._settings: dict[str, Any] = {
            **{"normalize": normalize, "pixels": pixels, "scene_cuts": scene_cuts},
            **{"method": method, "compile": compile, "state_dtype": state_dtype},
            **{"costs": costs, "check": check, "runtime": runtime, "budget": budget},
        }
        self._frame = Frame(*compiled.steps(compile), state_dtype)
        self._bound = Bound(model, method, self._frame)
        engine = runtimes.runtime_named(runtime)
        self._passes = None if engine is None else Passes(engine, self._bound.subject)
        given = self._bound, self._passes, self._settings
        self._check, self._frames = partial(engines.check, *given), partial(engines.frames, *given)
        self._gated = Gated(self._bound, compile, scene_cuts, check)
        self._engine: Engine = self._gated
        self._intake = Intake(self._bound, Inputs(model, normalize, pixels), compile)
        self._ahead: Lookahead | None = None
        self._ticket = Ticket(waits=False)
        self.stats = Stats()
        self._check(policy := self._bound.default_policy if policy is None else policy)
        if policy is not None:
            self.policy = policy

    @property
    def policy(self) -> FramePolicy | Policy | dict[str, Policy]:
        """The frame policy, or the policy of all gates, or one for each where they differ.

        Set it between any two frames: to a frame policy, to a token policy, or to a mapping from
        gate names (or patterns such as `*.mlp`) to token policies; gates that a mapping leaves out
        keep theirs. Between frame policies and token policies everything is computed in full once.
        """
        return self._engine.policy if isinstance(self._engine, Frames) else self._gated.policy

    @policy.setter
    def policy(self, policy: AnyPolicy) -> None:
        self._ticket.check("set a policy")
        before = self._engine
        self._check(policy)
        if not isinstance(policy, FramePolicy):
            self._gated.set_policy(policy)
            self._engine = self._gated
        elif isinstance(before, Frames) and before.accepts(policy):
            before.set_policy(policy)
        else:
            self._engine = self._frames(policy)
        if self._engine is not before and self._intake.size:
            self._intake.pending = None, ANOTHER_KIND

    @property
    def budget(self) -> Budget | None:
        """What is spent together with other streams. Set it between any two frames."""
        return self._settings["budget"]

    @budget.setter
    def budget(self, budget: Budget | None) -> None:
        self._ticket.check("set a budget")
        check_shared(budget, self.policy)
        self._engine.set_budget(budget)
        self._settings["budget"] = budget

    def __call__(self, frame: Tensor, **inputs: Any) -> Any:
        """Process one frame of every batch row.

        Args:
            frame: (batch, channels, height, width) floating point, on any device.
            **inputs: What else the model takes. When one changes that is no tensor, everything is
                computed in full.

        Returns:
            What the model returns, without gradients: ordinary tensors, on which a head can be
            trained.

        Raises:
            TypeError: The frame is not a floating-point tensor.
            ValueError: It holds NaN or infinity, has the wrong shape, or a policy does not fit
                its number of tokens; or a hook has been put on a module that is not called. The
                stream is then as it was before.
            RuntimeError: The model is in train mode, or the frame asks for gradients.
        """
        (output, report), seconds = self._take(self._engine, frame, inputs)
        self._tell(report, seconds)
        return output

    def ask(self, passes: Together, frame: Tensor, **inputs: Any) -> Ticket:
        """Hand in a frame that `passes.run()` computes, with frames of other streams.

        Raises:
            RuntimeError: The frame before still waits.
            Exception: As for a call.
        """
        found, seconds = self._take(Joining(self._engine, passes), frame, inputs)
        engine, self._ticket = self._engine, (ticket := Ticket())
        if isinstance(found, Asked):
            assert isinstance(engine, Frames)
            passes.add(Waiting(engine, found, ticket, self._tell, self._intake.interrupted))
        else:
            output, report = found
            self._tell(report, seconds)
            ticket.close(output)
        return ticket

    def _take(self, runner: Runner, frame: Tensor, inputs: Mapping[str, Any]) -> tuple[Any, float]:
        self._free("run another frame")
        return self._intake.take(runner, frame, inputs, self.stats.frames, self._sees)

    def _tell(self, report: Report, seconds: float) -> None:
        seconds = seconds if self._sees else report.seconds
        self.stats.tell(report, seconds, self._engine.state_bytes)

    @property
    def _sees(self) -> bool:
        """Whether frames are looked at as pictures."""
        return isinstance(self._engine, Frames) and Schedule.sees(self._engine.policy)

    def run(self, frames: Iterable[Tensor], *, lookahead: int = 0, **inputs: Any) -> Iterator[Any]:
        """Process the frames of one video in order, each once those after it are known.

        A frame between two dense ones is carried from both, which leaves about a fifth less
        error at the same cost (docs, "Lookahead"). Its output comes when `lookahead` further
        frames have been taken in, or at the end; `stats` then tells of it. The first frame of the
        run and the first after it are computed in full.

        Args:
            frames: (1, channels, height, width) each, as for a call; without lookahead, batches.
            lookahead: Frames that an output comes late, and that are held in memory. A frame whose
                next dense one is further away is carried from the one before only.
            **inputs: What else the model takes, the same for all frames.

        Yields:
            What the model returns for each frame.

        Raises:
            ValueError: As for a call; or the policy does not go with lookahead (`Auto` with a
                share, a time or an error, and `Carry` do), or frames are batches.

        Example:
            >>> import timm, eventful
            >>> model = timm.create_model("vit_tiny_patch16_224", img_size=64, num_classes=5).eval()
            >>> stream = Stream(eventful.convert(model, policy=eventful.Carry(3)))
            >>> video = torch.rand(7, 1, 3, 64, 64)
            >>> len([logits for logits in stream.run(video, lookahead=4)])
            7
            >>> dict(stream.stats.kinds)
            {'dense': 3, 'carried': 4}
        """
        if type(lookahead) is not int or lookahead < 0:
            raise ValueError(
                f"lookahead needs a whole number of frames, 0 or more, got {lookahead!r}"
            )
        if not lookahead:
            return (self(frame, **inputs) for frame in frames)
        engine = Lookahead.engine(self._engine, self.policy, self.budget)
        return self._run_ahead(engine, frames, lookahead, inputs)

    def _run_ahead(
        self, engine: Frames, frames: Iterable[Tensor], lookahead: int, inputs: Mapping[str, Any]
    ) -> Iterator[Any]:
        """The frames of a run, as they are done."""
        self._free("begin another run")
        self.reset()

        def take(frame: Tensor) -> None:
            if self._engine is not engine:
                raise ValueError(
                    f"a run with lookahead keeps to Auto, or to Carry, got {self.policy}"
                )
            self._intake.take(ahead, frame, inputs, ahead.taken, sees=True)

        self._ahead = ahead = Lookahead(engine, lookahead)
        try:
            for done in ahead.through(frames, take):
                self.stats.tell(done.report, done.seconds, ahead.state_bytes)
                yield done.output
        finally:
            self._ahead = None
            self.reset()

    def _free(self, what: str) -> None:
        """Refuse what would disturb a run with lookahead, or a frame that waits."""
        self._ticket.check(what)
        if self._ahead is not None:
            raise RuntimeError(
                f"cannot {what} while frames of a run with lookahead wait; take all its outputs, "
                f"or close() it"
            )

    def prepare(self, frame: Tensor, policies: Iterable[AnyPolicy]) -> None:
        """Compile ahead for some policies, so that moving between them costs nothing later.

        The stream is as it was afterwards: frames run through a twin.

        Args:
            frame: Any frame of the size to come.
            policies: What `policy` will be set to.
        """
        for policy in policies if self._settings["compile"] else ():
            twin = Stream(self._bound.model, policy=self._gated.policies, **self._settings)
            twin.policy = policy
            for _ in range(2):
                twin(frame)

    @property
    def gates(self) -> list[str]:
        """The names of all gates."""
        return list(self._gated.policies)

    @property
    def computed(self) -> Tensor:
        """Which tokens were computed on the last frame, bool (batch, tokens).

        Under a token policy, which of them the first gate let through.

        Raises:
            ValueError: There was no frame yet under this policy.
        """
        computed = self._engine.computed
        if computed is None:
            raise ValueError("there is nothing to see before the first frame")
        return computed

    @property
    def costs(self) -> Costs | None:
        """What frames cost, under `Auto` and once the first frame has told it."""
        return self._engine.costs if isinstance(self._engine, Frames) else None

    @property
    def layout(self) -> Layout | None:
        """How the model's blocks hang together, under a frame policy and after the first frame."""
        return self._engine.layout if isinstance(self._engine, Frames) else None

    def reset(self, rows: list[int] | None = None) -> None:
        """Compute the next frame in full, of all batch rows or of the given ones.

        Raises:
            ValueError: There is no such row.
        """
        self._intake.reset(rows, self._engine.rows)

    def gate(self, name: str) -> GateView:
        """Look at what a gate, such as "blocks.3.qkv", did on the last frame.

        Raises:
            ValueError: There is no such gate, or no frame yet.
        """
        return self._gated.view(name)

    def snapshot(self, path: str | os.PathLike[str] | None = None) -> dict[str, Any]:
        """Copy out all that is needed to go on with the same output in another process.

        Args:
            path: Also write it to this file, in one step, for `load_snapshot`.

        Raises:
            ValueError: There was no frame yet, or none since the policy became one of another kind.
        """
        self._free("save anything")
        size, pending = self._intake.size, self._intake.pending
        if size is None or pending == (None, ANOTHER_KIND):
            when = "before the first frame" if size is None else f"after {ANOTHER_KIND}"
            raise ValueError(f"there is nothing to save {when}")
        content = {
            "model": snapshots.describe(self._bound.module, self._bound.blocks),
            "frame": snapshots.frame_of(size),
            "engine": self._engine.state(),
            "pending": list(pending) if pending else None,
            "state_dtype": str(self._frame.state_dtype),
            "outside": self._bound.account.outside,
            "counts": self.stats.counts(),
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
        self._free("go on from a snapshot")
        content = snapshots.read(source)
        here = snapshots.describe(self._bound.module, self._bound.blocks)
        snapshots.check(content["model"], here)
        snapshots.check_state_dtype(content, self._frame.state_dtype)
        device = self._bound.weight.device
        size = snapshots.size_in(content, device)
        snapshots.check_size(size, self._intake.size)
        policy = snapshots.frame_policy_in(content["engine"])
        self._check(policy)
        engine = self._gated if policy is None else self._frames(policy)
        engine.load(content["engine"], device)
        self._engine, self._bound.account.outside = engine, content["outside"]
        self._bound.settle()
        self._intake.go_on(size, content["pending"])
        self.stats.go_on(content["counts"], engine.state_bytes)
