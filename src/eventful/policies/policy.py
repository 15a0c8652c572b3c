"""What a policy is: of tokens, which a gate lets through, or of frames, what each is given."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from eventful.ops import Index


class Named:
    """A policy with a text form, `name:number`, that `eventful.parse` reads and `str` writes.

    Attributes:
        texts: Example texts, each with what it does in a few words, for help and messages.
    """

    texts: ClassVar[Mapping[str, str]] = {}

    @classmethod
    def from_text(cls, name: str, number: str) -> Named:
        """Build the policy from what stands before and after the colon.

        Raises:
            ValueError: The number is none, or out of range.
        """
        raise ValueError(f"{cls.__name__} has no text form; {name}:{number} cannot be read")


class Policy(Named, ABC):
    """Turns a gate's errors into an index set (paper, section 4.3).

    A policy of your own is a frozen dataclass with this one method.
    """

    @abstractmethod
    def select(self, error: Tensor) -> Index:
        """Choose the tokens to update.

        Args:
            error: (batch, tokens) L2 norm of each token's error e = u - c. Prefix tokens that are
                always updated are not among them.

        Returns:
            The index set over these tokens. Rows may differ in number.

        Raises:
            ValueError: The policy does not fit this number of tokens.
        """

    def count(self, tokens: int) -> int | None:
        """How many of so many tokens are updated, whatever their errors; None if it depends."""
        return None


class FramePolicy(Named, ABC):
    """Says what each frame is given: a dense pass, some tokens, or what motion carries along.

    Attributes:
        waits: Whether frames can wait for a dense frame after them, to be carried from both sides.
    """

    waits: ClassVar[bool] = False


def is_number(kind: type, value: object) -> bool:
    """Whether a value is a number of a kind; True and False are none.

    Example:
        >>> is_number(int, 3), is_number(int, True)
        (True, False)
    """
    return isinstance(value, kind) and not isinstance(value, bool)


def whole(text: str) -> int:
    """Read a whole number.

    Raises:
        ValueError: It is none.

    Example:
        >>> whole("5")
        5
    """
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"expected a whole number, got {text!r}") from None


def real(text: str) -> float:
    """Read a number.

    Raises:
        ValueError: It is none.

    Example:
        >>> real("0.25")
        0.25
    """
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"expected a number, got {text!r}") from None
