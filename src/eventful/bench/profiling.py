"""Where the time of an update goes, by PyTorch's profiler."""

from __future__ import annotations

from collections.abc import Callable

from torch.profiler import ProfilerActivity, profile, record_function

from eventful.bench.case import Setup

_PRODUCTS = (
    "aten::addmm",
    "aten::mm",
    "aten::bmm",
    "aten::baddbmm",
    "aten::linear",
    "aten::mkldnn_convolution",
    "aten::mkldnn_linear",
    "aten::convolution",
    "aten::_convolution",
    "aten::thnn_conv2d",
    "aten::_slow_conv2d_forward",
    "mkldnn::_linear_pointwise",
    "mkldnn::_convolution_pointwise",
    "aten::_scaled_dot_product_flash_attention_for_cpu",
    "aten::_scaled_dot_product_attention_math",
)
_FRAME = "eventful frame"


def share_outside(run: Callable[[], object], setup: Setup, frames: int = 3) -> float | None:
    """The share of a call's time on the CPU outside of products, convolutions and attention.

    Everything else is in it: gates, gathering and scattering, norms, activations, corrections of
    attention, the model's Python and the stream's own.

    Args:
        run: Processes a frame.
        setup: On a GPU, time of the CPU says nothing of this kind: None.
        frames: Over how many calls.
    """
    if setup.device.type != "cpu":
        return None
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for _ in range(frames):
            with record_function(_FRAME):
                run()
    events = {event.key: event for event in profiler.key_averages()}
    inside = sum(events[key].self_cpu_time_total for key in _PRODUCTS if key in events)
    return 1 - inside / events[_FRAME].cpu_time_total
