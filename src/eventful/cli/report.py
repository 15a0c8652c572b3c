"""The figures of a run: what it saved, what it cost in error, and what skipping would have cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from statistics import fmean
from typing import Any

from rich.markup import escape
from rich.table import Table

from eventful.cli.session import Row, Session


def figures(session: Session) -> dict[str, Any]:
    """The figures of a clip, for JSON."""
    rows, costs = session.rows, session.stream.costs
    used, dense = sum(r.operations for r in rows), sum(r.dense_operations for r in rows)
    return {
        "frames": len(rows),
        "tokens": _patches(session) + session.player.special,
        "kinds": dict(Counter(row.kind for row in rows)),
        "scene_cuts": [row.frame for row in rows if row.reason == "scene cut"],
        "operations": {"dense": dense, "eventful": used, "ratio": dense / used if used else None},
        "time_ms": _times(session),
        "error": {
            "target": session.target,
            "estimated": _spread(r.estimated_error for r in rows),
            "measured": _spread(r.measured_error for r in rows),
            "replaced": _spread(r.replaced_error for r in rows),
        },
        "skipping": _skipping(session),
        "state_bytes": session.stream.stats.state_bytes if rows else None,
        "costs": None if costs is None else costs.to_dict(),
        "rows": [asdict(row) for row in rows],
    }


def _patches(session: Session) -> int:
    height, width = session.player.grid
    return height * width


def _times(session: Session) -> dict[str, float | None]:
    dense, ours = session.dense_ms, session.mean_ms
    ratio = dense / ours if dense and ours else None
    return {"dense": dense, "eventful": ours, "ratio": ratio, "setup": session.setup_ms}


def _spread(values: Iterable[float | None]) -> dict[str, Any]:
    known = [value for value in values if value is not None]
    return {
        "frames": len(known),
        "mean": fmean(known) if known else None,
        "max": max(known, default=None),
    }


def _skipping(session: Session) -> dict[str, Any] | None:
    """The dense model on every k-th frame in the same time, and its error."""
    dense, ours, checks = session.dense_ms, session.mean_ms, session.checks
    if not dense or not ours or not checks.pairs:
        return None
    every = min(max(1.0, dense / ours), float(len(session.rows)))
    return {
        "every": every,
        "error": checks.skipping(every),
        "pairs": checks.pairs,
        "longest": checks.longest,
    }


def table(report: dict[str, Any]) -> Table:
    """The report for people: a column for each clip."""
    clips = report["clips"]
    result = Table(title=escape(f"{report['model']} under {report['policy']}"), show_lines=True)
    result.add_column("")
    for clip in clips:
        result.add_column(escape(f"{clip['video']}\n{clip['camera']}".strip()))
    lines = {
        "frames": _frames,
        "operations": _operations,
        "time a frame": _time,
        "error, estimated": _estimated,
        "error, measured": _measured,
        "just before a refresh": _replaced,
        "skipping, same time": _skipped,
    }
    for name, line in lines.items():
        result.add_row(name, *(escape(line(clip)) for clip in clips))
    result.caption = escape("\n".join(report["files"].values()))
    return result


def _frames(clip: dict[str, Any]) -> str:
    kinds = ", ".join(f"{count} {kind}" for kind, count in clip["kinds"].items())
    height, width = clip["size"]
    early = f"\n{clip['stopped']}" if clip["stopped"] else ""
    first, last = clip["first"], clip["first"] + clip["frames"] - 1
    return f"{first} to {last} at {width} x {height}: {kinds or 'none'}{early}"


def _operations(clip: dict[str, Any]) -> str:
    ratio = clip["operations"]["ratio"]
    return "-" if ratio is None else f"{ratio:.1f}x fewer than dense"


def _time(clip: dict[str, Any]) -> str:
    times = clip["time_ms"]
    if times["ratio"] is None:
        return "-"
    return (
        f"{times['dense']:.0f} ms dense, {times['eventful']:.0f} ms eventful: "
        f"{times['ratio']:.1f}x\n(and {times['setup'] / 1e3:.1f} s once, at the start)"
    )


def _estimated(clip: dict[str, Any]) -> str:
    error = clip["error"]
    if error["estimated"]["mean"] is None:
        return "- (this policy estimates none)"
    target = "" if error["target"] is None else f" (target {error['target']:g})"
    return f"mean {error['estimated']['mean']:.3f}{target}"


def _measured(clip: dict[str, Any]) -> str:
    return _mean_and_max(clip["error"]["measured"], "frames chosen beforehand")


def _replaced(clip: dict[str, Any]) -> str:
    return _mean_and_max(clip["error"]["replaced"], "dense frames")


def _mean_and_max(found: dict[str, Any], where: str) -> str:
    if not found["frames"]:
        return "-"
    text = f"mean {found['mean']:.3f}, largest {found['max']:.3f}"
    return f"{text}\n({where}: {found['frames']})"


def _skipped(clip: dict[str, Any]) -> str:
    skipping = clip["skipping"]
    if skipping is None:
        return "- (too few dense results)"
    return (
        f"dense every {skipping['every']:.1f} frames, held: mean {skipping['error']:.3f}\n"
        f"({skipping['pairs']} pairs of dense results, up to {skipping['longest']} frames apart)"
    )


def caption(session: Session) -> tuple[str, str]:
    """Two lines on the last frame, for the overlay."""
    row = session.rows[-1]
    share = f"{100 * row.share:.0f}" if row.share > 0.01 or not row.share else "less than 1"
    first = f"this frame: {share} % of the work"
    if row.kind in ("partial", "gated"):
        patches = max(0.0, row.tokens - session.player.special)
        first += f", {patches:.0f} of {_patches(session)} patches computed"
    if row.estimated_error is not None and row.kind != "dense":
        first += f"; estimated error {row.estimated_error:.2f}"
    if row.measured_error is not None:
        first += f"; measured {row.measured_error:.2f}"
    second = f"so far {session.ratio:.1f}x fewer operations"
    measured = [r.measured_error for r in session.rows if r.measured_error is not None]
    if measured:
        second += f"; measured error {fmean(measured):.2f} (mean of {len(measured)} frames)"
    if session.target is not None:
        second += f"; target {session.target:g}"
    return first, second


def doing(row: Row) -> str:
    """What the last frame was, in a word or three, for the progress bar."""
    return {"carried": "carried along", "held": "held"}.get(row.kind, f"{row.kind} frame")
