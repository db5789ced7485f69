"""Compare discrete and continuous control by a plan that is written in advance: python -m particle_grid.study."""

import argparse
from pathlib import Path

from particle_grid.cli import ending_in_one_line, parser_of, refuse_several_processes
from particle_grid.experiments.study.run import check_launcher, run_study
from particle_grid.support import lifeline
from particle_grid.support.errors import UserError
from particle_grid.support.output import lasting_output

EXAMPLES = """\
  python -m particle_grid.study smoke               # every part of it, in minutes
  python -m particle_grid.study reduced --dry-run   # what it would run, and for how long
  python -m particle_grid.study reduced             # the same command resumes it
  python -m particle_grid.study reduced --report    # the results so far
  python -m particle_grid.study smoke --launcher joblib n_jobs=2   # or ray, submitit_slurm: see docs/clusters.md
"""


def command_line() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = parser_of(
        "python -m particle_grid.study",
        "Compares the arms of a plan, such as action forms with different policies: tunes each of them with the same\n"
        "budget, tests it with new seeds, and writes a report.\n"
        "Safe to interrupt: the same command skips finished runs and resumes the others.",
        EXAMPLES,
    )
    parser.add_argument("plan", nargs="?", default="reduced", help="plan, by its name in conf/study or as a .yaml file")
    parser.add_argument("--out", type=Path, help="folder for the runs and the report (default: outputs/study_PLAN)")
    parser.add_argument("--jobs", type=int, default=0, help="number of parallel runs (default: one per core)")
    launcher = parser.add_argument("--launcher", nargs="+", default=[], metavar=("NAME", "KEY=VALUE"))
    launcher.help = "launcher of Hydra that starts the runs, for example on a cluster, and its settings"
    parser.add_argument("--dry-run", action="store_true", help="only print the runs and how long they would take")
    parser.add_argument("--report", action="store_true", help="only report the finished runs")
    return parser


@lasting_output()
def main() -> None:
    """Run or report the study that the command line names."""
    chosen = command_line().parse_args()
    out = chosen.out or Path("outputs") / f"study_{Path(chosen.plan).stem}"
    with ending_in_one_line("interrupted: the same command resumes the study"):
        if chosen.jobs < 0:
            raise UserError(f"--jobs {chosen.jobs} is invalid: give the number of runs at a time, or 0 for all cores.")
        if chosen.jobs and chosen.launcher:
            raise UserError("--jobs is for runs without --launcher: set the launcher's own number, as in n_jobs=4.")
        check_launcher(chosen.launcher)
        refuse_several_processes("study")
        with lifeline.leading():
            run_study(chosen.plan, out, chosen.jobs, chosen.dry_run, chosen.report, chosen.launcher)


if __name__ == "__main__":
    main()
