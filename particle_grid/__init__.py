"""particle_grid: thousands of particles on a grid, played with discrete or continuous actions."""

from typing import TYPE_CHECKING, Any

from particle_grid.support import lifeline, startup

if TYPE_CHECKING:
    from particle_grid.env import ParticleGrid

__version__ = "0.1.0"
__all__ = ["ParticleGrid"]

startup.quiet()
lifeline.follow()  # here, before the imports that take seconds: the command that started this process may end meanwhile


def __getattr__(name: str) -> Any:
    """Imports the environment when it is asked for: the simulator alone needs neither PufferLib nor Gymnasium."""
    if name == "ParticleGrid":
        from particle_grid.env import ParticleGrid

        return ParticleGrid
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
