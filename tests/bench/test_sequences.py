"""Sequences of updates: every step changes tokens, and they go there and back."""

import pytest
import torch

from eventful.bench import Setup, UnavailableError
from eventful.bench.sequences import STEPS, random_sequence, recorded_sequence, vtest

SETUP = Setup(torch.device("cpu"))


def test_every_step_writes_other_values_where_its_index_says():
    sequence = random_sequence(23, 5, SETUP)
    start, sets = sequence.qkv.clone(), []
    for step in range(4 * STEPS):
        before = sequence.qkv.clone()
        sequence.advance(step)
        changed = (sequence.qkv != before).any(dim=-1)
        assert torch.equal(changed, sequence.index.mask())
        assert torch.equal(sequence.old, sequence.index.gather(before))
        sets.append(tuple(sequence.index.flat.tolist()))
        assert torch.equal(sequence.qkv, start) == ((step + 1) % (2 * STEPS) == 0)
    assert len(set(sets)) == STEPS
    assert sets[: 2 * STEPS] == sets[2 * STEPS :]


@pytest.mark.parametrize(("root", "what"), [(None, "it is not set"), ("nowhere", "there is no ")])
def test_recordings_need_the_clip(monkeypatch, tmp_path, root, what):
    monkeypatch.delenv("EVENTFUL_DATA", raising=False)
    if root:
        monkeypatch.setenv("EVENTFUL_DATA", str(tmp_path / root))
    with pytest.raises(UnavailableError, match=f"EVENTFUL_DATA .*vtest.avi; {what}"):
        recorded_sequence(16, 4, SETUP)


@torch.inference_mode()
def test_a_recording_has_the_class_token_in_every_step():
    try:
        vtest()
    except UnavailableError as error:
        pytest.skip(str(error))
    sequence = recorded_sequence(16, 4, SETUP)
    assert sequence.qkv.shape == (1, 17, 3 * 12 * 64)
    for step in range(STEPS):
        before = sequence.qkv.clone()
        sequence.advance(step)
        assert sequence.index.counts == (4,)
        assert sequence.index.flat[0] == 0
        assert not (sequence.qkv != before).any(dim=-1)[~sequence.index.mask()].any()
