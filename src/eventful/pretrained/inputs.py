"""Frames as the model's own processor makes them, and what else the model takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from eventful.pretrained.loading import FRAMES, Loaded, device_of, tokenizer
from eventful.stream.bound import now


@dataclass(frozen=True)
class Extras:
    """What a model takes beside frames.

    Attributes:
        texts: What an open-vocabulary model looks for.
        point: x and y in pixels of the video, which a model that is prompted segments; None for
            the middle of the frame.
    """

    texts: Sequence[str] = ()
    point: tuple[float, float] | None = None


class Given(NamedTuple):
    """A frame as a stream takes it.

    Attributes:
        frame: The model's main input.
        inputs: Its other inputs, by name.
        picture: uint8 (height, width, 3), what of the video the model sees.
    """

    frame: Tensor
    inputs: Mapping[str, Any]
    picture: np.ndarray


class Inputs:
    """Turns frames of a video into inputs of a model.

    Args:
        loaded: The model.
        extras: What else it takes.

    Raises:
        ValueError: It takes text and there is none, the other way around, or its processor says
            no mean.
    """

    def __init__(self, loaded: Loaded, extras: Extras) -> None:
        self._loaded, self._extras = loaded, extras
        self._processor: Any = loaded.processor
        self._mean, self._std = self._normalization()
        self._text = self._tokens()

    def _normalization(self) -> tuple[Tensor, Tensor]:
        processor = self._processor
        mean, std = getattr(processor, "image_mean", None), getattr(processor, "image_std", None)
        if not getattr(processor, "do_normalize", True):
            mean, std = [0.0], [1.0]
        if mean is None or std is None:
            raise ValueError(
                f"the image processor of {self._loaded.name} says no image_mean and image_std; "
                f"add them to its preprocessor_config.json, or do_normalize: false if frames are "
                f"taken as they are"
            )
        size = 1.0 if getattr(processor, "do_rescale", True) else 255.0
        found = torch.tensor(mean) / size, torch.tensor(std) / size
        return found[0].view(1, -1, 1, 1), found[1].view(1, -1, 1, 1)

    def _tokens(self) -> dict[str, Tensor]:
        loaded, texts = self._loaded, list(self._extras.texts)
        if "input_ids" not in loaded.takes or loaded.method != "forward":
            if texts:
                raise ValueError(
                    f"{loaded.name} takes no text as it is run here ({loaded.task.name}); leave "
                    f"--text out"
                )
            return {}
        if not texts:
            raise ValueError(f"{loaded.name} looks for what a text says; give --text 'a dog'")
        if loaded.task.name == "segment" and len(texts) > 1:
            raise ValueError("one --text at a time: the model makes a mask of one text")
        made = tokenizer(loaded.name)(texts, padding="max_length", return_tensors="pt")
        names = loaded.takes & {"input_ids", "attention_mask"}
        return {name: made[name].to(device_of(loaded.model)) for name in names}

    @property
    def name(self) -> str:
        """The name of the frame among the model's inputs."""
        return next((name for name in FRAMES if name in self._loaded.takes), FRAMES[0])

    def pixels_of(self, frame: Tensor) -> Callable[[Tensor], Tensor] | None:
        """What turns such frames into pictures; None for clips and patches, which are none."""
        return self.pixels if frame.ndim == 4 else None

    def pixels(self, frame: Tensor) -> Tensor:
        """A prepared frame as a picture in [0, 1]."""
        mean, std = self._mean.to(frame), self._std.to(frame)
        return (frame * std + mean).clamp(0, 1)

    def __call__(self, frames: Sequence[np.ndarray]) -> Given:
        """Prepare a frame, or a clip of them.

        Args:
            frames: uint8 RGB (height, width, 3), as many as the model takes at once.

        Raises:
            ValueError: The processor fails on it, or pads it so that tokens would be hidden.
        """
        made = self._made(frames)
        name = next((name for name in FRAMES if name in made), None)
        if name is None:
            raise ValueError(f"the processor of {self._loaded.name} makes no pixel_values")
        frame = made.pop(name)
        inputs = {key: value for key, value in made.items() if key in self._loaded.takes}
        inputs = self._unpadded(inputs)
        inputs |= self._text | self._prompt(made, frame, frames[0])
        if "skip_predictor" in self._loaded.takes:
            inputs["skip_predictor"] = True
        return Given(frame, inputs, self._picture(frame, frames[0]))

    @torch.inference_mode()
    def run(self, given: Given) -> tuple[Any, float]:
        """What the model itself gives without a stream, and its time in milliseconds."""
        model = self._loaded.model
        call = model if self._loaded.method == "forward" else getattr(model, self._loaded.method)
        weight = next(model.parameters())
        frame = given.frame.to(weight.device, weight.dtype)
        start = now(frame)
        output = call(**{self.name: frame}, **given.inputs)
        return output, 1e3 * (now(frame) - start)

    def _made(self, frames: Sequence[np.ndarray], **options: Any) -> dict[str, Any]:
        processor, clip = self._processor, self._loaded.clip
        images: Any = list(frames) if clip > 1 else frames[0]
        if "VitPose" in type(processor).__name__:
            height, width = frames[0].shape[:2]
            options["boxes"] = [[[0.0, 0.0, float(width), float(height)]]]
        try:
            if "VideoProcessor" in type(processor).__name__:
                return dict(processor(videos=[images], return_tensors="pt", **options))
            made = dict(processor(images, return_tensors="pt", **options))
        except (ValueError, TypeError, RuntimeError, AttributeError) as error:
            height, width = frames[0].shape[:2]
            raise ValueError(
                f"the image processor of {self._loaded.name} fails on a frame of {width} x "
                f"{height} pixels: {error}"
            ) from error
        mask = made.get("pixel_attention_mask")
        if mask is not None and mask.ndim == 2 and not mask.all() and not options:
            # NaFlex: as many patches as the frame has, and none to fill up with
            return self._made(frames, max_num_patches=int(mask.sum()))
        return made

    def _unpadded(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Leave masks that hide nothing to the model; refuse the others."""
        for name in ("pixel_mask", "pixel_attention_mask"):
            mask = inputs.get(name)
            if isinstance(mask, Tensor) and not mask.all():
                raise ValueError(
                    f"the image processor of {self._loaded.name} pads frames and hides the "
                    f"padding ({name}), which eventful blocks cannot; turn its padding off "
                    f"(do_pad: false in preprocessor_config.json)"
                )
        device = device_of(self._loaded.model)
        inputs = {key: x.to(device) if isinstance(x, Tensor) else x for key, x in inputs.items()}
        inputs.pop("pixel_mask", None)  # models make one that hides nothing
        return inputs

    def _prompt(self, made: Mapping[str, Any], frame: Tensor, image: np.ndarray) -> dict[str, Any]:
        """The point that a model which is prompted segments."""
        loaded = self._loaded
        if "input_points" not in loaded.takes or loaded.method != "forward":
            if self._extras.point is not None:
                raise ValueError(f"{loaded.name} is given no point; leave --point out")
            return {}
        height, width = image.shape[:2]
        x, y = self._extras.point or (width / 2, height / 2)
        if not (0 <= x < width and 0 <= y < height):
            raise ValueError(f"--point {x:g},{y:g} lies outside the frame of {width} x {height}")
        inner = made.get("reshaped_input_sizes", torch.tensor([frame.shape[-2:]]))[0].tolist()
        place = [x * inner[1] / width, y * inner[0] / height]
        return {"input_points": torch.tensor([[[place]]], device=device_of(loaded.model))}

    def _picture(self, frame: Tensor, image: np.ndarray) -> np.ndarray:
        """What the model sees; where its input is no picture, the video's frame."""
        if frame.ndim != 4:
            return image
        pixels = self.pixels(frame)[0].permute(1, 2, 0)
        return (255 * pixels).round().to(torch.uint8).cpu().numpy()
