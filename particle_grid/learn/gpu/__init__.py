"""What training on a GPU needs beyond a compiled policy: pinned memory, and steps captured as CUDA graphs."""
