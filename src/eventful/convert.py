"""Conversion: put eventful blocks in the place of a model's own, and take them out again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from torch import nn

from eventful.attention import AttentionName
from eventful.backbones import ADAPTERS, adapter_for
from eventful.blocks import STAGES, EventfulBlock, Gating, Options
from eventful.gates import GateKind
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
    prefix: str = "always",
) -> M:
    """Make a model's transformer blocks eventful, in place.

    Weights and state-dict keys stay as they are. On its own the converted model computes what it
    did before; frames run through a `Stream`, which owns the state.

    Args:
        model: A model in eval mode that holds blocks of a known type, or such a block itself.
        policy: The default policy of new streams: one for all gates, or a mapping from gate names
            `<block>.qkv`, `<block>.proj`, `<block>.mlp` (or patterns) to policies.
        where: Called with each block's name and the block; False leaves it as it is.
        gating: "paper": three gates a block.
        attention: "incremental" (exact, linear memory), "cached" (the paper's full form),
            "query_key" or "dense" (its ablations).
        gate: "token", or "stgt" for the baseline of the paper.
        gate_before_norm: Put the QKV and MLP gates before layer norm instead of behind it.
        prefix: "always" updates class and register tokens on every frame, beside the policy's
            choice; "gated" lets them compete.

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
    options = Options(gating, attention, gate, gate_before_norm, prefix)
    if eventful_blocks(model):
        raise ValueError(
            "this model is converted already; set stream.policy to change the policy, or call "
            "eventful.restore(model) first to convert it with other options"
        )
    names = _blocks_to_convert(model, where)
    gates = [f"{name}.{stage}" for name in names for stage in STAGES]
    policies = for_gates(policy, gates)
    replacements = {
        name: adapter(
            block,
            name,
            _prefix_tokens(model, name),
            options,
            {stage: policies[f"{name}.{stage}"] for stage in STAGES},
        )
        for name, (block, adapter) in names.items()
    }
    return _replace(model, replacements)


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


def eventful_blocks(model: nn.Module) -> dict[str, EventfulBlock]:
    """List a converted model's eventful blocks by name, in order."""
    return {n: m for n, m in model.named_modules() if isinstance(m, EventfulBlock)}


def _blocks_to_convert(
    model: nn.Module, where: Where | None
) -> dict[str, tuple[nn.Module, type[EventfulBlock]]]:
    """Find the blocks to convert; a block of unknown type beside one of them is an error."""
    found = {}
    for name, module in model.named_modules():
        adapter = adapter_for(module)
        if adapter is not None and (where is None or where(_label(name), module)):
            found[_label(name)] = module, adapter
    if not found:
        raise ValueError(_nothing_found(model, where))
    for parent in {name.rpartition(".")[0] for name in found if "." in name}:
        for child, module in model.get_submodule(parent).named_children():
            name = f"{parent}.{child}"
            known = adapter_for(module) is not None or isinstance(module, nn.Identity)
            if not known and (where is None or where(name, module)):
                raise ValueError(
                    f"cannot convert {name}: no adapter knows a {_type(module)}; leave it out "
                    f"with where=..., or write an adapter (CONTRIBUTING.md)"
                )
    return found


def _nothing_found(model: nn.Module, where: Where | None) -> str:
    known = ", ".join(ADAPTERS)
    if where is not None and any(adapter_for(module) for module in model.modules()):
        return "nothing to convert: where=... refused every block"
    seen = {
        f"{name} ({_type(module)})"
        for name, module in model.named_modules()
        if any("attn" in child or "attention" in child for child, _ in module.named_children())
    }
    what = f"it holds {', '.join(sorted(seen)[:3])}" if seen else "it holds no attention block"
    return f"nothing to convert in this {type(model).__name__}: {what}; known blocks are {known}"


def _prefix_tokens(model: nn.Module, name: str) -> int:
    """Read the number of class and register tokens off the closest module that states it."""
    parts = name.split(".") if name != _ROOT else []
    for end in range(len(parts), -1, -1):
        count = getattr(model.get_submodule(".".join(parts[:end])), "num_prefix_tokens", None)
        if isinstance(count, int):
            return count
    return 0


def _replace(model: M, replacements: Mapping[str, nn.Module]) -> M:
    for name, replacement in replacements.items():
        if name in (_ROOT, ""):
            return replacement  # type: ignore[return-value]
        parent, _, child = name.rpartition(".")
        model.get_submodule(parent)._modules[child] = replacement
    return model


_ROOT = "block"


def _label(name: str) -> str:
    """The name of a block, also where the model is the block."""
    return name or _ROOT


def _type(module: nn.Module) -> str:
    return f"{type(module).__module__}.{type(module).__qualname__}"
