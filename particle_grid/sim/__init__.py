"""The simulator: numpy arrays and Numba kernels, nothing else."""
