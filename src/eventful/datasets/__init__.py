"""Video data sets in the layouts that they are distributed in, one video at a time.

A data set is a sequence of videos. A stateful model is reset before each of them. What is broken
in the files is skipped and listed in `problems`, or raised with `strict=True`. Needs the extra
`datasets`.
"""

try:
    import av as _av  # noqa: F401
    from PIL import Image as _Image  # noqa: F401
except ImportError as error:
    raise ImportError(
        f"eventful.datasets needs {'PyAV' if error.name == 'av' else 'Pillow'}; "
        f"pip install 'eventful-transformers[datasets]'"
    ) from error

from eventful.datasets.cdnet import CDnet, Motion
from eventful.datasets.clips import Action, Clip, View
from eventful.datasets.davis import Davis
from eventful.datasets.epic import EPIC_VIEWS, EpicKitchens
from eventful.datasets.frames import Sample, Video, Videos
from eventful.datasets.imagenet_vid import ImageNetVID
from eventful.datasets.kinetics import KINETICS_VIEWS, Kinetics
from eventful.datasets.mot import Mot, MotVideo
from eventful.datasets.problems import Problem, Problems
from eventful.datasets.views import Views
from eventful.datasets.voc import VID_CLASSES, Boxes

__all__ = [
    "EPIC_VIEWS",
    "KINETICS_VIEWS",
    "VID_CLASSES",
    "Action",
    "Boxes",
    "CDnet",
    "Clip",
    "Davis",
    "EpicKitchens",
    "ImageNetVID",
    "Kinetics",
    "Mot",
    "MotVideo",
    "Motion",
    "Problem",
    "Problems",
    "Sample",
    "Video",
    "Videos",
    "View",
    "Views",
]
