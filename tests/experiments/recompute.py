"""Recompute the published numbers of each study from its archive, by other code: nothing of particle_grid is imported.

    python tests/experiments/recompute.py

Reads `runs.tar.xz` in each folder of docs/study: the scores of each run from its results.json, its learning curve with
TensorBoard's own reader, and what 0 and 1 mean from reference_scores.json (scales.json in older archives). Prints the
largest differences from what `results.csv`, `summary.csv` and `chains.csv` have about final scores, and how many runs
differ in their steps to a threshold. The command `study` wrote these files. Takes a minute for each study.
"""

import csv
import itertools
import json
import math
import random
import statistics
import tarfile
import tempfile
from collections import defaultdict
from pathlib import Path

import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

FOLDERS = sorted(path.parent for path in Path(__file__).parents[2].glob("docs/study/*/runs.tar.xz"))
OLD_NAMES = {"policy, sampled": "sampled", "policy, greedy": "greedy", "random actions": "random", "script": "scripted"}
WINDOW = 5  # iterations whose mean score must reach a threshold
LEAST_END = 0.2  # score of the reference, for thresholds relative to it
RESAMPLES = 1000


def extracted(archive, folder):
    """Extract an archive, and return the folder of the study in it."""
    with tarfile.open(archive) as file:
        file.extractall(folder, filter="data")
    [study] = Path(folder).iterdir()
    return study


def mean_score(results, player):
    """Return the mean over evaluations and teams."""
    return statistics.fmean(x for row in results[player]["scores"] for x in row)


def read_results(path):
    return {OLD_NAMES.get(name, name): entry for name, entry in json.loads(path.read_text()).items()}


def zero_and_one(study, variant, task):
    """Return the raw scores that count as 0 and 1."""
    path = next(p for p in (study / "reference_scores.json", study / "scales.json") if p.exists())
    entry = json.loads(path.read_text())[f"{variant}/{task}"]
    return [statistics.fmean(x for row in entry[name] for x in row) for name in ("random", "scripted")]


def final_scores(study):
    """Return the normalised scores of the test runs by variant, task and arm, each a dict by seed."""
    found = defaultdict(dict)
    for path in sorted(study.glob("test/*/*/*/results.json")):
        variant, arm, name = path.parent.parts[-3:]
        task, _, seed = name.rpartition("-")
        zero, one = zero_and_one(study, variant, task)
        found[variant, task, arm][int(seed)] = (mean_score(read_results(path), "sampled") - zero) / (one - zero)
    return found


def smooth_curve(run, study):
    """Return the agent-steps of a run and the mean score of the last few iterations at each of them, as pairs."""
    variant, _, name = run.parts[-3:]
    zero, one = zero_and_one(study, variant, name.rpartition("-")[0])
    events = EventAccumulator(str(run), size_guidance={"scalars": 0}).Reload()
    tags = events.Tags()["scalars"]
    scores = []
    curve = []
    for event in events.Scalars("env/score" if "env/score" in tags else "score"):  # the old name
        scores.append((event.value - zero) / (one - zero))
        if len(scores) >= WINDOW:
            curve.append((float(event.step), statistics.fmean(scores[-WINDOW:])))
    return curve


def first_reached(curve, threshold):
    """Return the agent-steps at which a curve reaches a threshold, or infinity."""
    return next((step for step, score in curve if score >= threshold), math.inf)


def wrong_steps(study, plan, published):
    """Return the number of runs whose published steps to each threshold differ from those of their curves."""
    curves = {}
    for row in published:
        place = (row["variant"], row["task"], row["arm"], row["seed"])
        run = study / "test" / row["variant"] / row["arm"] / f"{row['task']}-{row['seed']}"
        curves[place] = smooth_curve(run, study)
    wrong = {f"steps_to_{threshold}": 0 for threshold in plan["thresholds"]}
    for row, threshold in itertools.product(published, plan["thresholds"]):
        unit = reference_end(curves, plan, row) if plan.get("relative_thresholds") else 1.0
        curve = curves[row["variant"], row["task"], row["arm"], row["seed"]]
        own = first_reached(curve, threshold * unit) if unit >= LEAST_END else math.nan
        name = f"steps_to_{threshold}"
        wrong[name] += not (own == float(row[name]) or (math.isnan(own) and math.isnan(float(row[name]))))
    return wrong


def reference_end(curves, plan, row):
    """Return where the curves of the reference end, in the mean over the seeds that all arms and tasks have."""
    places = [(row["variant"], task, arm) for task in plan["tasks"] for arm in plan["arms"]]
    seeds = set.intersection(*({place[3] for place in curves if place[:3] == each} for each in places))
    ends = [curves[row["variant"], row["task"], plan["reference"], seed][-1][1] for seed in seeds]
    return statistics.fmean(ends) if ends else math.nan


def middle_half(values):
    """Return the mean of the values between the quartiles, of which those at the edge count in part."""
    quarter = len(values) / 4
    total = weight = 0.0
    for rank, value in enumerate(sorted(values)):
        share = max(0.0, min(rank + 1, len(values) - quarter) - max(rank, quarter))
        total += share * value
        weight += share
    return total / weight


def chance_of_more(x, y):
    """Return how often a value of x is above one of y; ties count half."""
    return statistics.fmean((a > b) + 0.5 * (a == b) for a in x for b in y)


def over_tasks(function, *scores):
    """Return the mean over tasks of a function of one or two arms' scores, each a list by task."""
    return statistics.fmean(function(*each) for each in zip(*scores, strict=True))


def bootstrap(function, scores, source):
    """Return the 95% interval of a function of scores by task, resampled within tasks; percentiles are for few runs."""
    runs = len(scores[0])
    tail = statistics.NormalDist().cdf(-student(0.975, runs - 1) * math.sqrt(runs / (runs - 1)))
    drawn = sorted(
        over_tasks(function, [[source.choice(task) for _ in task] for task in scores]) for _ in range(RESAMPLES)
    )
    return drawn[round(tail * (RESAMPLES - 1))], drawn[round((1 - tail) * (RESAMPLES - 1))]


def student(share, degrees):
    """Return a quantile of Student's distribution above 0.5, by adding up its density."""
    scale = math.gamma((degrees + 1) / 2) / math.sqrt(degrees * math.pi) / math.gamma(degrees / 2)
    x, step = 0.0, 1e-4
    below = 0.5
    while below < share:
        below += step * scale * (1 + (x + step / 2) ** 2 / degrees) ** (-(degrees + 1) / 2)
        x += step
    return x


def aggregates(found, plan, variant, arm, tasks):
    """Return the columns of summary.csv that come from final scores."""
    seeds = complete_seeds(found, plan, variant)
    mine, theirs = (
        [[found[variant, task, name][seed] for seed in seeds] for task in tasks] for name in (arm, plan["reference"])
    )
    low, high = bootstrap(middle_half, mine, random.Random(0))
    return {
        "runs": len(tasks) * len(seeds),
        "iqm": over_tasks(middle_half, mine),
        "iqm_low": low,
        "iqm_high": high,
        "mean": over_tasks(statistics.fmean, mine),
        "better": over_tasks(chance_of_more, mine, theirs),
        "difference": over_tasks(lambda x, y: statistics.fmean(a - b for a, b in zip(x, y, strict=True)), mine, theirs),
    }


def complete_seeds(found, plan, variant):
    """Return the seeds that every arm has finished on every task."""
    return sorted(set.intersection(*(set(found[variant, t, arm]) for t in plan["tasks"] for arm in plan["arms"])))


def larger(worst, difference):
    """Return the larger of two differences, where NaN counts as infinite."""
    return max(worst, math.inf if math.isnan(difference) else abs(difference))


def chain_differences(path, plan, found):
    """Return the largest difference from the column of chains.csv about final scores; nothing without the file."""
    if not path.exists():
        return {}
    published = rows(path)
    changes = sum(len(arms) - 1 for arms in plan["chains"].values())
    variants = {variant for variant, _, _ in found}
    worst = 0.0 if len(published) == len(variants) * changes * (len(plan["tasks"]) + 1) else math.inf
    for row in published:
        levels = []
        for name in ("before", "after"):
            seeds = complete_seeds(found, plan, row["variant"])
            tasks = list(plan["tasks"]) if row["task"] == "all" else [row["task"]]
            scores = [[found[row["variant"], task, row[name]][seed] for seed in seeds] for task in tasks]
            levels.append(over_tasks(middle_half, scores))
        worst = larger(worst, levels[1] - levels[0] - float(row["difference"]))
    return {"chain": worst}


def summary_differences(path, plan, found):
    """Return the largest difference from each column of summary.csv about final scores."""
    published = rows(path)
    variants = {variant for variant, _, _ in found}
    complete = len(published) == len(variants) * len(plan["arms"]) * (len(plan["tasks"]) + 1)
    worst = defaultdict(float) if complete else defaultdict(lambda: math.inf)
    for row in published:
        tasks = list(plan["tasks"]) if row["task"] == "all" else [row["task"]]
        for name, value in aggregates(found, plan, row["variant"], row["arm"], tasks).items():
            worst[name] = larger(worst[name], value - float(row[name]))
    return worst


def differences(folder, curves=True):
    """Return the largest difference from each published column, by name; infinity if rows are missing or too many."""
    with tempfile.TemporaryDirectory() as place:
        study = extracted(Path(folder) / "runs.tar.xz", place)
        plan = yaml.safe_load((study / "plan.yaml").read_text())
        found = final_scores(study)
        worst = summary_differences(Path(folder) / "summary.csv", plan, found)
        worst |= chain_differences(Path(folder) / "chains.csv", plan, found)
        published = [row for row in rows(Path(folder) / "results.csv") if row["phase"] == "test"]
        worst["sampled"] = 0.0 if len(published) == sum(map(len, found.values())) else math.inf
        for row in published:
            own = found[row["variant"], row["task"], row["arm"]].get(int(row["seed"]), math.inf)
            worst["sampled"] = larger(worst["sampled"], own - float(row["sampled"]))
        worst |= wrong_steps(study, plan, published) if curves else {}
    return dict(worst)


def rows(path):
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


if __name__ == "__main__":
    for place in FOLDERS:
        print(place.name)
        for column, difference in differences(place).items():
            print(f"    {column:12} {difference:.2g}")
