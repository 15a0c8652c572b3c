"""Texts of token policies, as gates and calibration files name them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from eventful.policies.keep_all import KeepAll
from eventful.policies.policy import Named, Policy
from eventful.policies.threshold import Threshold
from eventful.policies.top import TopFraction, TopR

TOKEN_POLICIES: tuple[type[Policy], ...] = (TopR, TopFraction, Threshold, KeepAll)


def by_name(kinds: Iterable[type[Named]]) -> Mapping[str, type[Named]]:
    """The kinds of policies by what stands before the colon.

    Example:
        >>> by_name([TopR])
        {'top': <class 'eventful.policies.top.TopR'>}
    """
    return {text.partition(":")[0]: kind for kind in kinds for text in kind.texts}


def examples(kinds: Iterable[type[Named]]) -> str:
    """List example texts of kinds of policies.

    Example:
        >>> examples([TopR, KeepAll])
        'top:256, all'
    """
    return ", ".join(text for kind in kinds for text in kind.texts)


def read_token_policy(text: str) -> Policy:
    """Read a policy that any gate can have.

    Raises:
        ValueError: The text names none, or its number is out of range.

    Example:
        >>> read_token_policy("top:5")
        TopR(r=5)
    """
    name = text.partition(":")[0]
    kind = by_name(TOKEN_POLICIES).get(name)
    if kind is None:
        raise ValueError(
            f"policy {text!r} is not understood; write one of {examples(TOKEN_POLICIES)}"
        )
    return read_as(kind, text)  # type: ignore[return-value]


def read_as(kind: type[Named], text: str) -> Named:
    """Read a text whose name is of a kind of policy.

    Raises:
        ValueError: Its number is none, or out of range; the message shows right ones.
    """
    name, colon, number = text.partition(":")
    try:
        if colon and not number:
            raise ValueError("nothing stands after the colon")
        return kind.from_text(name, number)
    except ValueError as error:
        raise ValueError(
            f"policy {text!r} is not understood ({error}); write {examples([kind])}"
        ) from None
