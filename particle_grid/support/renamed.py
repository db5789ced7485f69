"""Names that earlier versions used, each with its successor."""

SETTINGS = {
    "world.horizon": "world.max_episode_steps",
    "trainer.horizon": "trainer.rollout_length",
    "trainer.lanes": "trainer.env_splits",
    "policy.first_move": "policy.init_action_rms",
}
ARRAYS = {"wish": "desired_move", "met": "entered_cell"}  # of a saved simulator state


def successor(group: str, key: str) -> str | None:
    """Return the new name of a setting, without its group, or None if it was not renamed."""
    new = SETTINGS.get(f"{group}.{key}")
    return new and new.partition(".")[2]
