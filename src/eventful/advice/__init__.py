"""What to expect of a model on a video, before anything is built."""

from eventful.advice.advising import ERRORS, Advice, Runs, advise
from eventful.advice.expectation import Expectation, Range
from eventful.advice.footage import Footage
from eventful.advice.replay import Price
from eventful.advice.skipping import Skipping
from eventful.advice.verdict import Verdict

__all__ = [
    "ERRORS",
    "Advice",
    "Expectation",
    "Footage",
    "Price",
    "Range",
    "Runs",
    "Skipping",
    "Verdict",
    "advise",
]
