"""MAPPO of BenchMARL on ParticleGrid, by way of the adapter for TorchRL: pip install benchmarl.

`python examples/benchmarl_mappo.py` shows the return of an episode of 50 steps of `center`, which is -26 for random
actions and rises. Use an environment of its own: BenchMARL 1.5 requires TorchRL below 0.12.
"""

from collections.abc import Callable
from typing import Any

import torch
from benchmarl.algorithms import MappoConfig
from benchmarl.environments import TaskClass
from benchmarl.experiment import Experiment, ExperimentConfig
from benchmarl.models.mlp import MlpConfig
from torchrl.data import Composite
from torchrl.envs import DTypeCastTransform, Transform

from particle_grid.adapters.torchrl import ParticleGridEnv

WORLD = {"agents": 16, "height": 32, "width": 32, "max_episode_steps": 51}


class ParticleGridTask(TaskClass):
    def get_env_fun(self, num_envs: int, continuous_actions: bool, seed: int | None, device: Any) -> Callable[[], Any]:
        settings = {"worlds": num_envs, "seed": seed, "device": device, **self.config}
        return lambda: ParticleGridEnv(action="continuous", **settings)

    def get_env_transforms(self, env: Any) -> list[Transform]:
        return [DTypeCastTransform(torch.uint8, torch.float32, in_keys=[(g, "observation") for g in env.group_map])]

    def observation_spec(self, env: Any) -> Composite:
        spec = env.observation_spec_unbatched.clone()
        for group in env.group_map:
            del spec[group, "mask"]  # always True, because agents do not respawn here
        return spec

    def action_spec(self, env: Any) -> Composite:
        return env.full_action_spec_unbatched

    def group_map(self, env: Any) -> dict[str, list[str]]:
        return env.group_map

    def max_steps(self, env: Any) -> int:
        return int(self.config["max_episode_steps"])

    def supports_continuous_actions(self) -> bool:
        return True

    def supports_discrete_actions(self) -> bool:
        return False  # BenchMARL's policies choose one number for each agent, and an action has two

    def has_render(self, env: Any) -> None: ...
    def info_spec(self, env: Any) -> None: ...
    def state_spec(self, env: Any) -> None: ...
    def action_mask_spec(self, env: Any) -> None: ...

    @staticmethod
    def env_name() -> str:
        return "particle_grid"


def main(iterations: int = 10, task: str = "center", folder: str = "outputs") -> float:
    """Train, and return the mean return of the last episodes."""
    torch.set_num_threads(1)  # the fastest choice for networks this small
    config = ExperimentConfig.get_from_yaml()
    config.max_n_frames = None
    config.max_n_iters = iterations
    config.save_folder = folder
    config.on_policy_n_envs_per_worker = 4
    config.on_policy_collected_frames_per_batch = 400
    config.on_policy_minibatch_size = 100
    config.on_policy_n_minibatch_iters = 4
    config.loggers = []
    config.evaluation = False
    config.create_json = False
    network = MlpConfig.get_from_yaml()  # of the policy and of the critic
    trial = ParticleGridTask(task, {"task": task, **WORLD})
    experiment = Experiment(trial, MappoConfig.get_from_yaml(), network, 0, config, critic_model_config=network)
    experiment.run()
    return float(experiment.mean_return)


if __name__ == "__main__":
    main()
