"""From a state to a picture."""
