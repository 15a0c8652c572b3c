"""What original checkpoints compute, straight from their arrays: float64, one image, no modules."""

import torch
from torch.nn import functional as F

EPS = 1e-6


def doubles(arrays):
    """The arrays as float64 tensors, which hold float32 exactly."""
    return {key: torch.from_numpy(array).double() for key, array in arrays.items()}


def linear(x, w, name):
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def norm(x, w, name):
    """Layer norm of the last axis."""
    centred = x - x.mean(dim=-1, keepdim=True)
    spread = (centred**2).mean(dim=-1, keepdim=True) + EPS
    return centred / spread.sqrt() * w[f"{name}.weight"] + w[f"{name}.bias"]


def channel_norm(x, w, name):
    """The same over the channels of maps (batch, channels, height, width)."""
    return norm(x.movedim(1, -1), w, name).movedim(-1, 1)


def gelu(x):
    return x * (1 + torch.erf(x / 2**0.5)) / 2


def attention(x, w, qkv, heads, bias=None):
    """Attention of tokens (n, dim), head by head; `bias` maps a head's queries to (n, n)."""
    size = x.shape[1] // heads
    q, k, v = linear(x, w, qkv).split(x.shape[1], dim=1)
    outputs = []
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        scores = q[:, part] @ k[:, part].T / size**0.5
        scores = scores if bias is None else scores + bias(q[:, part])
        outputs.append(scores.softmax(dim=1) @ v[:, part])
    return torch.cat(outputs, dim=1)


def vitdet_tokens(image, w, heads, windows):
    """`ViT`: an image (3, height, width) to tokens (lines, columns, dim)."""
    weight, bias = (w[f"backbone.net.patch_embed.proj.{p}"] for p in ("weight", "bias"))
    x = F.conv2d(image[None], weight, bias, stride=16)[0].permute(1, 2, 0)
    x = x + _absolute(w["backbone.net.pos_embed"], x.shape[:2])
    for i, window in enumerate(windows):
        name = f"backbone.net.blocks.{i}"
        normed = norm(x, w, f"{name}.norm1")
        mixed = _windowed(normed, w, f"{name}.attn", heads, window or x.shape[:2])
        x = x + linear(mixed, w, f"{name}.attn.proj")
        hidden = gelu(linear(norm(x, w, f"{name}.norm2"), w, f"{name}.mlp.fc1"))
        x = x + linear(hidden, w, f"{name}.mlp.fc2")
    return x


def _absolute(positions, grid):
    """The class token's position goes; the others are resized bicubically."""
    side = round((positions.shape[1] - 1) ** 0.5)
    square = positions[0, 1:].T.reshape(1, -1, side, side)
    return F.interpolate(square, grid, mode="bicubic", align_corners=False)[0].permute(1, 2, 0)


def _windowed(x, w, name, heads, window):
    """Attention in each window of (lines, columns), zeros filling the last ones up."""
    lines, columns, dim = x.shape
    high, wide = window
    padded = x.new_zeros(-(-lines // high) * high, -(-columns // wide) * wide, dim)
    padded[:lines, :columns] = x
    output = torch.empty_like(padded)
    for top in range(0, len(padded), high):
        for left in range(0, padded.shape[1], wide):
            cut = padded[top : top + high, left : left + wide].reshape(-1, dim)
            mixed = attention(cut, w, f"{name}.qkv", heads, _relative(w, name, high, wide))
            output[top : top + high, left : left + wide] = mixed.reshape(high, wide, dim)
    return output[:lines, :columns]


def _relative(w, name, high, wide):
    """Relative positions, pair by pair."""

    def bias(q):
        places = [(y, x) for y in range(high) for x in range(wide)]
        rows = [
            [
                q[i] @ w[f"{name}.rel_pos_h"][y - v + high - 1]
                + q[i] @ w[f"{name}.rel_pos_w"][x - u + wide - 1]
                for v, u in places
            ]
            for i, (y, x) in enumerate(places)
        ]
        return torch.stack([torch.stack(row) for row in rows])

    return bias


def vitdet_pyramid(tokens, w):
    """`SimpleFeaturePyramid`: tokens (lines, columns, dim) to five maps."""
    x = tokens.permute(2, 0, 1)[None]
    double = _up(gelu(channel_norm(_up(x, w, "2.0"), w, "backbone.simfp_2.1")), w, "2.3")
    maps = {
        "p2": _lateral(double, w, "2.4", "2.5"),
        "p3": _lateral(_up(x, w, "3.0"), w, "3.1", "3.2"),
        "p4": _lateral(x, w, "4.0", "4.1"),
        "p5": _lateral(F.max_pool2d(x, 2), w, "5.1", "5.2"),
    }
    return maps | {"p6": maps["p5"][..., ::2, ::2]}


def _up(x, w, name):
    weight, bias = w[f"backbone.simfp_{name}.weight"], w[f"backbone.simfp_{name}.bias"]
    return F.conv_transpose2d(x, weight, bias, stride=2)


def _lateral(x, w, one, three):
    x = normed_conv(x, w, f"backbone.simfp_{one}", 0)
    return normed_conv(x, w, f"backbone.simfp_{three}", 1)


def normed_conv(x, w, name, padding=1):
    return channel_norm(F.conv2d(x, w[f"{name}.weight"], padding=padding), w, f"{name}.norm")


def conv(x, w, name, padding=0):
    return F.conv2d(x, w[f"{name}.weight"], w[f"{name}.bias"], padding=padding)


def rpn_head(x, w):
    """`StandardRPNHead`: objectness and deltas of one map."""
    head = "proposal_generator.rpn_head"
    x = conv(x, w, f"{head}.conv.conv0", 1).relu()
    x = conv(x, w, f"{head}.conv.conv1", 1).relu()
    return conv(x, w, f"{head}.objectness_logits"), conv(x, w, f"{head}.anchor_deltas")


def box_head(pooled, w, stage=""):
    """`FastRCNNConvFCHead` and `FastRCNNOutputLayers`: logits and flat deltas."""
    x = pooled
    for k in (1, 2, 3, 4):
        x = normed_conv(x, w, f"roi_heads.box_head{stage}.conv{k}").relu()
    x = linear(x.flatten(1), w, f"roi_heads.box_head{stage}.fc1").relu()
    predictor = f"roi_heads.box_predictor{stage}"
    return linear(x, w, f"{predictor}.cls_score"), linear(x, w, f"{predictor}.bbox_pred")


def mask_head(pooled, w):
    """`MaskRCNNConvUpsampleHead`: one map of logits a class."""
    x = pooled
    for k in (1, 2, 3, 4):
        x = normed_conv(x, w, f"roi_heads.mask_head.mask_fcn{k}").relu()
    deconv = "roi_heads.mask_head.deconv"
    x = F.conv_transpose2d(x, w[f"{deconv}.weight"], w[f"{deconv}.bias"], stride=2).relu()
    return conv(x, w, "roi_heads.mask_head.predictor")


def vivit(view, w, heads, depth, depth_temporal, classifier):
    """`FactorizedTransformer` and its head: a view (frames, 3, height, width) to logits."""
    weight, bias = w["backbone.stem.conv1.weight"], w["backbone.stem.conv1.bias"]
    tubelets = F.conv3d(view.transpose(0, 1)[None], weight, bias, stride=weight.shape[2:])[0]
    moments = [
        _encode(moment.flatten(1).T, w, ("cls_token", "pos_embd", "layers", "norm"), heads, depth)
        for moment in tubelets.unbind(1)
    ]
    names = ("cls_token_out", "temp_embd", "layers_temporal", "norm_out")
    return linear(_encode(torch.stack(moments), w, names, heads, depth_temporal), w, classifier)


def _encode(tokens, w, names, heads, depth):
    """The class token behind the norm."""
    class_token, positions, layers, last = (f"backbone.{name}" for name in names)
    x = torch.cat([w[class_token][0], tokens]) + w[positions][0]
    for i in range(depth):
        name = f"{layers}.{i}"
        mixed = attention(norm(x, w, f"{name}.norm"), w, f"{name}.attn.to_qkv", heads)
        x = x + linear(mixed, w, f"{name}.attn.proj")
        hidden = gelu(linear(norm(x, w, f"{name}.norm_ffn"), w, f"{name}.ffn.net.0"))
        x = x + linear(hidden, w, f"{name}.ffn.net.3")
    return norm(x[0], w, last)
