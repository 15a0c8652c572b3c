"""Blocks whose parts a `Layout` names: what those over tokens and over grids share."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from eventful.backbones import capturing
from eventful.backbones.inventory import ELEMENTWISE, MEND, account_forward
from eventful.backbones.layouts import FAMILIES, Family, Layout, layout_of
from eventful.backbones.layouts.names import nearest
from eventful.backbones.towers import closest, left_alone
from eventful.block.block import EventfulBlock, TokenOperations
from eventful.block.state import Place, Stage

_LINEARS = (nn.Linear, nn.modules.linear.NonDynamicallyQuantizableLinear)
_NORMS = ("LayerNorm", "RMSNorm", "LayerNormFp32")
_IDLE = ("Dropout", "Identity", "DropPath")  # do nothing in eval mode
_HEADS = ("num_heads", "num_attention_heads")
_MASKS = ("attention_mask", "attn_mask")
_HARMLESS = ("output_hidden_states", "return_dict", "interpolate_pos_encoding")


class NamedBlock(EventfulBlock):
    """Gates a block whose parts a `Layout` names.

        y = x + scale_1 * out(attention(q, k, v of norm_1(x)))
        x = y + scale_2 * mlp(norm_2(y))

    The parts are called by their names; containers between them, such as an attention module, are
    not. A block holds nothing else, or it is refused.
    """

    def __init__(self, original: nn.Module, *args: Any, **options: Any) -> None:
        super().__init__(original, *args, **options)
        layout = layout_of(parts_of(original))
        assert layout is not None  # or `account` has refused the block
        self.layout, self.family = layout, family_of(original)

    @staticmethod
    def account(original: nn.Module, name: str) -> None:
        """Check that exactly one layout accounts for all parts of the block."""
        parts, home = parts_of(original), type(original).__module__
        layout = layout_of(parts)
        if layout is None:
            raise ValueError(_unaccounted(original, name, parts))
        for path, module in original.named_modules():
            where = f"{name}.{path}" if path else name
            if not _at_home(module, home):
                raise ValueError(
                    f"cannot convert {where}: it is a {_type(module)}, which stands in the place "
                    f"of a part of {_type(original)}; {MEND}"
                )
            account_forward(module, where, called=not path or path in layout.names)
        expected = {"a linear layer": (layout.linears, _is_linear)}
        expected |= {"a norm": (layout.norms, _is_norm)}
        expected |= {"an activation": (layout.activations, _is_activation)}
        for what, (paths, fits) in expected.items():
            for path in paths:
                part = part_of(original, path)
                if not fits(part):
                    raise ValueError(
                        f"cannot convert {name}: {name}.{path} is a {_type(part)}, where {what} "
                        f"is known; {MEND}"
                    )
        _account_attention(original, f"{name}.{layout.home}", layout)

    @classmethod
    def left_alone(cls, model: nn.Module, name: str) -> str | None:
        """Say why a block is not to be converted: it belongs to no vision tower."""
        return left_alone(model, name, family_of(model.get_submodule(name)).late)

    @classmethod
    def special_tokens(cls, model: nn.Module, name: str) -> tuple[int, int]:
        """Count the tokens in front of the patches and behind them."""
        return family_of(model.get_submodule(name)).tokens(closest(model, name, "config"))

    @property
    def final_norms(self) -> tuple[str, ...]:
        """What the model calls the norm behind its last block."""
        return (self.family.norm,)

    @property
    def heads(self) -> int:
        """H, the number of heads."""
        return _first(part_of(self, self.layout.home), *_HEADS)

    @property
    def head_dim(self) -> int:
        """d, the size of one head."""
        return part_of(self, self.layout.attention.out).in_features // self.heads

    @property
    def scale(self) -> float:
        """Factor on the scores."""
        return _first(part_of(self, self.layout.home), "scale", "scaling") or self.head_dim**-0.5

    def norm_1(self, x: Tensor) -> Tensor:
        """Normalise the input of the attention branch."""
        return part_of(self, self.layout.branches.norms[0])(x)

    def norm_2(self, x: Tensor) -> Tensor:
        """Normalise the input of the MLP branch."""
        return part_of(self, self.layout.branches.norms[1])(x)

    def to_qkv(self, c: Tensor, place: Place) -> Tensor:
        """Project to q, k, v with their norms and rotations."""
        q, k, v = self._project(c)
        if self.layout.attention.norms:
            q, k = (
                part_of(self, name)(x)
                for name, x in zip(self.layout.attention.norms, (q, k), strict=True)
            )
        q, k, v = (x.unflatten(1, (-1, self.head_dim)) for x in (q, k, v))
        q, k = self.rotate(q, k, place)
        return torch.cat([x.flatten(1) for x in (q, k, v)], dim=1)

    def rotate(self, q: Tensor, k: Tensor, place: Place) -> tuple[Tensor, Tensor]:
        """Rotate q and k (total, heads, dim) by the places of their tokens."""
        return q, k

    def _project(self, c: Tensor) -> tuple[Tensor, ...]:
        """Project tokens (total, dim) to q, k, v, (total, heads * head_dim) each."""
        parts = [part_of(self, name) for name in self.layout.attention.qkv]
        if len(parts) == 3:
            return tuple(part(c) for part in parts)
        fused = parts[0](c) if len(parts) == 1 else functional.linear(c, *parts)
        return fused.chunk(3, dim=1)

    def mix(self, o: Tensor, qkv: Tensor) -> Tensor:
        """Nothing stands between attention and projection."""
        return o

    def to_out(self, c: Tensor) -> Tensor:
        """Project the attention output, and scale it."""
        return self._scaled(part_of(self, self.layout.attention.out)(c), 0)

    def to_mlp(self, c: Tensor) -> Tensor:
        """Apply the MLP, and scale it."""
        names = self.layout.mlp
        hidden = part_of(self, names.first)(c)
        if names.act is None:
            first, second = hidden.chunk(2, dim=-1)
            hidden = functional.silu(first) * second
        else:
            hidden = part_of(self, names.act)(hidden)
        if names.up is not None:
            hidden = hidden * part_of(self, names.up)(c)
        return self._scaled(part_of(self, names.last)(hidden), 1)

    def _scaled(self, c: Tensor, branch: int) -> Tensor:
        scales = self.layout.branches.scales
        return c * part_of(self, scales[branch]) if scales else c

    def linears(self) -> dict[Stage, list[TokenOperations]]:
        """List the linear layers that each gate guards."""
        attention, mlp = self.layout.attention, self.layout.mlp
        return {
            "qkv": self._qkv_linears(),
            "proj": [_operations(part_of(self, attention.out))],
            "mlp": [
                _operations(part_of(self, name))
                for name in (mlp.first, mlp.up, mlp.last)
                if name is not None
            ],
        }

    def _qkv_linears(self) -> list[TokenOperations]:
        parts = [part_of(self, name) for name in self.layout.attention.qkv]
        if len(parts) != 2:
            return [_operations(part) for part in parts]
        outputs, inputs = parts[0].shape
        return [TokenOperations(inputs, outputs, bias=True)]

    def read(self, args: tuple, kwargs: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
        """Take a call apart: the tokens, and whatever else was given, by name.

        Raises:
            ValueError: A mask that hides something, attention maps, or an unknown argument.
        """
        x, given = _arguments(type(self.original).forward, self.original, args, kwargs)
        if "attentions" in capturing.wanted():
            raise ValueError(
                f"{self.name} is eventful and holds no attention maps; leave output_attentions "
                f"out, or call eventful.restore(model)"
            )
        for key, value in given.items():
            rotation = key == "position_embeddings" and self.family.rotation == "given"
            if value is None or value is False or rotation or key in _HARMLESS:
                continue
            if key in _MASKS and isinstance(value, Tensor) and _hides_nothing(value):
                continue
            raise ValueError(
                f"{self.name} is eventful, and computes attention over all tokens; it was given "
                f"{key}={_short(value)}; leave that out, or the block with convert(..., where=...)"
            )
        return x, given

    def returned(self, y: Tensor) -> Any:
        """What the original returns in the place of its output."""
        return y if self.family.behind is None else (y, *self.family.behind)


def parts_of(block: nn.Module) -> list[str]:
    """The paths of a block's parts: linear layers, norms, activations and single parameters."""
    return _parts(block, "", type(block).__module__)


def _parts(module: nn.Module, path: str, home: str) -> list[str]:
    found = [f"{path}{key}" for key, _ in module.named_parameters(recurse=False)]
    found += [f"{path}{key}" for key, _ in module.named_buffers(recurse=False)]
    for key, child in module.named_children():
        whole = _is_linear(child) or _is_norm(child) or not _at_home(child, home)
        if whole or not (_has_parts(child) or _is_idle(child)):
            found.append(f"{path}{key}")
        else:
            found += _parts(child, f"{path}{key}.", home)
    return found


def _has_parts(module: nn.Module) -> bool:
    tensors = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
    return bool(tensors) or any(True for _ in module.children())


def _is_norm(module: nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    named = type(module).__name__.endswith(_NORMS)
    return named and (weight is None or weight.ndim == 1) and not [*module.children()]


def _is_linear(module: nn.Module) -> bool:
    return type(module) in _LINEARS


def _is_activation(module: nn.Module) -> bool:
    kind = type(module)
    known = kind in ELEMENTWISE or kind.__module__ == "transformers.activations"
    return known or kind.__name__ == "QuickGELU"


def _is_idle(module: nn.Module) -> bool:
    kind = type(module)
    empty = kind in (nn.ModuleList, nn.Sequential)
    return empty or (kind.__name__.endswith(_IDLE) and not any(True for _ in module.parameters()))


def _at_home(module: nn.Module, home: str) -> bool:
    """Whether a part is torch's, or of the file that defines the block."""
    kind = type(module)
    known = kind in ELEMENTWISE or kind.__module__ in (home, "transformers.activations")
    return known or kind.__module__.startswith("torch.nn.modules.")


def _account_attention(block: nn.Module, name: str, layout: Layout) -> None:
    """Check what attention does beside its layers."""
    attention, layers = part_of(block, layout.home), layout.attention.qkv
    sizes = {part_of(block, path).out_features for path in layers} if len(layers) == 3 else {0}
    reasons = {
        "is causal": getattr(attention, "is_causal", False),
        "takes batches second": not getattr(attention, "batch_first", True),
        "has fewer keys than queries": len(sizes) > 1,
        "says no number of heads": _first(attention, *_HEADS) is None,
    }
    for what, so in reasons.items():
        if so:
            raise ValueError(f"cannot convert {name}: it {what}; {MEND}")


def _unaccounted(block: nn.Module, name: str, parts: list[str]) -> str:
    """Say what no layout accounts for."""
    closest_layout = nearest(parts)
    unknown = sorted(set(parts) - closest_layout.names)
    missing = sorted(closest_layout.names - set(parts))
    what = f"it holds {name}.{unknown[0]}, a {_type(part_of(block, unknown[0]))}" if unknown else ""
    lacks = f"it has no {missing[0]}" if missing else ""
    both = ", and ".join(text for text in (what, lacks) if text)
    return f"cannot convert {name}: no known layout accounts for its parts: {both}; {MEND}"


def family_of(block: nn.Module) -> Family:
    """The family of a block's exact type."""
    return FAMILIES[f"{type(block).__module__}.{type(block).__qualname__}"]


@lru_cache
def _signature(forward: Callable[..., Any]) -> inspect.Signature:
    return inspect.signature(forward)


def _arguments(
    forward: Callable[..., Any], block: nn.Module, args: tuple, kwargs: dict[str, Any]
) -> tuple[Tensor, dict[str, Any]]:
    """A call's first argument, and the others by name."""
    signature = _signature(forward)
    given = dict(signature.bind(block, *args, **kwargs).arguments)
    for name, parameter in signature.parameters.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            given |= given.pop(name, {})
    _, x, *others = given.items()
    return x[1], dict(others)


def _hides_nothing(mask: Tensor) -> bool:
    if torch.compiler.is_compiling():  # a graph is traced of a call that has been run before
        return True
    return bool(mask.all()) if mask.dtype == torch.bool else not bool(mask.any())


def part_of(block: nn.Module, path: str) -> Any:
    """A block's part, a module or a tensor, by its path."""
    part: Any = block
    for name in path.split("."):
        part = getattr(part, name)
    return part


def _first(module: nn.Module, *names: str) -> Any:
    return next((getattr(module, name) for name in names if hasattr(module, name)), None)


def _operations(layer: nn.Linear) -> TokenOperations:
    return TokenOperations(layer.in_features, layer.out_features, layer.bias is not None)


def _short(value: Any) -> str:
    return f"a tensor {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)


def _type(part: Any) -> str:
    return f"{type(part).__module__}.{type(part).__qualname__}"
