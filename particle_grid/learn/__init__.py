"""Learning: policies, PPO and the trainer, in plain torch. Knows an environment only by its buffers."""
