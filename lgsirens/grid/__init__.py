"""Where things are: boxes, the lattice of partitions, coordinates."""
