"""The commands in their groups."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import eventful
from eventful.cli.commands import (
    advise,
    archive,
    bench,
    calibrate,
    evaluate,
    export,
    finetune,
    folder,
    inspect,
    paper,
    run,
    watch,
    weights,
)

RUN, RESEARCH = "Run", "Research"


class Panels(TyperGroup):
    """Lists commands by their `rich_help_panel`, as Typer does with markup, but in plain text.

    A command's name may be two words.
    """

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command that arguments begin with."""
        if " ".join(args[:2]) in self.commands:
            args = [" ".join(args[:2]), *args[2:]]
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write a section for each panel."""
        panels: dict[str, list[tuple[str, str]]] = {}
        widest = max(map(len, self.commands))
        for name, command in self.commands.items():
            text = command.get_short_help_str(formatter.width - 6 - widest)
            panel = str(getattr(command, "rich_help_panel", None) or "Commands")
            panels.setdefault(panel, []).append((name.ljust(widest), text))
        for panel, rows in panels.items():
            with formatter.section(panel):
                formatter.write_dl(rows)


app = typer.Typer(
    cls=Panels,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="Run vision transformers on video by recomputing only what changed.",
)


def _version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"eventful {eventful.__version__}\n")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Run vision transformers on video by recomputing only what changed."""


app.command("run", cls=run.Command, rich_help_panel=RUN)(run.command)
app.command("advise", rich_help_panel=RUN)(advise.command)
app.command("watch", rich_help_panel=RUN)(watch.command)
app.command("archive", rich_help_panel=RUN)(archive.command)
app.command("export", rich_help_panel=RUN)(export.command)
app.command("inspect", rich_help_panel=RUN)(inspect.command)
app.command("bench", rich_help_panel=RUN)(bench.command)
app.command("evaluate", rich_help_panel=RESEARCH)(evaluate.command)
app.command("evaluate folder", rich_help_panel=RUN)(folder.command)
app.command("calibrate", rich_help_panel=RESEARCH)(calibrate.command)
app.add_typer(finetune.group, name="finetune", rich_help_panel=RESEARCH)
app.command("weights", rich_help_panel=RESEARCH)(weights.command)
app.add_typer(paper.group, name="paper", rich_help_panel=RESEARCH)
