"""What `eventful watch` makes ready and shows in the terminal."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from eventful.cli.subjects import find, timm_network

if TYPE_CHECKING:
    from eventful.live import Source, Status, Watcher


def watcher(
    model: str,
    weights: Path | None,
    outputs: tuple[str, ...],
    size: int | None,
    json_lines: str | None,
    parquet: Path | None,
    **options: Any,
) -> Watcher:
    """Make a watcher that has no cameras yet.

    Args:
        model: "demo", or "timm:NAME".
        weights: Of a timm model; None downloads them.
        outputs: What is computed of each frame.
        size: Long side of frames; None for the model's own.
        json_lines: A file, or "-" for standard output; None for neither.
        parquet: A folder, or None.
        **options: As for `eventful.live.Watcher`.

    Raises:
        ValueError, OSError: As `eventful.live.Watcher` raises.
    """
    from eventful import live  # noqa: PLC0415 - optional libraries
    from eventful.outputs import demo_network  # noqa: PLC0415
    from eventful.outputs.networks import OUTPUTS, check_outputs  # noqa: PLC0415

    check_outputs(outputs, OUTPUTS if model == "demo" else OUTPUTS[:2])
    known = find(model, weights)
    build: Any = partial(demo_network, outputs=outputs)
    if model != "demo":
        name = model.partition(":")[2]
        build = partial(
            timm_network, name=name, weights=weights, outputs=outputs, patch=known.patch
        )
    written: list[live.Output] = []
    if json_lines is not None:
        written.append(live.JsonLines(None if json_lines == "-" else Path(json_lines)))
    if parquet is not None:
        written.append(live.ParquetFolder(parquet, about={"model": model, "outputs": outputs}))
    fit = {"size": size or known.size, "patch": known.patch}
    return live.Watcher(build, model=model, outputs=written, **fit, **options)


def run(watcher: Watcher, cameras: Iterable[Source], console: Console) -> None:
    """Watch cameras, shown in the terminal, until they or the watch have ended.

    With a camera on the network or a webcam, which never end, the watch goes on when the last
    camera is removed: others may be added.
    """
    lasts = False
    for camera in cameras:
        watcher.add(camera.name, camera.place)
        lasts |= camera.kind in ("network", "webcam")
    with screen(watcher, console):
        watcher.run(forever=lasts)


def table(status: Status) -> Group:
    """How all cameras are doing, for people; below it what went wrong last."""
    shown = Table(title=escape(f"{status.model}, {status.policy}"), title_justify="left")
    shown.add_column("camera", min_width=8, overflow="fold")
    shown.add_column("state", no_wrap=True)
    for name in ("/s", "frame", "error", "saved", "ms", "done", "lost", "bad", "back"):
        shown.add_column(name, justify="right", no_wrap=True)
    for one in status.cameras:
        saved = one.dense_operations / one.operations if one.operations else 0.0
        state = one.state if one.retry_in is None else f"{one.state} {one.retry_in:.0f} s"
        shown.add_row(
            escape(one.name),
            escape(state),
            f"{one.rate:.1f}",
            one.kind,
            "" if one.estimate is None else f"{one.estimate:.3f}",
            f"{saved:.1f}x" if saved else "",
            "" if one.latency_ms is None else f"{one.latency_ms:.0f}",
            *map(str, (one.processed, one.dropped, one.failed, one.reconnects)),
        )
    told = [f"{one.name}: {one.reason}" for one in status.cameras if one.reason]
    return Group(shown, *map(escape, told))


def figures(status: Status) -> dict[str, Any]:
    """What JSON can hold of it."""
    cameras = {
        one.name: {
            "source": one.source,
            "state": one.state,
            "reason": one.reason,
            "processed": one.processed,
            "dropped": one.dropped,
            "failed": one.failed,
            "reconnects": one.reconnects,
            "operations_ratio": one.dense_operations / max(1, one.operations),
        }
        for one in status.cameras
    }
    return {"model": status.model, "policy": status.policy, "cameras": cameras}


def fruitless(status: Status) -> list[str]:
    """A line about each camera that gave no result, with the reason."""
    return [
        f"no result of {one.name}: {one.reason or 'it gave no frame'}"
        for one in status.cameras
        if not (one.processed and one.kind)  # what went on from a state has none of the second
    ]


@contextmanager
def stopped_by_signals(watcher: Watcher) -> Iterator[threading.Event]:
    """Let Ctrl-C and SIGTERM end the watch after the frame at hand; the event says if one did."""
    stopped = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stopped
        return

    def stop(*_: Any) -> None:
        stopped.set()
        watcher.stop()

    known = signal.SIGINT, signal.SIGTERM
    before = [signal.signal(number, stop) for number in known]
    try:
        yield stopped
    finally:
        for number, handler in zip(known, before, strict=True):
            signal.signal(number, handler)


@contextmanager
def screen(watcher: Watcher, console: Console) -> Iterator[None]:
    """Show the cameras in the terminal while it runs; nothing where nobody looks at one."""
    if not console.is_terminal:
        yield
        return
    shown = lambda: table(watcher.status())  # noqa: E731
    with Live(get_renderable=shown, console=console, refresh_per_second=4):
        yield
