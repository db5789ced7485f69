"""Hydra finds its plugins in packages of `hydra_plugins`. Each program with Hydra imports these: they import little."""
