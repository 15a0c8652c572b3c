"""What the rest of the model reads of the blocks: last dense outputs, moved, and what lies over."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from eventful.motion import Between, Look, carry
from eventful.ops import Index
from eventful.stream.plan import Decision, Kind

Norm = Callable[[Tensor], Tensor]
Tokens = Mapping[str, Tensor]


class Compared(NamedTuple):
    """A dense output beside what would have been shown in its place.

    Attributes:
        shown: Relative error of what would have been shown, moved.
        held: Relative error of the last dense output as it stands.
        squares: (patches,) squared error of each patch in it, over the whole's square.
        change: (patches,) the same of the last dense output.
    """

    shown: float
    held: float
    squares: Tensor
    change: Tensor

    def instead(self, kind: Kind) -> float:
        """Relative error of what a frame of another kind would have shown."""
        return self.held if kind == "held" else self.shown


@dataclass
class Taps:
    """The outputs that something outside the blocks reads, by block.

    Attributes:
        prefix: Class and register tokens, in front of the patches. They are held, not moved.
        grid: Height and width of the token grid.
        norms: What the reader of each tap puts before it; errors are measured after it.
        suffix: Tokens behind the patches, which are held too.
        dense: For each row, (1, tokens, dim) of its last dense frame.
        fresh: The same of its last frame on which tokens were recomputed.
        shown: The same of what was last shown.
    """

    prefix: int
    grid: tuple[int, int]
    norms: Mapping[str, Norm]
    suffix: int = 0
    dense: dict[str, list[Tensor]] = field(default_factory=dict)
    fresh: dict[str, list[Tensor]] = field(default_factory=dict)
    shown: dict[str, list[Tensor]] = field(default_factory=dict)

    @property
    def tokens(self) -> int:
        """All tokens of a row."""
        return self.grid[0] * self.grid[1] + self.special

    @property
    def special(self) -> int:
        """Tokens that are no patches."""
        return self.prefix + self.suffix

    def start(self, outputs: Mapping[str, Tensor], dtype: torch.dtype | None) -> None:
        """Take in the outputs of a frame that is dense in every row."""
        self.dense = {name: _rows(outputs[name].to(dtype, copy=True)) for name in self.norms}
        self.fresh = {name: list(rows) for name, rows in self.dense.items()}
        self.shown = {name: list(rows) for name, rows in self.dense.items()}

    def show(self, looks: Sequence[Look | None], dtype: torch.dtype) -> dict[str, Tensor]:
        """What to show of a frame, before anything of it is computed.

        Args:
            looks: What is seen of each row; None for what was shown last.
            dtype: What the model computes in.
        """
        return {
            name: torch.cat(
                [
                    self.shown[name][row] if look is None else self._moved(name, row, look)
                    for row, look in enumerate(looks)
                ]
            ).to(dtype)
            for name in self.dense
        }

    def index(self, decisions: Sequence[Decision], device: torch.device) -> Index:
        """The tokens that blocks compute, of all rows; those that are no patches go with these."""
        tokens = self.tokens
        places = torch.arange(tokens, device=device)
        rows = []
        for decision in decisions:
            if decision.kind == "dense":
                rows.append(places)
            elif decision.patches is not None:
                patches = decision.patches.to(device) + self.prefix
                parts = places[: self.prefix], patches, places[tokens - self.suffix :]
                rows.append(torch.cat(parts))
            else:
                rows.append(places[:0])
        return Index.from_rows(rows, tokens)

    def keep(
        self, shown: Mapping[str, Tensor], decisions: Sequence[Decision]
    ) -> list[Compared | None]:
        """Take note of what was shown; what dense rows tell of what would have been otherwise.

        Args:
            shown: (batch, tokens, dim) by tap, which are this object's from now on.
            decisions: What was computed of each row.
        """
        compared = [
            self.compare(shown, row, d.look) if d.kind == "dense" and d.look is not None else None
            for row, d in enumerate(decisions)
        ]
        for name, tokens in shown.items():
            rows = self.shown[name] = _rows(tokens.to(self.dense[name][0].dtype))
            for row, decision in enumerate(decisions):
                if decision.kind == "dense" or decision.settle:
                    self.dense[name][row] = rows[row]
                if decision.kind in ("dense", "partial") or decision.settle:
                    self.fresh[name][row] = rows[row]
        return compared

    def compare(self, outputs: Mapping[str, Tensor], row: int, look: Look) -> Compared:
        """Hold a row's dense outputs against what would have been shown: the worst of all taps."""
        found = [
            self._compare(name, outputs[name][row : row + 1], row, look) for name in self.dense
        ]
        return max(found, key=lambda compared: compared.shown)

    def _compare(self, name: str, output: Tensor, row: int, look: Look) -> Compared:
        return self._against(name, output, self._moved(name, row, look), self.dense[name][row])

    def _against(self, name: str, output: Tensor, moved: Tensor, held: Tensor) -> Compared:
        """Hold an output (1, tokens, dim) against two others."""
        norm = self.norms[name]
        exact = norm(output).float()
        size = exact.square().sum().clamp_min(torch.finfo(torch.float32).tiny)
        off = [norm(tokens.to(output.dtype)).float() - exact for tokens in (moved, held)]
        shown, change = (x[0].square().sum(-1) / size for x in off)
        patches = self._places(len(shown))
        of_moved, of_held = (x.sum().sqrt().item() for x in (shown, change))
        return Compared(of_moved, of_held, shown[patches], change[patches])

    def between(self, before: Tokens, after: Tokens, seen: Between) -> dict[str, Tensor]:
        """What to show of a frame between two dense ones, before anything of it is computed.

        Patches are blended as the pictures say, other tokens by the distances alone.

        Args:
            before: (1, tokens, dim) by tap, of the dense frame before.
            after: The same of the one after.
            seen: The frame.
        """
        return {name: self._between(before[name], after[name], seen) for name in self.norms}

    def _between(self, before: Tensor, after: Tensor, seen: Between) -> Tensor:
        sides = (before, seen.before.motion), (after, seen.after.motion)
        moved = [carry(self._patches(tokens), motion) for tokens, motion in sides]
        shown = torch.lerp(after, before, seen.ahead / (seen.age + seen.ahead))
        shown[:, self._places(shown.shape[1])] = seen.mix(*moved).flatten(1, 2)
        return shown

    def since(self, before: Tokens, look: Look | None) -> dict[str, Tensor]:
        """The same of a frame that has no dense frame after it; None is a still one."""
        return {name: self._since(before[name], look) for name in self.norms}

    def _since(self, before: Tensor, look: Look | None) -> Tensor:
        shown = before.clone()
        if look is not None:
            moved = carry(self._patches(before), look.motion)
            shown[:, self._places(shown.shape[1])] = moved.flatten(1, 2)
        return shown

    def compare_between(
        self, outputs: Tokens, before: Tokens, after: Tokens, seen: Between
    ) -> Compared:
        """Hold dense outputs against what two other dense frames would have shown in their place.

        `held` is that of the first of these as it stands; of all taps, the worst is told.
        """
        shown = self.between(before, after, seen)
        found = [
            self._against(name, outputs[name], shown[name], before[name]) for name in self.norms
        ]
        return max(found, key=lambda compared: compared.shown)

    def _moved(self, name: str, row: int, look: Look) -> Tensor:
        """A row's tokens (1, tokens, dim) where the frame shows them."""
        patches = carry(self._patches(self.dense[name][row]), look.motion)
        if look.drift is not None:
            fresh = carry(self._patches(self.fresh[name][row]), look.drift)
            patches = torch.where(look.fresh[..., None], fresh, patches)
        held = self.shown[name][row]
        places = self._places(held.shape[1])
        front, back = held[:, : places.start], held[:, places.stop :]
        return torch.cat([front, patches.flatten(1, 2), back], dim=1)

    def _patches(self, tokens: Tensor) -> Tensor:
        return tokens[:, self._places(tokens.shape[1])].unflatten(1, self.grid)

    def _places(self, tokens: int) -> slice:
        """Where the patches stand among so many tokens."""
        return slice(self.prefix, tokens - self.suffix)

    def layout(self) -> dict[str, Any]:
        """Where tokens stand, for a snapshot."""
        places = {"prefix": self.prefix, "suffix": self.suffix, "grid": list(self.grid)}
        return {"taps": list(self.norms), **places}

    def tensors(self) -> dict[str, Tensor]:
        """All that is remembered, by name."""
        return {
            f"{kind}:{row}:{name}": tensor
            for kind, named in self._kinds().items()
            for name, rows in named.items()
            for row, tensor in enumerate(rows)
        }

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from what `tensors` gave."""
        for key, tensor in tensors.items():
            kind, _, name = key.split(":", 2)
            self._kinds()[kind].setdefault(name, []).append(tensor)

    def _kinds(self) -> dict[str, dict[str, list[Tensor]]]:
        return {"dense": self.dense, "fresh": self.fresh, "shown": self.shown}


def _rows(tokens: Tensor) -> list[Tensor]:
    """The rows (1, tokens, dim) of a batch, each in memory of its own."""
    return [row.clone() for row in tokens.split(1)] if len(tokens) > 1 else [tokens]
