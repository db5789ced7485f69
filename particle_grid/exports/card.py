"""Model cards: what a policy does, how to run it, how it was trained and how it scores. Unknown facts are left out."""

import inspect
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from particle_grid.evaluation.scoring import LABELS
from particle_grid.exports import onnx
from particle_grid.learn.policy import Policy
from particle_grid.runs.load import Checkpoint
from particle_grid.runs.results import Results
from particle_grid.sim import tasks
from particle_grid.sim.task import team_names
from particle_grid.support.text import as_written, printable

SUFFIX = ".md"
WITH_ONNX = """
```python
import json
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession({file})
contract = json.loads(session.get_modelmeta().custom_metadata_map["particle_grid"])
n = 64  # agents
inputs = {{x["input"]: np.zeros((n, *x["shape"][1:]), x["dtype"]) for x in contract["state"]}}
inputs["observations"] = np.zeros((n, {size}), np.uint8)  # from your environment
inputs["starts"] = np.ones(n, bool)  # agents whose episode begins now
action, head_outputs, value, *state = session.run(None, inputs)  # pass `state` to the next step
```

The contract describes every input and output, and how to sample actions from `head_outputs`.
"""
WITH_PACKAGE = """
```python
import particle_grid

policy = particle_grid.load_policy({arguments})
env = policy.make_env(agents=64, height=48, width=48)
act = policy.player(env)
```
"""


def model_card(saved: Checkpoint, policy: Policy, results: Results, files: Sequence[Path]) -> str:
    """Return the card of a policy as Markdown, with front matter in YAML for model hubs.

    Args:
        saved: what the policy was loaded from.
        policy: with its weights.
        results: final scores of its run; empty if they are unknown.
        files: what lies beside the card: the policy in one format or several.
    """
    config = saved.config
    parts = [
        f"---\n{yaml.safe_dump(_front_matter(saved, results, files), sort_keys=False)}---\n",
        f"# {_title(saved)}\n",
        _purpose(config.task),
        f"A `{config.policy}` policy with {_size(policy):,} weights for the task `{config.task}` with {config.action} "
        f"actions, trained with PPO for {saved.steps:,} agent-steps (seed {config.seed}).\n",
        "## Use\n",
        *(_usage(saved, policy, file) for file in files),
        *_scores(saved, results),
        f"## Limits\n\n{_limits(saved)}",
        "## Training\n\n| setting | value |\n|---|---|\n" + "".join(_settings(saved)),
    ]
    if saved.score is not None:
        parts.append("## Licence\n\nMIT. The policy ships with particle_grid, which has the same licence.\n")
    return "\n".join(filter(None, parts))


def _title(saved: Checkpoint) -> str:
    return f"{saved.config.task}, {saved.config.action} actions"


def _size(policy: Policy) -> int:
    return sum(x.numel() for x in policy.parameters())


def _purpose(task: str) -> str:
    """Return the summary of the module that defines a task, if it has one."""
    text = inspect.getdoc(inspect.getmodule(tasks.load(task)))
    return text.split("\n\n")[0] + "\n" if text else ""


def _front_matter(saved: Checkpoint, results: Results, files: Iterable[Path]) -> dict[str, Any]:
    config = saved.config
    licence = {} if saved.score is None else {"license": "mit"}
    kinds = [file.suffix.removeprefix(".") for file in files]
    values: dict[str, Any] = {
        **licence,
        "library_name": "particle-grid",
        "pipeline_tag": "reinforcement-learning",
        "tags": ["reinforcement-learning", "multi-agent", "ppo", f"{config.action}-actions", config.task, *kinds],
    }
    score = results.mean("sampled") if results.scores else saved.score
    if score is None or np.isnan(score):
        return values
    result = {
        "task": {"type": "reinforcement-learning"},
        "dataset": {"type": "particle_grid", "name": _title(saved)},
        "metrics": [{"type": "normalised_score", "name": "mean normalised score, sampled actions", "value": score}],
    }
    return values | {"model-index": [{"name": _title(saved), "results": [result]}]}


def _usage(saved: Checkpoint, policy: Policy, file: Path) -> str:
    """Return how to run one of the files."""
    name = printable(file.name)
    if file.suffix == onnx.SUFFIX:
        code = WITH_ONNX.format(file=json.dumps(name), size=policy.observation_size)
        return f"With ONNX Runtime and NumPy only:\n{code}"
    places = saved.config.places()
    allowed = f", allow={json.dumps(places)}" if places else ""
    return f"With particle_grid:\n{WITH_PACKAGE.format(arguments=json.dumps(name) + allowed)}"


def _scores(saved: Checkpoint, results: Results) -> list[str]:
    """Return the section on scores, if there are any."""
    scale = "A normalised score is 0 for random actions and 1 for the task's script."
    if not results.scores:
        if saved.score is None:
            return []
        return [f"## Scores\n\nSampled actions have a mean normalised score of {saved.score:.2f}. {scale}\n"]
    kind: Any = tasks.load(saved.config.task)
    count = len(next(iter(results.scores.values())))
    rows = []
    for player, scores in results.scores.items():
        normalised = results.by_team(player)
        for k, team in enumerate(team_names(kind) or ["all agents"]):
            rows.append(f"| {LABELS[player]} | {team} | {_spread(scores[:, k])} | {_spread(normalised[:, k])} |\n")
    return [
        f"## Scores\n\nMean ± standard deviation over {count} episodes in the training world. Unit: {kind.unit}. "
        f"{scale}\n",
        "| player | team | score | normalised score |\n|---|---|---|---|\n" + "".join(rows),
    ]


def _spread(scores: np.ndarray) -> str:
    return f"{scores.mean():z.3f} ± {scores.std():.3f}"


def _limits(saved: Checkpoint) -> str:
    world = saved.config.world
    return (
        f"- Observations must cover {world.vision} cells in each direction, in the layout that the file's metadata "
        f"specifies.\n"
        f"- The policy was trained on this task only, with {world.agents} agents on {world.height} x {world.width} "
        f"cells. Its behaviour in other settings has not been measured.\n"
    )


def _settings(saved: Checkpoint) -> Iterator[str]:
    """Yield a row for each setting that decides what was learned."""
    for key, value in saved.config.flat().items():
        if key.startswith(("task.", "policy.", "world.", "trainer.")):
            yield f"| `{key}` | {as_written(value)} |\n"
