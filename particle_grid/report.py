"""Gather the runs of a sweep as tables, CSV files and figures: python -m particle_grid.report outputs/SWEEP."""

import argparse
from pathlib import Path

from rich.console import Console

from particle_grid.cli import ending_in_one_line, parser_of
from particle_grid.experiments import sweep_plots, sweep_report
from particle_grid.support.errors import UserError
from particle_grid.support.output import lasting_output


def command_line() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = parser_of(
        "python -m particle_grid.report",
        "Gathers the runs of a sweep, or of any folder with runs in it: tables, CSV files and figures.",
        "  python -m particle_grid.report outputs/SWEEP    # also while its runs still train",
    )
    parser.add_argument("folder", type=Path, help="folder that contains runs, such as outputs/SWEEP")
    parser.add_argument("--out", type=Path, help="output folder (default: FOLDER/report)")
    return parser


@lasting_output()
def main() -> None:
    """Report the runs in the folder that the command line names."""
    chosen = command_line().parse_args()
    with ending_in_one_line():
        gather(chosen.folder, chosen.out or chosen.folder / "report")


def gather(folder: Path, out: Path) -> None:
    """Print and write what the runs in a folder say."""
    sweep = sweep_report.load_sweep(folder)
    console = Console(markup=False)
    console = console if console.is_terminal else Console(markup=False, width=160)
    console.print(sweep_report.on_terminal("Runs, normalised scores", sweep_report.run_rows(sweep)))
    if groups := sweep_report.group_rows(sweep):
        console.print(sweep_report.on_terminal("Over seeds", groups))
    for line in [*sweep_report.reasons(sweep), sweep.counts()]:
        console.print(line, soft_wrap=True)
    for path in sweep_report.write(out, sweep, draw(sweep, console)):
        console.print(f"Saved: {path}", soft_wrap=True)


def draw(sweep: sweep_report.Sweep, console: Console) -> list[sweep_report.Picture]:
    """Return the figures. Without Matplotlib, say how to get it."""
    try:
        return sweep_plots.draw(sweep)
    except UserError as error:
        console.print(f"No figures: {error}", soft_wrap=True)
        return []


if __name__ == "__main__":
    main()
