"""Reading checkpoint files: every format, damage, and files that would run code."""

import gzip
import os
import pickle
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from eventful.models.weights import read_checkpoint

ARRAYS = {
    "layer.weight": np.arange(15, dtype=np.float32).reshape(3, 5),
    "layer.bias": np.asfortranarray(np.arange(6, dtype=np.float64).reshape(2, 3)),
    "scale": np.array(7, dtype=np.float16),
}
TENSORS = {key: torch.from_numpy(array.copy()) for key, array in ARRAYS.items()}


def same(checkpoint):
    assert list(checkpoint.state) == list(ARRAYS)
    for key, array in ARRAYS.items():
        tensor = checkpoint.state[key]
        assert tensor.dtype == TENSORS[key].dtype
        assert np.array_equal(tensor.numpy(), array)
        tensor.add_(1)  # it may be written to
    return True


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_of_arrays(tmp_path, protocol):
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps({"model": OrderedDict(ARRAYS)}, protocol=protocol))
    assert same(read_checkpoint(path))


def test_a_pickle_that_an_older_or_newer_numpy_has_made(tmp_path):
    content = pickle.dumps({"model": ARRAYS, "lr": np.float64(0.1)}, protocol=2)
    for theirs, ours in ((b"numpy.core", b"numpy._core"), (b"numpy._core", b"numpy.core")):
        path = tmp_path / "model.pkl"
        path.write_bytes(content.replace(theirs, ours))
        assert same(read_checkpoint(path))


def test_a_pickle_of_python_2(tmp_path):
    """Its strings are bytes, and latin-1 reads arrays out of them."""
    path = tmp_path / "model.pkl"
    path.write_bytes(b"\x80\x02}U\x05model}U\x06weightcnumpy.core.multiarray\n_reconstruct\n"
                     b"cnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01K\x02\x85cnumpy\ndtype\n"
                     b"U\x02f4K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xff"
                     b"K\x00tb\x89U\x08\x00\x00\x80?\x00\x00\xa0\xc0tbss.")  # fmt: skip
    assert read_checkpoint(path).state["weight"].tolist() == [1.0, -5.0]


def test_bytes_in_another_order(tmp_path):
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps({"weight": np.array([1.0, 2.0], dtype=">f4")}))
    assert read_checkpoint(path).state["weight"].tolist() == [1.0, 2.0]


@pytest.mark.parametrize("zipped", [True, False], ids=["today's", "before 1.6"])
def test_files_of_torch(tmp_path, zipped):
    path = tmp_path / "model.pth"
    torch.save({"model": TENSORS}, path, _use_new_zipfile_serialization=zipped)
    assert same(read_checkpoint(path))


def test_safetensors(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({key: tensor.contiguous() for key, tensor in TENSORS.items()}, path)
    state = read_checkpoint(path).state
    assert all(torch.equal(state[key], tensor) for key, tensor in TENSORS.items())


def test_the_content_decides_and_not_the_name(tmp_path):
    torch.save({"model": TENSORS}, tmp_path / "torch.pkl")
    (tmp_path / "pickle.pth").write_bytes(pickle.dumps({"model": ARRAYS}))
    assert same(read_checkpoint(tmp_path / "torch.pkl"))
    assert same(read_checkpoint(tmp_path / "pickle.pth"))


@pytest.mark.parametrize("wrap", [
    lambda state: state,
    lambda state: {"model": state},
    lambda state: {"state_dict": state, "epoch": 3},
    lambda state: {"model_state": state, "optimizer_state": {"step": torch.ones(1)}},
    lambda state: {"model": {"state_dict": state}},
])  # fmt: skip
@pytest.mark.parametrize("prefix", ["", "module.", "model.", "module.model.", "_orig_mod."])
def test_wrappings(tmp_path, wrap, prefix):
    path = tmp_path / "model.pth"
    torch.save(wrap({prefix + key: tensor for key, tensor in TENSORS.items()}), path)
    checkpoint = read_checkpoint(path)
    assert same(checkpoint)
    assert checkpoint.prefix == prefix


def test_a_prefix_that_not_all_names_share_stays(tmp_path):
    path = tmp_path / "model.pth"
    torch.save({"module.weight": torch.ones(1), "bias": torch.ones(1)}, path)
    assert list(read_checkpoint(path).state) == ["module.weight", "bias"]


def test_what_stands_beside_the_weights_is_named(tmp_path):
    path = tmp_path / "model.pth"
    others = {"optimizer": {"step": torch.ones(1)}, "iteration": 7, "names": ["a", "b"]}
    torch.save({"model": TENSORS} | others, path)
    assert read_checkpoint(path).beside == {
        "optimizer": "state of the optimizer",
        "iteration": "holds no weights",
        "names": "holds no weights",
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"model": TENSORS, "teacher": TENSORS}, "holds tensors in 'teacher'"),
        ({"model": TENSORS, "state_dict": TENSORS}, "in model and in state_dict"),
        ([TENSORS], "holds a list"),
        ({3: torch.ones(1)}, "holds a dict"),
    ],
)
def test_weights_in_unknown_places(tmp_path, content, message):
    path = tmp_path / "model.pth"
    torch.save(content, path)
    with pytest.raises(ValueError, match=message):
        read_checkpoint(path)


def test_a_pickle_that_holds_itself(tmp_path):
    path = tmp_path / "model.pkl"
    inside, beside = {}, {"model": {}, "history": []}
    inside["model"] = inside
    beside["history"].append(beside["history"])
    for content in (inside, beside):
        path.write_bytes(pickle.dumps(content))
        with pytest.raises(ValueError, match="holds itself"):
            read_checkpoint(path)


class Runs:
    """Runs a command when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_that_runs_code_is_refused_by_name(tmp_path, protocol):
    path, trace = tmp_path / "model.pkl", tmp_path / "trace"
    path.write_bytes(pickle.dumps({"model": ARRAYS | {"x": Runs(trace)}}, protocol=protocol))
    with pytest.raises(ValueError, match=rf"it names {os.system.__module__}\.system"):
        read_checkpoint(path)
    assert not trace.exists()
    pickle.loads(path.read_bytes())
    assert trace.exists()  # it would have


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_of_torch_that_runs_code_is_refused_by_name(tmp_path, zipped):
    path, trace = tmp_path / "model.pth", tmp_path / "trace"
    content = {"model": TENSORS, "x": Runs(trace)}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=rf"it names {os.system.__module__}\.system"):
        read_checkpoint(path)
    assert not trace.exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("builtins.eval", b"\x80\x02cbuiltins\neval\n."),
        ("builtins.getattr", b"\x80\x02cbuiltins\ngetattr\n."),
        ("numpy.load", b"\x80\x02cnumpy\nload\n."),
        ("numpy.ndarray.tofile", b"\x80\x04\x8c\x05numpy\x8c\x0endarray.tofile\x93."),
        ("torch._utils._rebuild_tensor_v2", pickle.dumps({"w": torch.ones(1)})),
    ],
)
def test_names_that_arrays_do_not_need(tmp_path, name, content):
    path = tmp_path / "model.pkl"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"it names {name}"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x03\x00\x00\x00zip\x86R.", "as 'zip'"),
        (b"\x80\x02K\x01Q.", "outside itself"),
    ],
)
def test_other_ways_out_of_a_pickle(tmp_path, content, message):
    path = tmp_path / "model.pkl"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_checkpoint(path)


def write_all(folder):
    """The same weights in every format."""
    (folder / "a.pkl").write_bytes(pickle.dumps({"model": ARRAYS}))
    torch.save({"model": TENSORS}, folder / "b.pth")
    torch.save({"model": TENSORS}, folder / "c.pth", _use_new_zipfile_serialization=False)
    save_file({"weight": torch.ones(3, 5)}, folder / "d.safetensors")
    return sorted(folder.iterdir())


def test_files_cut_short(tmp_path):
    for path in write_all(tmp_path):
        content = path.read_bytes()
        for kept in {0, 1, 9, len(content) // 3, 2 * len(content) // 3, len(content) - 1}:
            path.write_bytes(content[:kept])
            with pytest.raises(ValueError, match=path.name):
                read_checkpoint(path)


def test_what_is_no_checkpoint(tmp_path):
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.writestr("readme.txt", "nothing to see")
    np.savez(tmp_path / "arrays.npz", weight=np.ones(3))
    (tmp_path / "page.pth").write_text("<!DOCTYPE html><title>Virus scan warning</title>")
    (tmp_path / "packed.gz").write_bytes(gzip.compress(b"weights"))
    (tmp_path / "notes.txt").write_text("weights of a model")
    for name, message in {
        "photos.zip": "no file of PyTorch",
        "arrays.npz": "no file of PyTorch",
        "page.pth": "a web page",
        "packed.gz": "compressed",
        "notes.txt": "begins with b'weights '",
    }.items():
        with pytest.raises(ValueError, match=message):
            read_checkpoint(tmp_path / name)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file .*model\.pth"):
        read_checkpoint(tmp_path / "model.pth")
