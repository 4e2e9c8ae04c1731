"""File -> uint8 RGB frames, upright, at native size; limits on hostile input."""
