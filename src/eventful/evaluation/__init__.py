"""Quality against cost of the paper's models on their data sets; needs the extra `eval`.

A task (`TASKS`) is a model on a data set with its score, a setting a variant of the method with a
policy. `evaluate` runs settings over the videos of a task, one video at a time, and goes on where a
run was ended.
"""

from eventful.evaluation.evaluate import Evaluation, Progress, evaluate
from eventful.evaluation.reports.files import report, write_report
from eventful.evaluation.reports.sheets import sheet
from eventful.evaluation.runners.frames import Runner, Step
from eventful.evaluation.scores import SettingReport
from eventful.evaluation.settings import VARIANTS, Setting, combined
from eventful.evaluation.store import Result, Store
from eventful.evaluation.task import Task
from eventful.evaluation.tasks.actions import ActionTask
from eventful.evaluation.tasks.registry import TASKS, Choice, TaskKind, task_kind
from eventful.evaluation.tasks.token_task import TokenTask

__all__ = [
    "TASKS",
    "VARIANTS",
    "ActionTask",
    "Choice",
    "Evaluation",
    "Progress",
    "Result",
    "Runner",
    "Setting",
    "SettingReport",
    "Step",
    "Store",
    "Task",
    "TaskKind",
    "TokenTask",
    "combined",
    "evaluate",
    "report",
    "sheet",
    "task_kind",
    "write_report",
]
