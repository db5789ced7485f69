"""Export trained policies to other programs: python -m particle_grid.export checkpoint=PATH (see --help)."""

import torch
from omegaconf import DictConfig
from rich.console import Console

from particle_grid.cli import command
from particle_grid.exports import exporter
from particle_grid.runs.build import trained_policy
from particle_grid.runs.load import load_trained
from particle_grid.settings.checks import check_paths
from particle_grid.settings.invocation import Invocation


@command("export")
def main(config: DictConfig, call: Invocation) -> None:
    """Write policies as ONNX models or .safetensors files, each with a model card."""
    check_paths(config, "path")
    formats = exporter.chosen_formats(config.format)
    task = config.task.name if config.get("task") else None
    action = config.action.name if config.get("action") else None
    names = exporter.chosen_policies(config.checkpoint, task, action)
    files = exporter.files_for(names, formats, config.path)
    policies = {name: load_trained(name) for name in names}
    for name in names:
        exporter.check_places(files[name])  # for all policies, before minutes of work
    console = Console(markup=False)
    for name, saved in policies.items():
        policy = trained_policy(saved, torch.device("cpu"))
        for path in exporter.export(saved, policy, files[name], exporter.results_of(name)):
            console.print(f"Saved: {path}", soft_wrap=True)


if __name__ == "__main__":
    main()
