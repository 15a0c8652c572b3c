"""The named cases of every suite, and how they are chosen."""

from __future__ import annotations

from collections.abc import Sequence as Sequences
from difflib import get_close_matches
from fnmatch import fnmatchcase

from eventful.bench.attention import AttentionCase
from eventful.bench.case import Case
from eventful.bench.frames import FIRST, STEADY, WITH_FIRST, FramesCase
from eventful.bench.memory import MemoryCase
from eventful.bench.sequences import random_sequence, recorded_sequence
from eventful.bench.subjects import Subject

SUITES = ("attention", "block", "backbone", "memory", "first-frame", "streams")
_SHARES = (64, 32, 16, 8, 4, 2)  # N / M of attention alone
_PARTS = (16, 8, 4)  # N / r of models

VIT_S14_518 = Subject("vit_s14-518", "vit_small_patch14_dinov2", 518, 14)
VIT_S14_1036 = Subject("vit_s14-1036", "vit_small_patch14_dinov2", 1036, 14)
VIT_B16_224 = Subject("vit_b16-224", "vit_base_patch16_224", 224)
VIT_B16_384 = Subject("vit_b16-384", "vit_base_patch16_224", 384)
VIT_B16_1024 = Subject("vit_b16-1024", "vit_base_patch16_224", 1024)
DINOV3_S16_512 = Subject("dinov3_s16-512", "vit_small_patch16_dinov3", 512)
SAM_B_672 = Subject("sam_b-672", "samvit_base_patch16", 672)
SAM_B_1024 = Subject("sam_b-1024", "samvit_base_patch16", 1024)
BACKBONES = (
    VIT_S14_518,
    VIT_S14_1036,
    VIT_B16_224,
    VIT_B16_384,
    VIT_B16_1024,
    DINOV3_S16_512,
    SAM_B_672,
    SAM_B_1024,
)
BLOCKS = (
    VIT_S14_518.alone(0, "vit-s-518", 384),
    VIT_S14_1036.alone(0, "vit-s-1036", 384),
    VIT_B16_224.alone(0, "vit-b-224", 768),
    VIT_B16_384.alone(0, "vit-b-384", 768),
    VIT_B16_1024.alone(0, "vit-b-1024", 768),
    SAM_B_672.alone(0, "sam-b-672-window", 768),
    SAM_B_672.alone(2, "sam-b-672-global", 768),
    SAM_B_1024.alone(0, "sam-b-1024-window", 768),
    SAM_B_1024.alone(2, "sam-b-1024-global", 768),
)
QUICK_VIT = Subject("test_vit-64", "test_vit", 64)
QUICK_SAM = Subject(
    "small_sam-64",
    "samvit_base_patch16",
    64,
    options={
        "depth": 2,
        "embed_dim": 32,
        "num_heads": 2,
        "window_size": 3,
        "global_attn_indexes": (1,),
    },
)


def cases(suite: str, quick: bool = False) -> list[Case]:
    """List a suite's cases, or all suites' for "all".

    Args:
        suite: One of `SUITES`, or "all".
        quick: Small sizes instead, of seconds each.

    Raises:
        ValueError: There is no such suite.

    Example:
        >>> [case.name for case in cases("streams", quick=True)]
        ['streams/test_vit-64-r4-x1', 'streams/test_vit-64-r4-x2']
    """
    if suite not in (*SUITES, "all"):
        raise ValueError(f"SUITE must be one of {', '.join(SUITES)} or all, got {suite!r}")
    chosen = SUITES if suite == "all" else (suite,)
    table = _quick_cases() if quick else _cases()
    return [case for name in chosen for case in table[name]]


def select(among: list[Case], patterns: Sequences[str]) -> list[Case]:
    """Keep the cases whose name a pattern matches, with or without the suite in front.

    Raises:
        ValueError: A pattern matches none; near names are given.
    """
    for pattern in patterns:
        if not any(_matches(case, pattern) for case in among):
            raise ValueError(_no_match(pattern, [case.name for case in among]))
    return [case for case in among if not patterns or any(_matches(case, p) for p in patterns)]


def _matches(case: Case, pattern: str) -> bool:
    return fnmatchcase(case.name, pattern) or fnmatchcase(case.name.partition("/")[2], pattern)


def _no_match(pattern: str, names: list[str]) -> str:
    short = {name.partition("/")[2]: name for name in names}
    near = get_close_matches(pattern, names, n=5, cutoff=0.5)
    near += [short[found] for found in get_close_matches(pattern, short, n=5, cutoff=0.5)]
    near = list(dict.fromkeys(near or names))[:5]
    return (
        f"no case matches {pattern!r}; near names: {', '.join(near)}; --list shows all "
        f"{len(names)}, and * stands for anything"
    )


def _cases() -> dict[str, list[Case]]:
    return {
        "attention": [
            AttentionCase(tokens, tokens // share, kind, source)
            for tokens in (196, 1369, 1764, 4096)
            for share in _SHARES
            for kind, source in (("random", random_sequence), ("recorded", recorded_sequence))
        ],
        "block": _frames("block", BLOCKS),
        "backbone": _frames("backbone", BACKBONES),
        "memory": [MemoryCase(s, s.tokens // 8) for s in BACKBONES],
        "first-frame": [FramesCase("first-frame", s, s.tokens // 8, 1, FIRST) for s in BACKBONES],
        "streams": [
            FramesCase("streams", s, s.tokens // part, batch)
            for s, part in ((VIT_S14_518, 8), (VIT_B16_224, 4))
            for batch in (1, 4, 16)
        ],
    }


def _frames(suite: str, subjects: tuple[Subject, ...]) -> list[Case]:
    """Every subject at every share; encoders of SAM also with their first frame."""
    whole = suite == "backbone"
    return [
        FramesCase(
            suite,
            subject,
            subject.tokens // part,
            contenders=WITH_FIRST if whole and "sam" in subject.label else STEADY,
            profile=whole,
        )
        for subject in subjects
        for part in _PARTS
    ]


def _quick_cases() -> dict[str, list[Case]]:
    block = QUICK_VIT.alone(0, "test-vit-64", 64)
    windows, whole = (
        QUICK_SAM.alone(i, f"small-sam-64-{kind}", 32)
        for i, kind in enumerate(("window", "global"))
    )
    return {
        "attention": [
            AttentionCase(64, 8, "random", random_sequence),
            AttentionCase(64, 32, "random", random_sequence),
            AttentionCase(16, 4, "recorded", recorded_sequence),
        ],
        "block": [FramesCase("block", s, 4) for s in (block, windows, whole)],
        "backbone": [
            FramesCase("backbone", QUICK_VIT, 4, profile=True),
            FramesCase("backbone", QUICK_SAM, 4, 1, WITH_FIRST, True),
        ],
        "memory": [MemoryCase(QUICK_VIT, 4)],
        "first-frame": [FramesCase("first-frame", QUICK_VIT, 4, 1, FIRST)],
        "streams": [FramesCase("streams", QUICK_VIT, 4, batch) for batch in (1, 2)],
    }
