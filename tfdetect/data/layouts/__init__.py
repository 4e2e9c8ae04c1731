"""Read the directory trees that data sets ship in into manifests."""
