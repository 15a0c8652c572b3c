"""Conversion: put eventful blocks in the place of a model's own, and take them out again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from fnmatch import filter as match_names
from typing import TypeVar

from torch import nn

from eventful.attention import AttentionName
from eventful.backbones import ADAPTERS, adapter_for
from eventful.block.block import EventfulBlock, eventful_blocks
from eventful.block.gate import GateKind, Measure
from eventful.block.options import Gating, Options, Prefix
from eventful.block.state import STAGES, Stage
from eventful.policies import Policy, for_gates

M = TypeVar("M", bound=nn.Module)
Where = Callable[[str, nn.Module], bool]


def convert(
    model: M,
    policy: Policy | Mapping[str, Policy],
    *,
    where: Where | None = None,
    gating: Gating = "paper",
    attention: AttentionName = "incremental",
    gate: GateKind = "token",
    gate_before_norm: bool = False,
    measure: Measure = "error",
    prefix: Prefix = "always",
    pooling: int = 1,
    sampling: int | Mapping[str, int] | None = None,
    half_precision: bool = False,
    guard: float | None = None,
    max_age: int | None = 256,
) -> M:
    """Make a model's transformer blocks eventful, in place.

    Weights and state-dict keys stay as they are. On its own the converted model computes what it
    did before; frames run through a `Stream`, which owns the state.

    Args:
        model: A model that holds blocks of a known type, or such a block itself. It is put in
            eval mode.
        policy: The default policy of new streams: one for all gates, or a mapping from gate names
            `<block>.qkv`, `<block>.proj`, `<block>.mlp` (or patterns) to policies.
        where: Called with each block's name and the block; False leaves it as it is.
        gating: What a token that is not updated means. "paper": three gates a block; skip
            connections carry fresh inputs. "hold": the same, but a token that is not updated keeps
            its old input there too. "input": one gate, the first block's `qkv`, picks tokens for
            all blocks; the others keep everything.
        attention: "incremental" (exact, linear memory), "cached" (the paper's full form),
            "query_key" or "dense" (its ablations).
        gate: "token", or "stgt" for the baseline of the paper.
        gate_before_norm: Put the QKV and MLP gates before layer norm instead of behind it.
        measure: What policies pick by: "error" (its norm, as in the paper), "relative" (over the
            norm of the reference), "age" and "relative-age" (times the frames since the last
            update).
        prefix: "always" updates class and register tokens on every frame, beside the policy's
            choice; "gated" lets them compete.
        pooling: Average keys and values over cells of so many tokens a side, in blocks that know
            their token grid and attend across it (the paper's "spatial", with 2).
        sampling: Tokens that a block hands on at most, the prefix included: those that the class
            token takes most from (adaptive token sampling, top-k form; Fayyaz et al. 2022). A
            number for all blocks, or a mapping from block names (or patterns) to numbers. What
            runs behind the blocks gets fewer tokens then.
        half_precision: Round both factors of attention-value products to float16, as in the paper;
            with "cached" and "query_key".
        guard: With "incremental", the share of its peak mass below which a row of attention is
            computed anew, so that rounding does not grow; None picks it by dtype.
        max_age: With "incremental", the frames within which every row of attention is computed
            anew; None never does.

    Returns:
        The model; a new module if `model` is itself a block, since that cannot be done in place.

    Raises:
        ValueError: There is nothing to convert, something is unknown, or an option is wrong. The
            model is then unchanged.
        TypeError: The model or the policy is not one.

    Example:
        >>> import eventful, timm
        >>> model = timm.create_model("vit_tiny_patch16_224", img_size=32).eval()
        >>> _ = eventful.convert(model, policy=eventful.TopFraction(0.25))
        >>> eventful.restore(model).blocks[0].__class__.__name__
        'Block'
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"expected a torch.nn.Module, got {type(model).__name__}")
    options = Options(
        gating,
        attention,
        gate,
        gate_before_norm,
        measure,
        prefix,
        pooling,
        half_precision=half_precision,
        guard=guard,
        max_age=max_age,
    )
    if eventful_blocks(model):
        raise ValueError(
            "this model is converted already; set stream.policy to change the policy, or call "
            "eventful.restore(model) first to convert it with other options"
        )
    found = _blocks_to_convert(model, where)
    stages: dict[str, tuple[Stage, ...]] = dict.fromkeys(found, STAGES)
    if gating == "input":
        first, *others = found
        stages = {first: ("qkv",), **dict.fromkeys(others, ())}
    policies = for_gates(policy, [f"{_label(n)}.{stage}" for n in found for stage in stages[n]])
    samples = _sampling(sampling, [_label(name) for name in found])
    if pooling != 1 and not any(adapter.has_grid for _, adapter in found.values()):
        raise ValueError(
            f"pooling={pooling} averages over cells of a token grid, and no block of this "
            f"{type(model).__name__} is told its grid; leave it out"
        )
    replacements = {
        name: adapter(
            block,
            _label(name),
            _prefix_tokens(model, name),
            replace(options, sampling=samples.get(_label(name))),
            {stage: policies[f"{_label(name)}.{stage}"] for stage in stages[name]},
        )
        for name, (block, adapter) in found.items()
    }
    return _replace(model, replacements).eval()


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
    unknown: list[str] = []
    for name, module in model.named_modules(remove_duplicate=False):
        adapter = adapter_for(module)
        if adapter is None and not _looks_like_a_block(model, name, module):
            continue
        if where is not None and not where(_label(name), module):
            continue
        if adapter is None:
            unknown.append(f"{name} (a {_type(module)})")
        else:
            found[name] = module, adapter
    if not found:
        raise ValueError(_nothing_found(model, unknown))
    if unknown:
        raise ValueError(
            f"cannot convert {', '.join(unknown[:3])}: no adapter knows this type; leave it out "
            f"with where=..., or write an adapter (CONTRIBUTING.md)"
        )
    modules = [id(module) for module, _ in found.values()]
    twice = [name for name, (module, _) in found.items() if modules.count(id(module)) > 1]
    if twice:
        raise ValueError(f"cannot convert {', '.join(twice)}: these are one block, used twice")
    return found


def _looks_like_a_block(model: nn.Module, name: str, module: nn.Module) -> bool:
    """Whether a module is one of a list of modules and holds attention, or stands beside blocks."""
    parent = model.get_submodule(name.rpartition(".")[0])
    if not isinstance(parent, nn.ModuleList | nn.Sequential) or isinstance(module, nn.Identity):
        return False
    attends = any("attn" in child or "attention" in child for child, _ in module.named_children())
    return attends or any(adapter_for(sibling) is not None for sibling in parent.children())


def _nothing_found(model: nn.Module, unknown: list[str]) -> str:
    known = ", ".join(ADAPTERS)
    if any(adapter_for(module) is not None for module in model.modules()):
        return "nothing to convert: where=... refused every block"
    what = f"it holds {', '.join(unknown[:3])}" if unknown else "it holds no transformer block"
    return f"nothing to convert in this {type(model).__name__}: {what}; known blocks are {known}"


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


def _prefix_tokens(model: nn.Module, name: str) -> int:
    """Read the number of class and register tokens off the closest module that states it."""
    parts = name.split(".")
    for end in range(len(parts), -1, -1):
        count = getattr(model.get_submodule(".".join(parts[:end])), "num_prefix_tokens", None)
        if isinstance(count, int):
            return count
    return 0


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


def _type(module: nn.Module) -> str:
    return f"{type(module).__module__}.{type(module).__qualname__}"
