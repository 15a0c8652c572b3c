"""ViTDet's backbone as plain float64 computations, and small models to compare with them."""

import math

import torch

from eventful.models.vitdet import ViTDetBackbone

FORMS = ("dense", "query_key", "cached", "incremental")
DIM, HEADS, PATCH = 24, 3, 4
EXACT = 1e-12
SMALL = {
    "patch_size": PATCH,
    "embed_dim": DIM,
    "depth": 2,
    "num_heads": HEADS,
    "window_size": 2,
    "global_blocks": (1,),
    "position_grid": 2,
}


def randomised(model, seed=0):
    """Peaked attention, positions that matter, no weight at its initial value; float64."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for key, weight in model.named_parameters():
            if "rel_pos" in key or "pos_embed" in key:
                weight.normal_(std=0.6)
            elif weight.ndim > 1:
                weight.normal_(std=1.3 / weight[0].numel() ** 0.5)
            else:
                weight.add_(0.3 * torch.randn_like(weight))
    return model.eval().double()


def backbone(img_size=(12, 20), seed=0, **options):
    """A block with windows of 2 x 2 and a global one, on patches of 4 x 4."""
    return randomised(ViTDetBackbone(img_size, **(SMALL | options)), seed)


def images(size, batch=1, channels=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, channels, *size, generator=generator, dtype=torch.float64)


def dense(model, frame):
    with torch.inference_mode():
        return model(frame)


def relative(y, reference):
    return ((y - reference).norm() / reference.norm()).item()


# The plain computation: one query at a time, on a list of tokens with their coordinates.


def resampling(before, after, taps):
    """The matrix (after, before) that resamples one axis, pixel centres at halves, edges held."""
    matrix = torch.zeros(after, before, dtype=torch.float64)
    for i in range(after):
        place = (i + 0.5) * before / after - 0.5
        for tap, weight in taps(place):
            matrix[i, min(max(tap, 0), before - 1)] += weight
    return matrix


def linear_taps(place):
    place = max(place, 0.0)
    left = math.floor(place)
    return [(left, 1 - (place - left)), (left + 1, place - left)]


def cubic_taps(place, a=-0.75):
    """Keys' cubic convolution, with the constant that PyTorch and OpenCV use."""

    def kernel(x):
        x = abs(x)
        if x <= 1:
            return (a + 2) * x**3 - (a + 3) * x**2 + 1
        return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a

    left = math.floor(place)
    return [(tap, kernel(place - tap)) for tap in range(left - 1, left + 3)]


def naive_by_line(rel_pos, size, kind):
    """R[y][j], an embedding for each pair of lines."""
    trained = (len(rel_pos) + 1) // 2
    if kind == "linear":
        offsets = resampling(2 * trained - 1, 2 * size - 1, linear_taps) @ rel_pos
        return torch.stack(
            [torch.stack([offsets[y - j + size - 1] for j in range(size)]) for y in range(size)]
        )
    pairs = torch.stack(
        [
            torch.stack([rel_pos[y - j + trained - 1] for j in range(trained)])
            for y in range(trained)
        ]
    )
    matrix = resampling(trained, size, cubic_taps)
    return torch.einsum("ya,abd,jb->yjd", matrix, pairs, matrix)


def layer_norm(x, norm):
    centred = x - x.mean(-1, keepdim=True)
    variance = centred.square().mean(-1, keepdim=True)
    return centred / (variance + 1e-6).sqrt() * norm.weight + norm.bias


def linear(x, layer):
    y = torch.einsum("...i,oi->...o", x, layer.weight)
    return y if layer.bias is None else y + layer.bias


def gelu(x):
    return x * (1 + torch.erf(x / math.sqrt(2))) / 2


def naive_window(tokens, attn, kind):
    """Attention among the tokens (side, side, dim) of one window, or of a whole grid."""
    height, width, _ = tokens.shape
    lines = naive_by_line(attn.rel_pos_h, height, kind)
    columns = naive_by_line(attn.rel_pos_w, width, kind)
    q, k, v = linear(tokens, attn.qkv).view(height, width, 3, HEADS, -1).unbind(2)
    outputs = torch.zeros_like(q)
    for y in range(height):
        for x in range(width):
            for head in range(HEADS):
                query = q[y, x, head]
                scores = torch.einsum("yxd,d->yx", k[:, :, head], query) / math.sqrt(DIM / HEADS)
                scores = scores + (lines[y] @ query)[:, None] + (columns[x] @ query)[None]
                weights = scores.exp() / scores.exp().sum()
                outputs[y, x, head] = torch.einsum("yx,yxd->d", weights, v[:, :, head])
    return linear(outputs.flatten(2), attn.proj)


def naive_attention(c, attn, size, kind):
    """Pad one image's normed tokens with zeros, go through the windows, drop the padding."""
    if not size:
        return naive_window(c, attn, kind)
    height, width, dim = c.shape
    down, across = math.ceil(height / size), math.ceil(width / size)
    padded = torch.zeros(down * size, across * size, dim, dtype=c.dtype)
    padded[:height, :width] = c
    output = torch.zeros_like(padded)
    for top in range(0, down * size, size):
        for left in range(0, across * size, size):
            window = slice(top, top + size), slice(left, left + size)
            output[window] = naive_window(padded[window], attn, kind)
    return output[:height, :width]


@torch.no_grad()
def naive_backbone(model, image, windows, kind):
    """Tokens of one image (channels, height, width); `windows` has one size a block."""
    channels, height, width = image.shape
    grid = height // PATCH, width // PATCH
    patches = image.view(channels, grid[0], PATCH, grid[1], PATCH)
    weight, bias = model.patch_embed.proj.weight, model.patch_embed.proj.bias
    x = torch.einsum("cyaxb,dcab->yxd", patches, weight) + bias
    positions = model.pos_embed[0]
    down = resampling(positions.shape[0], grid[0], cubic_taps)
    across = resampling(positions.shape[1], grid[1], cubic_taps)
    x = x + torch.einsum("ya,xb,abd->yxd", down, across, positions)
    for block, size in zip(model.blocks, windows, strict=True):
        x = x + naive_attention(layer_norm(x, block.norm1), block.attn, size, kind)
        hidden = gelu(linear(layer_norm(x, block.norm2), block.mlp.fc1))
        x = x + linear(hidden, block.mlp.fc2)
    return x


MODELS = {
    # name: (trained size, size of the images, options, window of each block)
    "as trained": ((12, 20), (12, 20), {}, (2, 0)),
    "a square grid": ((12, 12), (12, 12), {"window_size": 3}, (3, 0)),
    "windows that fit": ((16, 24), (16, 24), {}, (2, 0)),
    "windows with padding below": ((12, 16), (12, 16), {}, (2, 0)),
    "a window that is larger than the grid": ((12, 20), (12, 20), {"window_size": 6}, (6, 0)),
    "the global block first": ((12, 20), (12, 20), {"global_blocks": [0]}, (0, 2)),
    "no bias of q, k and v": ((12, 20), (12, 20), {"qkv_bias": False}, (2, 0)),
    "grey images": ((12, 20), (12, 20), {"in_chans": 1}, (2, 0)),
    "a wider MLP": ((12, 20), (12, 20), {"mlp_ratio": 5.5}, (2, 0)),
    "positions of the grid's size": ((12, 12), (12, 12), {"position_grid": 3}, (2, 0)),
    "larger than trained": ((12, 20), (20, 28), {}, (2, 0)),
    "smaller than trained": ((20, 28), (12, 20), {}, (2, 0)),
    "larger on one side, smaller on the other": ((12, 20), (20, 12), {"position_grid": 5}, (2, 0)),
    "trained on a square, run on an oblong": ((28, 28), (12, 20), {"window_size": 3}, (3, 0)),
}
