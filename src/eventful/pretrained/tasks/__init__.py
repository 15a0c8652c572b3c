"""What models give and how two outputs differ, a file a task."""

from collections.abc import Mapping

from eventful.pretrained.tasks.boxes import Boxes
from eventful.pretrained.tasks.depth import Depth
from eventful.pretrained.tasks.features import Features
from eventful.pretrained.tasks.masks import Masks
from eventful.pretrained.tasks.pose import Pose
from eventful.pretrained.tasks.task import Task

TASKS: Mapping[str, type[Task]] = {
    task.name: task for task in (Depth, Pose, Boxes, Masks, Features)
}
