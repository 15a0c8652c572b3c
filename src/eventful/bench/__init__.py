"""Side-by-side timings: dense and eventful contenders, interleaved in one process.

A case tests its contenders before it times them; one that fails has no speed. Every figure comes
with the error of the same run. `eventful bench` runs suites of cases; in Python:

    >>> import torch
    >>> from eventful.bench import Setup, cases, measure, select
    >>> case, = select(cases("attention", quick=True), ["N64-M8/random"])
    >>> measure(case, Setup(torch.device("cpu"), repeats=2, compile=False))["status"]
    'ok'
"""

from eventful.bench.case import Case, Report, Row, Setup, Spread, UnavailableError, UnequalError
from eventful.bench.registry import SUITES, cases, select
from eventful.bench.suite import Results, measure, run

__all__ = [
    "SUITES",
    "Case",
    "Report",
    "Results",
    "Row",
    "Setup",
    "Spread",
    "UnavailableError",
    "UnequalError",
    "cases",
    "measure",
    "run",
    "select",
]
