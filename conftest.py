"""Settings for every process that runs tests or examples."""

import getpass
import os
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # of processes that tests start, too
if "ATEN_CPU_CAPABILITY" in os.environ:
    # PyTorch finds what it compiled with other vector instructions, and then cannot build it.
    name = f"torchinductor_{getpass.getuser()}_{os.environ['ATEN_CPU_CAPABILITY']}"
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(Path(tempfile.gettempdir(), name)))

import torch  # reads these settings

torch.set_num_threads(1)  # tensors are tiny here: a second thread costs more than it brings
