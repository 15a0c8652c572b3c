"""The paper's tables of operations and accuracy, as data (arXiv 2308.13494v1 with supplement).

Tables 1 and C to E are of the experiments in the paper, A and B of its supplement's own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

Variant = Literal[
    "dense",
    "full",
    "token-wise",
    "stgt",
    "spatial",
    "spatiotemporal",
    "threshold",
    "incremental",
]

VITDET = "vitdet_b_vid"
EPIC = "vivit_b_epic"
KINETICS = "vivit_b_kinetics"


@dataclass(frozen=True)
class Entry:
    """A row of a table of the paper, or a further one beside it.

    Attributes:
        table: "1", "A", "B", "C", "D" or "E".
        model: Name of the model in `eventful.models`.
        size: Side of the square input in pixels.
        variant: "dense"; "full" (the paper's method); "token-wise" (attention in full); "stgt"
            (that baseline's gate, attention in full); "spatial" (dense, keys and values pooled
            2 x 2 in global blocks); "spatiotemporal" (full, pooled likewise); "threshold" (full,
            with a threshold for a policy); "incremental" (ours, not in the paper).
        operations: As the paper has them, in 10^9 a frame (ViTDet) or 10^12 a video (ViViT); None
            in further rows.
        accuracy: mAP50 (ViTDet) or top-1 (ViViT), in percent.
        r: Tokens updated at each gate; None where there is no such number.
        tuned_r: The r that the temporal model was tuned at (ViViT).
        threshold: h of the threshold policy.

    Example:
        >>> entries("C")[1]  # doctest: +NORMALIZE_WHITESPACE
        Entry(table='C', model='vitdet_b_vid', size=1024, variant='full', operations=294.9,
              accuracy=82.94, r=2048, tuned_r=None, threshold=None)
    """

    table: str
    model: str
    size: int
    variant: Variant
    operations: float | None
    accuracy: float
    r: int | None = None
    tuned_r: int | None = None
    threshold: float | None = None

    @property
    def unit(self) -> float:
        """What `operations` are counted in: 10^9 or 10^12."""
        return 1e9 if self.model == VITDET else 1e12

    @property
    def data_dependent(self) -> bool:
        """Whether the count depends on which tokens change, and not on their number alone."""
        return self.variant in ("spatiotemporal", "threshold", "incremental")

    @property
    def label(self) -> str:
        """The variant with what sets rows of equal r apart."""
        if self.threshold is not None:
            return f"{self.variant}, h = {self.threshold}"
        tuned = self.tuned_r is not None and self.model == EPIC
        return f"{self.variant}, tuned at {self.tuned_r}" if tuned else self.variant


_Figures = tuple[float, float]  # operations and accuracy

_DENSE: dict[int, _Figures] = {1024: (467.4, 82.93), 672: (174.5, 82.28)}
_R = {1024: (2048, 1536, 1024, 768, 512, 256), 672: (1024, 768, 512, 384, 256, 128)}

_C: dict[int, dict[Variant, tuple[_Figures, ...]]] = {
    1024: {
        "full": (
            (294.9, 82.94),
            (225.9, 82.79),
            (156.8, 82.00),
            (122.3, 81.25),
            (87.8, 79.38),
            (53.3, 73.29),
        ),
        "token-wise": (
            (294.1, 82.97),
            (250.7, 82.93),
            (207.3, 82.58),
            (185.7, 82.08),
            (164.0, 81.11),
            (142.3, 76.60),
        ),
        "stgt": (
            (294.1, 82.92),
            (250.7, 82.60),
            (207.3, 81.25),
            (185.7, 79.81),
            (164.0, 76.70),
            (142.3, 68.73),
        ),
    },
    672: {
        "full": (
            (115.1, 82.23),
            (87.9, 82.21),
            (60.7, 81.84),
            (47.1, 81.43),
            (33.5, 80.16),
            (19.9, 75.19),
        ),
        "token-wise": (
            (111.9, 82.28),
            (90.2, 82.25),
            (68.5, 82.01),
            (57.7, 81.64),
            (46.8, 80.76),
            (36.0, 76.96),
        ),
        "stgt": (
            (111.9, 82.28),
            (90.2, 81.95),
            (68.5, 80.45),
            (57.7, 78.71),
            (46.8, 75.57),
            (36.0, 68.13),
        ),
    },
}

# Keys and values pooled: dense first, then by r.
_POOLED: dict[str, tuple[int, _Figures, tuple[_Figures, ...]]] = {
    "1": (
        1024,
        (388.1, 80.15),
        (
            (217.0, 80.14),
            (169.3, 80.07),
            (121.0, 79.50),
            (96.3, 78.69),
            (70.9, 76.96),
            (44.5, 71.35),
        ),
    ),
    "E": (
        672,
        (159.7, 79.86),
        (
            (98.2, 79.85),
            (75.5, 79.81),
            (52.8, 79.47),
            (41.4, 79.02),
            (29.8, 77.90),
            (18.0, 73.40),
        ),
    ),
}

_B = ((0.2, 431.8, 83.00), (1.0, 294.1, 82.75), (5.0, 133.5, 78.11))

_D = (  # tuned r, tested r, operations, accuracy
    (200, 280, 5.49, 66.77),
    (200, 240, 4.77, 66.53),
    (200, 200, 4.05, 66.02),
    (200, 160, 3.33, 64.72),
    (200, 120, 2.62, 62.23),
    (100, 140, 2.98, 65.52),
    (100, 120, 2.62, 64.51),
    (100, 100, 2.26, 62.91),
    (100, 80, 1.90, 60.76),
    (100, 60, 1.54, 59.13),
    (50, 70, 1.72, 61.27),
    (50, 60, 1.54, 60.60),
    (50, 50, 1.36, 59.91),
    (50, 40, 1.18, 58.90),
    (50, 30, 1.00, 58.05),
)

_A = ((96, 1.814, 77.62), (48, 1.016, 75.88), (24, 0.618, 75.16))


def _table_c(size: int) -> list[Entry]:
    found = [Entry("C", VITDET, size, "dense", *_DENSE[size])]
    for variant, figures in _C[size].items():
        for r, (operations, accuracy) in zip(_R[size], figures, strict=True):
            found.append(Entry("C", VITDET, size, variant, operations, accuracy, r))
    return found


def _pooled(table: str) -> list[Entry]:
    size, dense, figures = _POOLED[table]
    found = [
        Entry(table, VITDET, size, "dense", *_DENSE[size]),
        Entry(table, VITDET, size, "spatial", *dense),
    ]
    for r, (operations, accuracy) in zip(_R[size], figures, strict=True):
        found.append(Entry(table, VITDET, size, "spatiotemporal", operations, accuracy, r))
    return found


def _table_b() -> list[Entry]:
    dense = Entry("B", VITDET, 1024, "dense", *_DENSE[1024])
    return [dense] + [
        Entry("B", VITDET, 1024, "threshold", operations, accuracy, threshold=h)
        for h, operations, accuracy in _B
    ]


def _table_d() -> list[Entry]:
    return [Entry("D", EPIC, 320, "dense", 7.12, 67.14)] + [
        Entry("D", EPIC, 320, "full", operations, accuracy, r, tuned)
        for tuned, r, operations, accuracy in _D
    ]


def _table_a() -> list[Entry]:
    return [Entry("A", KINETICS, 224, "dense", 3.360, 79.06)] + [
        Entry("A", KINETICS, 224, "full", operations, accuracy, r, r)
        for r, operations, accuracy in _A
    ]


ENTRIES: tuple[Entry, ...] = (
    *_table_c(1024),
    *_table_c(672),
    *_pooled("1"),
    *_pooled("E"),
    *_table_b(),
    *_table_d(),
    *_table_a(),
)

# Incremental attention gives the outputs of the token-wise rows, so their accuracies are its own.
FURTHER: tuple[Entry, ...] = tuple(
    replace(entry, variant="incremental", operations=None)
    for entry in ENTRIES
    if entry.variant == "token-wise"
)

TABLES: tuple[str, ...] = tuple(sorted({entry.table for entry in ENTRIES}))


def entries(table: str) -> tuple[Entry, ...]:
    """List the rows of a table, the further ones behind the paper's own.

    Args:
        table: "1", "A", "B", "C", "D" or "E".

    Raises:
        ValueError: There is no such table.

    Example:
        >>> [entry.variant for entry in entries("B")]
        ['dense', 'threshold', 'threshold', 'threshold']
    """
    if table not in TABLES:
        raise ValueError(f"there is no table {table!r}; there are {', '.join(TABLES)}")
    return tuple(entry for entry in (*ENTRIES, *FURTHER) if entry.table == table)
