"""Pictures, videos, pages and windows that show the state of a simulation."""
