"""A small generated action set, on which the whole of fine-tuning can be tried in a minute."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor


class Motion(NamedTuple):
    """A class of `MovingShapes`: pixels a frame, down and to the right."""

    down: int
    right: int


class MovingShapes:
    """Squares that move past a light that flickers; direction and speed are the class.

    The class lies in how things change, and the light changes more than the square: a policy that
    follows the largest errors spends its budget on it, and sees the square late.

    Args:
        videos: Their number.
        seed: Two sets of different seeds have no video in common.
        size: Side of the square frames; shapes that leave on one side come back on the other.
        frames: Frames of a video.
        lights: Lights in a video; each stays in its place and has a new colour on every frame.
        noise: Standard deviation of the noise that each frame has of its own.

    Attributes:
        motions: The classes.

    Example:
        >>> shapes = MovingShapes(videos=3, seed=0)
        >>> video, views, label = shapes[1]
        >>> video, views.shape, shapes.motions[label]
        ('0-1', torch.Size([1, 16, 3, 32, 32]), Motion(down=-1, right=0))
    """

    motions = tuple(
        Motion(speed * down, speed * right)
        for speed in (1, 2)
        for down, right in ((1, 0), (-1, 0), (0, 1), (0, -1))
    )

    def __init__(
        self,
        videos: int,
        seed: int,
        size: int = 32,
        frames: int = 16,
        lights: int = 1,
        noise: float = 0.05,
    ) -> None:
        self.videos, self.seed, self.size = videos, seed, size
        self.frames, self.lights, self.noise = frames, lights, noise

    def __len__(self) -> int:
        return self.videos

    def __iter__(self) -> Iterator[tuple[str, Tensor, int]]:
        return (self[number] for number in range(self.videos))

    def __getitem__(self, number: int) -> tuple[str, Tensor, int]:
        """Draw a video.

        Returns:
            Its id, one view (1, frames, 3, size, size) in [0, 1], and its class.

        Raises:
            IndexError: There is no such video.
        """
        if not 0 <= number < self.videos:
            raise IndexError(f"there are videos 0 to {self.videos - 1}, got {number}")
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + number)
        label = number % len(self.motions)
        still = 0.2 + 0.3 * torch.rand(3, self.size, self.size, generator=generator)
        video = still.repeat(self.frames, 1, 1, 1)
        for _ in range(self.lights):
            colours = torch.rand(self.frames, 3, 1, 1, generator=generator)
            video = torch.where(self._square(Motion(0, 0), generator)[:, None], colours, video)
        colour = 0.6 + 0.4 * torch.rand(3, 1, 1, generator=generator)
        video = torch.where(self._square(self.motions[label], generator)[:, None], colour, video)
        video += self.noise * torch.randn(video.shape, generator=generator)
        return f"{self.seed}-{number}", video.clamp(0, 1)[None], label

    def _square(self, motion: Motion, generator: torch.Generator) -> Tensor:
        """Where a square is, (frames, size, size)."""
        corner = torch.randint(self.size, (2,), generator=generator)
        side = int(torch.randint(6, 10, (), generator=generator))
        times, places = torch.arange(self.frames)[:, None], torch.arange(self.size)
        down = (places - corner[0] - motion.down * times) % self.size < side
        right = (places - corner[1] - motion.right * times) % self.size < side
        return down[:, :, None] & right[:, None, :]
