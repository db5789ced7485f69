"""What several tests of experiments share."""

from tests.experiments.fakes import trained, undrawn  # noqa: F401
