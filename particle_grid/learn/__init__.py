"""Learning in PyTorch: policies, PPO and the trainer. Environments are known only through `learn.collect.Env`."""
