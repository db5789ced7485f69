"""Tasks written as users write theirs: each is one file, imports `particle_grid.tasks`, and is an entry point."""
