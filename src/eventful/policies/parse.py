"""One reader for the text of every policy."""

from __future__ import annotations

import re

from eventful.policies.auto import Auto
from eventful.policies.per_gate import PerGate
from eventful.policies.policy import FramePolicy, Named, Policy
from eventful.policies.reuse import Carry, Skip
from eventful.policies.text import TOKEN_POLICIES, by_name, examples, read_as

FRAME_POLICIES: tuple[type[FramePolicy], ...] = (Auto, Carry, Skip)
POLICIES: tuple[type[Named], ...] = (*FRAME_POLICIES, *TOKEN_POLICIES)

_FILE = re.compile(r"(?P<path>.+\.json)(@(?P<digest>\w+))?")


def parse(text: str) -> FramePolicy | Policy:
    """Read a policy from its text form, the inverse of `str(policy)`.

    Args:
        text: A frame policy (`error:0.15`, `auto:0.2`, `time:0.2`, `latency:40`, `carry:5`,
            `skip:5`), a token policy (`top:256`, `fraction:0.25`, `threshold:1.0`, `all`), or the
            path of a .json file that `eventful calibrate` has written. After the path `@` and a
            digest may stand, as `str(policy)` gives it: the file must then hold what it held.

    Raises:
        ValueError: The text is none of these, its number is out of range, or the file is no
            calibration or not the one of the digest.
        FileNotFoundError: There is no such file.

    Example:
        >>> parse("fraction:0.25"), parse("carry:5")
        (TopFraction(f=0.25), Carry(every=5, phase=0))
    """
    file = _FILE.fullmatch(text)
    if file is not None:
        policy = PerGate.read(file["path"])
        if file["digest"] not in (None, policy.digest):
            raise ValueError(f"{file['path']} has changed: it is {policy} now, expected {text}")
        return policy
    kind = by_name(POLICIES).get(text.partition(":")[0])
    if kind is None:
        raise ValueError(
            f"policy {text!r} is not understood; write one of {examples(POLICIES)}, or name a "
            f".json file that `eventful calibrate` has written"
        )
    return read_as(kind, text)  # type: ignore[return-value]


def parse_tokens(text: str) -> Policy:
    """Read a token policy, where frame policies have no place.

    Raises:
        ValueError: The text is none, or that of a frame policy.
        FileNotFoundError: It names a file that is not there.

    Example:
        >>> parse_tokens("top:5")
        TopR(r=5)
    """
    policy = parse(text)
    if not isinstance(policy, Policy):
        raise ValueError(
            f"{text!r} decides about frames; here goes one of {examples(TOKEN_POLICIES)}"
        )
    return policy
