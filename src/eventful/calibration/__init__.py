"""Policies of their own for all gates, from a short clip: a target error or cost at its least.

The paper notes that one threshold for all gates serves them badly, since their errors are of
different scales. `calibrate` measures on a clip what each gate's error is worth, divides a budget
by it, and tests the result; `write` keeps it in a file that policies are read from.
"""

from eventful.calibration.allocation import Allocation
from eventful.calibration.files import check_writable, content, write
from eventful.calibration.method import KINDS, Calibration, Survey, calibrate
from eventful.calibration.sensitivity import Sensitivity
from eventful.calibration.target import Target
from eventful.calibration.trials import Figures, Trial, Trials

__all__ = [
    "KINDS",
    "Allocation",
    "Calibration",
    "Figures",
    "Sensitivity",
    "Survey",
    "Target",
    "Trial",
    "Trials",
    "calibrate",
    "check_writable",
    "content",
    "write",
]
