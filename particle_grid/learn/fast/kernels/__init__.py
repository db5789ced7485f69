"""What the fast networks are compiled from: matrix products, layers, losses and steps of the optimiser."""
