"""Loggers of training runs, which take scalars over agent-steps, hyperparameters and films."""

LOGGERS = ("wandb", "trackio", "mlflow", "csv", "tensorboard")
SERVICES = ("wandb", "trackio", "mlflow")  # the libraries of each come with the extra of the same name
