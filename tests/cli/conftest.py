"""How the tests call the command, and small weights and clips for it."""

import os
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import timm
import torch
from typer.testing import CliRunner

import eventful
from eventful.cli.app import app


@pytest.fixture(scope="session")
def invoke():
    """Run the command in this process: `invoke("run", "--size", 64)`."""

    def invoke(*arguments):
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    return invoke


@pytest.fixture(scope="session")
def command():
    """The command for a process of its own, and its environment."""
    source = str(Path(eventful.__file__).parents[1])
    environment = os.environ | {"PYTHONPATH": source, "OMP_NUM_THREADS": "1"}
    return [sys.executable, "-c", "from eventful.cli import main; main()"], environment


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    """Random weights of timm's `test_vit` (six blocks of 64 channels, patch 16) in a .pth file."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "test_vit.pth"
    torch.save(timm.create_model("test_vit").state_dict(), path)
    return path


@pytest.fixture(scope="session")
def small(weights):
    """Options that make a run of the command quick."""
    return ("--model", "timm:test_vit", "--weights", weights, "--size", 64)


def write_clip(path, frames=20, size=(48, 32)):
    """A bright square over noise, some of it new on every frame; the file's index in front."""
    width, height = size
    noise = np.random.default_rng(0).integers(0, 60, (frames, height, width, 3), dtype=np.uint8)
    with av.open(str(path), "w", container_options={"movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "10"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for t in range(frames):
            pixels = noise[0] + noise[t]
            pixels[t % 24 : t % 24 + 8, 2 * t % 40 : 2 * t % 40 + 8] = 250
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return path


@pytest.fixture(scope="session")
def clip_file(tmp_path_factory):
    """A clip of 20 frames."""
    return write_clip(tmp_path_factory.mktemp("clips") / "square.mp4")


def frames_of(path):
    """Decode a whole video: a list of (height, width, 3) arrays."""
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


@pytest.fixture(scope="session")
def decode():
    return frames_of
