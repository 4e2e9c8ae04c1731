"""Read image and video files as uint8 RGB frames: upright, at native size, with limits on hostile input."""
