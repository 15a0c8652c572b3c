"""The package beside the reference on the same frames."""

import copy
import dataclasses
from collections import Counter
from typing import NamedTuple

import torch
from torch import Tensor

import eventful
from eventful.policies import Policy
from tests.paper import counts, models
from tests.paper.cases import CLIPS, Case, Clip
from tests.paper.reference import Choice, above, everything, top

GATES = ("qkv", "proj", "mlp")
SLACK = 1e-2  # on errors of tokens, where both round to float16
Sets = dict[str, list[list[int]]]  # of each gate, the updated tokens of each batch row


class Step(NamedTuple):
    """One frame; of each pair the package's comes first."""

    outputs: tuple[Tensor, Tensor]
    updated: tuple[Sets, Sets]
    operations: tuple[Counter, Counter]


class Pair:
    """A stream on a converted model, and the reference on the same weights."""

    def __init__(self, clip: Clip, chosen: Case, policy: Policy) -> None:
        model = clip.build()
        self.prefix = getattr(model, "num_prefix_tokens", 0)
        self.dense, self.clip, self.case = model, clip, chosen
        converted = eventful.convert(copy.deepcopy(model), policy, **chosen.options)
        self.stream = eventful.Stream(converted, scene_cuts=None, method=clip.method)
        choose = self.recorded if chosen.variant.half else self.choice(policy)
        positions = getattr(model.blocks[0].attn, "rel_positions", "linear")
        variant = dataclasses.replace(chosen.variant, positions=positions)
        self.reference = models.with_reference(model, choose, variant)
        self.blocks = self.reference.blocks[0]

    def choice(self, policy: Policy) -> models.Policy:
        """The reference's own policies."""
        prefix = self.prefix if self.case.options.get("prefix") != "gated" else 0
        if isinstance(policy, eventful.TopR):
            return lambda gate, row: top(policy.r, prefix)
        if isinstance(policy, eventful.Threshold):
            return lambda gate, row: above(policy.h, prefix)
        assert isinstance(policy, eventful.KeepAll)
        return lambda gate, row: everything

    def recorded(self, gate: str, row: int) -> Choice:
        """What the stream has updated, if errors bear it out but for rounding at the edge."""

        def choose(error):
            passed = self.stream.gate(gate).updated[row].numpy()
            chosen, left = error[self.prefix :][passed[self.prefix :]], error[~passed]
            assert not left.size or chosen.min() > left.max() - SLACK
            return passed.nonzero()[0]

        return choose

    def __call__(self, frame: Tensor, first: bool) -> Step:
        found = self.stream(frame)
        with torch.inference_mode():
            expected = getattr(self.reference, self.clip.method)(frame)
        operations = Counter(self.stream.stats.operations.as_dict())
        return Step(
            (found, expected),
            (self.updated(), self.blocks.updated()),
            (operations, self.expected_operations(first)),
        )

    def updated(self) -> Sets:
        return {
            name: [row.nonzero().flatten().tolist() for row in self.stream.gate(name).updated]
            for name in self.stream.gates
        }

    def expected_operations(self, first: bool) -> Counter:
        """Of all blocks and rows, from what the reference's gates let through."""
        tokens = self.prefix + self.clip.grid[0] * self.clip.grid[1]
        total = Counter(other=len(self.blocks.rows) * tokens * models.DIM)  # absolute positions
        for row in range(len(self.blocks.rows)):
            for i in range(models.DEPTH):
                total += counts.dense(self.size(i)) if first else self.update(i, row)
        return total

    def update(self, i: int, row: int) -> Counter:
        """Of one block and row on a later frame."""
        size, block = self.size(i), self.blocks.rows[row][i]
        updated = [len(block.gates[name].index) for name in GATES]
        keys = len(block.gates["qkv"].index if size.window else block.attention.keys)
        form = self.case.options["attention"]
        if form != "incremental":
            return counts.eventful(size, form, updated, keys)
        work = self.stream._bound.blocks[f"blocks.{i}"].binding.state.attention
        computed, corrected = work.recomputed[row], work.corrected[row]
        self.check_work(size, block, computed, corrected)
        return counts.incremental(size, updated, keys, computed, corrected)

    def check_work(self, size, block, computed: int, corrected: int) -> None:
        """Rows whose rounding calls for it are computed too; the others have closed forms."""
        index = block.gates["qkv"].index
        if size.window:
            assert computed == touched(index, size) * size.window**2
            assert corrected == 0
        elif corrected:
            assert corrected == size.tokens - len(index)
            assert len(index) <= computed
        else:
            assert computed == size.tokens

    def size(self, i: int) -> counts.Size:
        """Of a block."""
        dense, variant = self.dense.blocks[i], self.case.variant
        window = getattr(dense, "window_size", 0)
        return counts.Size(
            dim=models.DIM,
            heads=models.HEADS,
            tokens=len(self.blocks.rows[0][i].buffers["qkv"].b),
            grid=self.clip.grid if hasattr(dense, "window_size") else None,
            window=window,
            positions=hasattr(dense.attn, "rel_pos_h"),
            pooling=1 if window else variant.pooling,
            kept=variant.sampling.get(i, 0),
        )


def touched(index, size: counts.Size) -> int:
    """Windows that hold a token of an index set."""
    width = size.grid[1]
    return len({(t // width // size.window, t % width // size.window) for t in index.tolist()})


def run(clip: str, chosen: Case, policy: Policy, batch: int) -> list[Step]:
    """Six frames."""
    pair = Pair(CLIPS[clip], chosen, policy)
    return [pair(frame, t == 0) for t, frame in enumerate(CLIPS[clip].frames(batch))]
