"""What a study says: tables with intervals as CSV, figures, and one web page with all of it."""

import base64
import html
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from particle_grid.experiments import stats
from particle_grid.experiments.plan import Plan
from particle_grid.experiments.pool import Job
from particle_grid.experiments.study_scores import STILL, Scales, beginnings, learning_curve
from particle_grid.support import atomic, figures, records

Rows = list[dict[str, Any]]
PROFILE = np.linspace(-0.25, 1.75, 81)  # thresholds of the performance profiles
RELATIVE = "better", "difference"  # columns that compare an arm with the reference
POINTS = 60  # of a learning curve
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2em auto; padding: 0 1em; color: #222; }
table { border-collapse: collapse; margin: 1em 0; }
td, th { padding: 3px 12px; border-bottom: 1px solid #ddd; text-align: right; }
td:first-child, th:first-child { text-align: left; }
img { max-width: 100%; }
pre { background: #f4f4f6; padding: 1em; overflow: auto; }
"""


def load_figure() -> Any:
    """Return Matplotlib's Figure. Raise ValueError where it is not installed."""
    return figures.load_figure("study", "A study")


def matrix(plan: Plan, rows: Rows, variant: str, arm: str, key: str = "sampled") -> np.ndarray:
    """The test results of an arm, f64[tasks, runs]; runs are those of whole seeds."""
    tests, seeds = tests_of(rows, variant), whole(plan, rows, variant)
    return np.array([[tests[arm, task, seed][key] for seed in seeds] for task in plan.tasks], float)


def tests_of(rows: Rows, variant: str) -> dict[tuple[str, str, int], dict[str, Any]]:
    """The rows of the test in a variant, by arm, task and seed."""
    return {(r["arm"], r["task"], r["seed"]): r for r in rows if (r["phase"], r["variant"]) == ("test", variant)}


def whole(plan: Plan, rows: Rows, variant: str) -> list[int]:
    """The seeds of the test with which every arm has ended every task: only these are compared, so that pairs stay
    pairs."""
    there = tests_of(rows, variant)
    return [seed for seed in plan.seeds if all((a, task, seed) in there for a in plan.arms for task in plan.tasks)]


def gaps(
    plan: Plan, tuning: Mapping[tuple[Any, ...], Job], tests: Mapping[tuple[Any, ...], Job], rows: Rows
) -> list[str]:
    """What a study lacks, in sentences: how many runs of each arm failed or have not ended, and what is left out for
    that. None for a study that lacks nothing."""
    told = []
    phases = {"tuning": [(key[0], job) for key, job in tuning.items()]}
    phases |= {"the test": [(key[1], job) for key, job in tests.items()]}
    for phase, jobs in phases.items():
        failed = [arm for arm, job in jobs if job.failed]
        waiting = [arm for arm, job in jobs if not job.done and not job.failed]
        for what, arms in (("Failed", failed), ("Not ended yet", waiting)):
            if arms:
                counts = ", ".join(f"{arm} {arms.count(arm)}" for arm in plan.arms)
                told.append(f"{what} in {phase}, of {len(jobs) // len(plan.arms)} runs of each arm: {counts}.")
    draws = dict.fromkeys(f"draw {key[1]} of {key[0]}" for key, job in tuning.items() if not job.done)
    if draws:
        told.append(f"Left out when knobs were chosen, since a run of it is missing: {', '.join(draws)}.")
    compared = {variant: whole(plan, rows, variant) for variant in plan.variants}
    seeds = [f"seed {seed} in {v}" for v, kept in compared.items() for seed in plan.seeds if seed not in kept]
    if seeds:
        told.append(f"Left out of tables and pictures, of all arms, so that pairs stay pairs: {', '.join(seeds)}.")
    return told


def with_interval(statistic: stats.Statistic, *scores: np.ndarray, paired: bool = False) -> np.ndarray:
    """Value, low and high end, f64[3, ...]."""
    return np.array([statistic(*scores), *stats.interval(statistic, *scores, paired=paired)])


def summary(plan: Plan, rows: Rows) -> Rows:
    """A line for each variant and arm: over all tasks, then for each task; with 95% intervals."""
    lines = []
    for variant in plan.variants:
        reference = matrix(plan, rows, variant, plan.reference)
        for arm in plan.arms:
            x = matrix(plan, rows, variant, arm)
            for task, part, against in [
                ("all", x, reference),
                *((task, x[k : k + 1], reference[k : k + 1]) for k, task in enumerate(plan.tasks)),
            ]:
                line: dict[str, Any] = {"variant": variant, "arm": arm, "task": task, "runs": part.size}
                for name, (value, low, high) in {
                    "iqm": with_interval(stats.interquartile_mean, part),
                    "mean": with_interval(stats.mean, part),
                    "better": with_interval(stats.probability_of_improvement, part, against),
                    "difference": with_interval(
                        lambda a, b: stats.paired_difference(a, b).mean(-1), part, against, paired=True
                    ),
                }.items():
                    line |= {name: value, f"{name}_low": low, f"{name}_high": high}
                for threshold in plan.thresholds:
                    key = f"steps_to_{threshold}"
                    k = slice(None) if task == "all" else slice(*(list(plan.tasks).index(task) + d for d in (0, 1)))
                    reached = matrix(plan, rows, variant, arm, key)[k]
                    line |= {key: float(np.median(reached)), f"reached_{threshold}": float(np.isfinite(reached).mean())}
                lines.append(line)
    return lines


def write(plan: Plan, out: Path, rows: Rows, chosen: dict[str, int], scales: Scales, lacks: Sequence[str]) -> None:
    """Writes summary.csv, the figures as PNG, and report.html, which also says what the study lacks. Raises ValueError
    where there are too few runs."""
    for variant in plan.variants:
        if len(whole(plan, rows, variant)) < 2:
            raise ValueError(
                f"Fewer than two seeds have a run of every arm and task in {variant}: go on without --report, or see "
                f"error.txt in the folders in {out / 'test' / variant} of those that failed."
            )
    lines = summary(plan, rows)
    records.write_rows(out / "summary.csv", lines)
    draw: dict[str, Callable[[Any, str], None]] = {
        "intervals": lambda figure, variant: draw_intervals(figure, plan, lines, variant),
        "profiles": lambda figure, variant: draw_profiles(figure, plan, rows, variant),
        "tasks": lambda figure, variant: draw_tasks(figure, plan, lines, variant),
        "curves": lambda figure, variant: draw_curves(figure, plan, out, rows, variant, chosen, scales),
    }
    sections = []
    for variant in plan.variants:
        images = []
        for name, drawing in draw.items():
            figure = load_figure()(layout="constrained")
            drawing(figure, variant)
            images.append(figures.save(out / f"{name}-{variant}.png", figure))
        sections.append((variant, images))
    atomic.write(out / "report.html", page(plan, out, lines, rows, chosen, sections, lacks).encode())


def colours(plan: Plan) -> dict[str, Any]:
    """One colour for each arm, that colour-blind people can tell apart as far as there are that many."""
    from matplotlib import colormaps

    arms = list(plan.arms)
    return {arm: colormaps["viridis"](0.95 * k / max(len(arms) - 1, 1)) for k, arm in enumerate(arms)}


def draw_intervals(figure: Any, plan: Plan, lines: Rows, variant: str) -> None:
    """Aggregates over all tasks, each with its interval."""
    figure.set_size_inches(11, 1.2 + 0.38 * len(plan.arms))
    titles = {
        "iqm": "interquartile mean",
        "mean": "mean",
        "better": f"probability of more than {plan.reference}",
        "difference": f"paired difference to {plan.reference}",
    }
    mine = {line["arm"]: line for line in lines if (line["variant"], line["task"]) == (variant, "all")}
    for panel, (name, title) in zip(figure.subplots(1, len(titles), sharey=True), titles.items(), strict=True):
        panel.use_sticky_edges = False  # of bars, which would end at the panel's edge
        for place, (arm, colour) in enumerate(colours(plan).items()):
            if name in RELATIVE and arm == plan.reference:
                continue
            low, high = mine[arm][f"{name}_low"], mine[arm][f"{name}_high"]
            panel.barh(place, high - low, 0.6, left=low, color=colour, alpha=0.5)
            panel.plot([mine[arm][name]] * 2, [place - 0.3, place + 0.3], color="black", linewidth=1.5)
        panel.set(title=title, yticks=range(len(plan.arms)), yticklabels=list(plan.arms))
        panel.title.set_fontsize(10)
        panel.grid(axis="x", alpha=0.3)
        if name in RELATIVE:
            panel.axvline(0.5 if name == "better" else 0, color="black", linewidth=0.8, linestyle=":")
        panel.invert_yaxis() if panel.get_subplotspec().is_first_col() else None


def draw_profiles(figure: Any, plan: Plan, rows: Rows, variant: str) -> None:
    """The share of runs that score more than each threshold, with 95% bands."""
    figure.set_size_inches(7, 4)
    panel = figure.subplots()
    for arm, colour in colours(plan).items():
        value, low, high = with_interval(stats.performance_profile(PROFILE), matrix(plan, rows, variant, arm))
        panel.plot(PROFILE, value, color=colour, label=arm)
        panel.fill_between(PROFILE, low, high, color=colour, alpha=0.15, linewidth=0)
    panel.set(xlabel="normalised score", ylabel="share of runs that score more", ylim=(-0.02, 1.02))
    panel.legend()


def draw_tasks(figure: Any, plan: Plan, lines: Rows, variant: str) -> None:
    """The interquartile mean of each task, with its interval."""
    figure.set_size_inches(2.6 * len(plan.tasks), 1.4 + 0.34 * len(plan.arms))
    for panel, task in zip(figure.subplots(1, len(plan.tasks), sharey=True, squeeze=False)[0], plan.tasks, strict=True):
        mine = {line["arm"]: line for line in lines if (line["variant"], line["task"]) == (variant, task)}
        for place, (arm, colour) in enumerate(colours(plan).items()):
            line = mine[arm]
            panel.plot([line["iqm_low"], line["iqm_high"]], [place, place], color=colour, linewidth=4, alpha=0.6)
            panel.plot(line["iqm"], place, "o", color=colour)
        panel.set(title=task, yticks=range(len(plan.arms)), yticklabels=list(plan.arms), xlabel="normalised score")
        panel.grid(axis="x", alpha=0.3)
    figure.axes[0].invert_yaxis()


def draw_curves(
    figure: Any, plan: Plan, out: Path, rows: Rows, variant: str, chosen: dict[str, int], scales: Scales
) -> None:
    """The median over seeds of the score while learning, with the range of the middle half."""
    figure.set_size_inches(3.2 * len(plan.tasks), 3.2)
    jobs, seeds = plan.test_jobs(out, chosen), whole(plan, rows, variant)
    for panel, task in zip(figure.subplots(1, len(plan.tasks), squeeze=False)[0], plan.tasks, strict=True):
        for arm, colour in colours(plan).items():
            runs = [learning_curve(scales[variant, task], jobs[variant, arm, task, seed])[:2] for seed in seeds]
            x = np.linspace(0, min(steps[-1] for steps, _ in runs), POINTS)
            y = np.array([np.interp(x, steps, scores) for steps, scores in runs])
            panel.plot(x / 1e6, np.median(y, 0), color=colour, label=arm)
            panel.fill_between(x / 1e6, *np.quantile(y, [0.25, 0.75], axis=0), color=colour, alpha=0.15, linewidth=0)
        panel.set(title=task, xlabel="million agent-steps")
    figure.axes[0].set_ylabel("normalised score")
    figure.axes[0].legend(fontsize=8)


def table(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """An HTML table of text."""
    lines = [
        "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"
        for tag, cells in [("th", header), *(("td", cells) for cells in body)]
    ]
    return "<table>" + "\n".join(lines) + "</table>"


def interval_text(line: dict[str, Any], name: str) -> str:
    """As in 0.71 [0.65, 0.80]."""
    return f"{line[name]:.2f} [{line[f'{name}_low']:.2f}, {line[f'{name}_high']:.2f}]"


def aggregate_table(plan: Plan, lines: Rows, variant: str) -> str:
    """Over all tasks, a line for each arm."""
    mine = [line for line in lines if (line["variant"], line["task"]) == (variant, "all")]
    header = ["arm", "runs", "interquartile mean", "mean", f"P(more than {plan.reference})", "paired difference"]
    header += [f"median steps to {threshold} (share)" for threshold in plan.thresholds]
    body = [
        [line["arm"], str(line["runs"]), *(interval_text(line, name) for name in ("iqm", "mean"))]
        + [interval_text(line, name) if line["arm"] != plan.reference else "" for name in RELATIVE]
        + [
            f"{line[f'steps_to_{t}'] / 1e6:.2f}M ({line[f'reached_{t}']:.0%})"
            if np.isfinite(line[f"steps_to_{t}"])
            else f"never ({line[f'reached_{t}']:.0%})"
            for t in plan.thresholds
        ]
        for line in mine
    ]
    return table(header, body)


def tuning_table(plan: Plan, rows: Rows, chosen: dict[str, int]) -> str:
    """What tuning chose, and what it gained over the first set of knobs."""

    def score(arm: str, draw: int) -> str:
        mine = [r["sampled"] for r in rows if (r["phase"], r["arm"], r["draw"]) == ("tuning", arm, draw)]
        return f"{np.mean(mine):.2f}" if mine else "failed"

    body = []
    for arm, draw in chosen.items():
        knobs = ", ".join(f"{key.split('.')[-1]} {value}" for key, value in plan.draws(arm)[draw])
        body.append([arm, knobs, score(arm, draw), score(arm, 0)])
    return table(["arm", "chosen knobs", "mean score in tuning", "of the first set"], body)


def beginnings_table(plan: Plan, chosen: dict[str, int]) -> str:
    """How each arm acts before it has learnt anything."""
    header = "arm", "root mean square of an axis", f"axes moved by less than {STILL}", "entropy of the move (nats)"
    body = [
        [arm, f"{found['rms']:.2f}", f"{found['still']:.0%}", f"{found['entropy']:.2f}"]
        for arm, found in beginnings(plan, chosen).items()
    ]
    return table(header, body)


def page(
    plan: Plan,
    out: Path,
    lines: Rows,
    rows: Rows,
    chosen: dict[str, int],
    sections: list[tuple[str, list[bytes]]],
    lacks: Sequence[str],
) -> str:
    """The report as one page, with everything in it."""
    question, parts = html.escape(plan.question), []
    for variant, drawn in sections:
        images = [f'<img src="data:image/png;base64,{base64.b64encode(data).decode()}">' for data in drawn]
        parts.append(f"<h2>{html.escape(variant)}</h2>{aggregate_table(plan, lines, variant)}{''.join(images)}")
    return f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>A study</title><style>{STYLE}</style>
<h1>{question}</h1>
<p>Normalised scores: 0 is random actions, 1 the task's script, both with the actions of {html.escape(plan.scale)}, for
all arms. The unit is the run. Intervals are 95%, from a bootstrap
stratified by task. A median of steps counts runs that never got there as later than all others.</p>
{"".join(f"<p><b>{html.escape(line)}</b></p>" for line in lacks)}{"".join(parts)}
<h2>First actions</h2>{beginnings_table(plan, chosen)}
<h2>Tuning</h2>{tuning_table(plan, rows, chosen)}
<h2>The plan</h2><pre>{html.escape((out / "plan.yaml").read_text("utf-8"))}</pre></html>
"""
