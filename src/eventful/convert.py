"""Conversion: put eventful blocks in the place of a model's own, and take them out again."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from fnmatch import filter as match_names
from typing import Any, TypeVar

from torch import nn

from eventful.backbones import LIBRARIES, adapter_for, described
from eventful.backbones.capturing import install
from eventful.block.block import EventfulBlock, eventful_blocks
from eventful.block.options import Options
from eventful.block.state import STAGES, Stage
from eventful.policies import Auto, FramePolicy, KeepAll, Policy, for_gates

_log = logging.getLogger("eventful")

M = TypeVar("M", bound=nn.Module)
Where = Callable[[str, nn.Module], bool]


def convert(
    model: M,
    policy: FramePolicy | Policy | Mapping[str, Policy] = Auto(),  # noqa: B008 - frozen
    *,
    where: Where | None = None,
    taps: Sequence[str] | None = None,
    options: Options = Options(),  # noqa: B008 - frozen
    sampling: int | Mapping[str, int] | None = None,
    **old: Any,
) -> M:
    """Make a model's transformer blocks eventful, in place.

    Weights and state-dict keys stay as they are. On its own the converted model computes what it
    did before; frames run through a `Stream`, which owns the state.

    Args:
        model: A model that holds blocks of a known type, or such a block itself. It is put in
            eval mode.
        policy: The default policy of new streams: a frame policy (`Auto(...)`, `Carry(k)`,
            `Skip(k)`), a token policy for all gates (`TopR(r)` and others), or a mapping from gate
            names `<block>.qkv`, `<block>.proj`, `<block>.mlp` (or patterns) to token policies.
        where: Called with each block's name and the block; False leaves it as it is.
        taps: Names of blocks whose outputs something else than the next block reads, under frame
            policies; by default a stream finds them on its first frame.
        options: The paper's ablations and what else concerns gates, see `Options`.
        sampling: `Options.sampling`, or a mapping from block names (or patterns) to it.
        **old: The fields of `Options` may be given by name.

    Returns:
        The model; a new module if `model` is itself a block, since that cannot be done in place.

    Raises:
        ValueError: There is nothing to convert, something is unknown, or an option is wrong. The
            model is then unchanged.
        TypeError: The model or the policy is not one, or an argument is unknown.

    Example:
        >>> import eventful, timm
        >>> model = timm.create_model("vit_tiny_patch16_224", img_size=32).eval()
        >>> _ = eventful.convert(model)
        >>> eventful.restore(model).blocks[0].__class__.__name__
        'Block'
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"expected a torch.nn.Module, got {type(model).__name__}")
    options = _with_options(options, old)
    if eventful_blocks(model):
        raise ValueError(
            "this model is converted already; set stream.policy to change the policy, or call "
            "eventful.restore(model) first to convert it with other options"
        )
    found = _blocks_to_convert(model, where)
    samples = _sampling(options.sampling if sampling is None else sampling, [*map(_label, found)])
    frame_policy = policy if isinstance(policy, FramePolicy) else None
    if frame_policy is not None:
        _check_for_frames(frame_policy, options, samples)
    stages: dict[str, tuple[Stage, ...]] = dict.fromkeys(found, STAGES)
    if options.gating == "input":
        first, *others = found
        stages = {first: ("qkv",), **dict.fromkeys(others, ())}
    policies = for_gates(
        policy if not isinstance(policy, FramePolicy) else KeepAll(),
        [f"{_label(n)}.{stage}" for n in found for stage in stages[n]],
    )
    if options.pooling != 1 and not any(adapter.has_grid for _, adapter in found.values()):
        raise ValueError(
            f"pooling={options.pooling} averages over cells of a token grid, and no block of this "
            f"{type(model).__name__} is told its grid; leave it out"
        )
    special = {name: adapter.special_tokens(model, name) for name, (_, adapter) in found.items()}
    replacements = {
        name: adapter(
            block,
            _label(name),
            special[name][0],
            replace(options, sampling=samples.get(_label(name))),
            {stage: policies[f"{_label(name)}.{stage}"] for stage in stages[name]},
            frame_policy,
            None if taps is None else tuple(taps),
            special[name][1],
        )
        for name, (block, adapter) in found.items()
    }
    install(model)
    return _replace(model, replacements).eval()


def _with_options(options: Options, named: Mapping[str, Any]) -> Options:
    """Options with some fields given by name."""
    known = {field.name for field in fields(Options)} - {"sampling"}
    unknown = [name for name in named if name not in known]
    if unknown:
        raise TypeError(
            f"convert() takes no argument {unknown[0]!r}; options are {', '.join(sorted(known))}"
        )
    return replace(options, **named)


def _check_for_frames(policy: FramePolicy, options: Options, samples: Mapping[str, int]) -> None:
    """Refuse options that have no meaning where chosen tokens alone are computed."""
    if options.pooling != 1 or samples:
        what = f"pooling={options.pooling}" if options.pooling != 1 else "sampling=..."
        raise ValueError(
            f"{what} goes with token policies such as TopR(r); {policy} computes chosen tokens "
            f"over all keys"
        )


def restore(model: M) -> M:
    """Put the original blocks back, with whatever weights the model has now.

    Raises:
        ValueError: The model is not converted.

    Example: see `convert`.
    """
    blocks = eventful_blocks(model)
    if not blocks:
        raise ValueError("nothing to restore: this model holds no eventful block")
    for block in blocks.values():
        block.original.training = block.training
    return _replace(model, {name: block.original for name, block in blocks.items()})


def _blocks_to_convert(
    model: nn.Module, where: Where | None
) -> dict[str, tuple[nn.Module, type[EventfulBlock]]]:
    """Find the blocks to convert; another block that no adapter knows is an error."""
    found: dict[str, tuple[nn.Module, type[EventfulBlock]]] = {}
    unknown: dict[str, nn.Module] = {}
    alone: dict[str, str] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        adapter = adapter_for(module)
        if adapter is None and not _looks_like_a_block(model, name, module):
            continue
        reason = None if adapter is None else adapter.left_alone(model, name)
        if reason is not None:
            alone[name] = reason
        elif where is not None and not where(_label(name), module):
            continue
        elif adapter is None:
            unknown[name] = module
        else:
            found[name] = module, adapter
    if not found:
        raise ValueError(_nothing_found(model, unknown, alone))
    lists = {name.rpartition(".")[0] for name in found}
    beside = [f"{n} ({described(m)})" for n, m in unknown.items() if n.rpartition(".")[0] in lists]
    if beside:
        raise ValueError(
            f"cannot convert {', '.join(beside[:3])}: no adapter knows this type; leave it out "
            f"with where=..., or write an adapter (CONTRIBUTING.md)"
        )
    modules = [id(module) for module, _ in found.values()]
    twice = [name for name, (module, _) in found.items() if modules.count(id(module)) > 1]
    if twice:
        raise ValueError(f"cannot convert {', '.join(twice)}: these are one block, used twice")
    _report(alone | {name: described(module) for name, module in unknown.items()})
    return found


def _report(alone: Mapping[str, str]) -> None:
    """Say once, in the log, which lists of blocks stay as they are, and why."""
    reasons: dict[tuple[str, str], int] = {}
    for name, reason in alone.items():
        key = name.rpartition(".")[0], reason
        reasons[key] = reasons.get(key, 0) + 1
    for (blocks, reason), count in reasons.items():
        _log.warning("left as they are: %d blocks of %s (%s)", count, blocks or "the model", reason)


def _looks_like_a_block(model: nn.Module, name: str, module: nn.Module) -> bool:
    """Whether a module is one of a list of modules and holds attention, or stands beside blocks."""
    parent = model.get_submodule(name.rpartition(".")[0])
    if not isinstance(parent, nn.ModuleList | nn.Sequential) or isinstance(module, nn.Identity):
        return False
    attends = any("attn" in child or "attention" in child for child, _ in module.named_children())
    return attends or any(adapter_for(sibling) is not None for sibling in parent.children())


def _nothing_found(
    model: nn.Module, unknown: Mapping[str, nn.Module], alone: Mapping[str, str]
) -> str:
    beside = {name: f"{name} ({reason})" for name, reason in alone.items()}
    beside |= {name: f"{name} ({described(module)})" for name, module in unknown.items()}
    known = any(adapter_for(module) is not None for module in model.modules())
    if known and not alone:
        return "nothing to convert: where=... refused every block"
    holds = ", ".join([*beside.values()][:3]) or "no transformer block"
    return (
        f"nothing to convert in this {type(model).__name__}: it holds {holds}; known blocks are of "
        f"{', '.join(LIBRARIES)}, see eventful.backbones.ADAPTERS"
    )


def _sampling(sampling: int | Mapping[str, int] | None, names: list[str]) -> dict[str, int]:
    """The number of tokens that each block hands on at most, where it is limited."""
    wanted = sampling if isinstance(sampling, Mapping) else {"*": sampling}
    chosen: dict[str, int] = {}
    for pattern, kept in wanted.items():
        matched = match_names(names, pattern)
        if not matched:
            raise ValueError(f"sampling: no block is called {pattern!r}; there are {names}")
        if kept is not None:
            chosen.update(dict.fromkeys(matched, kept))
    return chosen


def _replace(model: M, replacements: Mapping[str, nn.Module]) -> M:
    for name, replacement in replacements.items():
        if not name:
            return replacement  # type: ignore[return-value]
        parent, _, child = name.rpartition(".")
        model.get_submodule(parent)._modules[child] = replacement
    return model


def _label(name: str) -> str:
    """The name of a block in gate names, also where the model is the block."""
    return name or "block"
