"""What the laws of frames run with: known flows, written plans, the equations."""

from collections import Counter, deque

import torch
from torch.nn import functional as F

import eventful
from eventful.motion import Flow
from eventful.stream import measure, schedule
from eventful.stream.plan import Choice, Plan
from tests.zoo import SIZE, build

PATCH, GRID = 4, (3, 5)
COSTS = eventful.stream.costs.Costs(dense=100.0, carried=4.0, held=1.0, partial=6.0, token=4.0)
WINDOWED = ("sam", "sam_resampled", "sam_no_positions", "vitdet", "vitdet_paper_positions")
KINDS = {"d": "dense", "p": "partial", "c": "carried", "h": "held"}


class NoMotion(Flow):
    """Finds that nothing moves."""

    def __init__(self):
        self.scale = 1.0

    def smaller(self, frames):
        return frames.float().clone()

    def between(self, before, now, start=None):
        return torch.zeros(*now.shape, 2)


class WholePatches(NoMotion):
    """Finds the one shift by whole patches that explains an image best."""

    def between(self, before, now, start=None):
        shifts = [(y, x) for y in (0, -1, 1) for x in (0, -1, 1, -2, 2)]
        wrong = [(now.float() - shifted(before, s, PATCH).float()).abs().sum() for s in shifts]
        found = shifts[int(torch.stack(wrong).argmin())]
        flow = torch.tensor([-PATCH * float(step) for step in found])
        return flow.expand(*now.shape, 2).clone()


def shifted(x, shift, unit=1):
    """Move (batch, height, width) down and to the right; what comes in is the border's."""
    down, right = (unit * step for step in shift)
    height, width = x.shape[1:3]
    y = (torch.arange(height) - down).clamp(0, height - 1)
    x_ = (torch.arange(width) - right).clamp(0, width - 1)
    return x[:, y][:, :, x_]


def flow_is(monkeypatch, kind):
    monkeypatch.setattr(schedule, "Flow", kind)
    monkeypatch.setattr(measure, "Flow", kind)


class Script(Plan):
    """Gives a row what a text says, a letter a frame; a number behind it says how many tokens."""

    def __init__(self, text, every=None):
        self.kinds, self.every, self.begun = list(text.split()), every, []

    def begin(self, cut=False):
        self.begun.append(cut)
        self.kinds.pop(0)

    def decide(self, look):
        kind, tokens = KINDS[self.kinds[0][0]], int(self.kinds[0][1:] or 0)
        self.kinds.pop(0)
        return Choice(kind, "as written", tokens)

    def learn(self, check):
        pass

    def follow(self, before):
        pass

    checks = 0

    def state(self):
        return {}

    def load(self, state):
        pass


def pixels(frame):
    """Frames of the zoo as pictures, a patch's top-left pixels told from the others'."""
    return frame.float().mul(0.2).add(0.5).clamp(0, 1)


def frame_stream(name, policy=None, dtype=torch.float32, convert=(), **options):
    model = eventful.convert(
        build(name, dtype), policy or eventful.Auto(share=0.5), **dict(convert)
    )
    options = {"scene_cuts": None, "method": "forward_features", "pixels": pixels} | options
    return eventful.Stream(model, costs=options.pop("costs", COSTS), **options)


def scripted(stream, frame, *texts):
    """Run the first frame, then let every row follow its text; records what is chosen."""
    output = stream(frame)
    plans = stream._engine._schedule.plans
    plans[:] = [Script(text) for text in texts]
    decide, stream.seen = stream._engine._schedule.decide, []

    def recorded(images, flush):
        stream.seen.append(decide(images, flush))
        return stream.seen[-1]

    stream._engine._schedule.decide = recorded
    return output


def kinds(stream):
    return [row.kind for row in stream.stats.rows]


def held_bytes(stream, *more):
    """Every tensor that can be reached from a stream and is not the model's, each once."""
    frame, blocks = stream._bound.frame, stream._bound.blocks.values()
    parts = [stream._engine, frame, stream.stats, *(block.binding for block in blocks), *more]
    weights = {x.untyped_storage().data_ptr() for x in stream._bound.model.state_dict().values()}
    seen, found, stack = set(), {}, parts
    while stack:
        x = stack.pop()
        if id(x) in seen or isinstance(x, torch.nn.Module | eventful.stream.bound.Bound):
            continue
        seen.add(id(x))
        if isinstance(x, torch.Tensor):
            found[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        elif isinstance(x, dict):
            stack += x.values()
        elif isinstance(x, list | tuple | set | frozenset | deque):
            stack += x
        elif hasattr(x, "__dict__"):
            stack += vars(x).values()
    return sum(size for where, size in found.items() if where not in weights)


class Written:
    """The equations of a partial frame, in the original blocks' own modules.

    The original model runs on the whole frame, but every attention takes the keys and values of
    tokens that were not chosen from what was kept: what comes out at the chosen tokens is

        kv[J] <- keys and values of x[J];   x[J] <- block(x[J]; attention over kv)

    and what comes out elsewhere is of no meaning and looked at by nobody.
    """

    def __init__(self, name, batch):
        self.model, self.name = build(name, torch.float64), name
        self.kept, self.batch = {}, batch

    def _changed(self, mask, keys):
        """Which of keys (rows, heads, n, dim), or (rows * heads, n, dim), are chosen tokens'."""
        heads = 3 if keys.ndim == 3 else 1
        if keys.shape[0] != self.batch * heads:  # in windows
            side = round(keys.shape[-2] ** 0.5)
            whole = F.pad(mask.unflatten(1, GRID), (0, -GRID[1] % side, 0, -GRID[0] % side))
            cells = whole.unflatten(2, (-1, side)).unflatten(1, (-1, side)).transpose(2, 3)
            mask = cells.flatten(3).flatten(0, 2)
        mask = mask.repeat_interleave(heads, dim=0)[..., None]
        return mask if keys.ndim == 3 else mask[:, None]

    @torch.inference_mode()
    def __call__(self, frame, mask, monkeypatch):
        """What comes out, given which tokens (batch, tokens) are chosen; all on the first frame."""
        attend, calls = F.scaled_dot_product_attention, Counter()

        def over_kept(q, k, v, **options):
            place = calls["attention"]
            calls["attention"] += 1
            if place in self.kept:
                changed = self._changed(mask, k)
                k, v = (
                    torch.where(changed, new, old)
                    for new, old in zip((k, v), self.kept[place], strict=True)
                )
            self.kept[place] = k.clone(), v.clone()
            return attend(q, k, v, **options)

        with monkeypatch.context() as patch:
            patch.setattr(F, "scaled_dot_product_attention", over_kept)
            output = self.model.forward_features(frame)
        assert calls["attention"] == len(self.model.blocks)
        return output


def tokens_of(output):
    """Outputs (batch, tokens, dim), also of models that give maps."""
    if output.ndim == 3:
        return output
    channels = output.shape[1] == 24
    return output.flatten(2).mT if channels else output.flatten(1, 2)


def still(frames, batch=2, dtype=torch.float32):
    frame = torch.randn(batch, 3, *SIZE, generator=torch.Generator().manual_seed(5)).to(dtype)
    return [frame.clone() for _ in range(frames)]
