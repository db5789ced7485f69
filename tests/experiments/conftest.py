"""Fixtures that several tests of experiments share."""

from tests.experiments.fakes import trained, without_figures  # noqa: F401
