"""The simulator and the policies in a browser: their own kernels, compiled to WebAssembly."""
