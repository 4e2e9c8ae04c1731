"""The commands, one file each, to be read from top to bottom; the work is done by the other packages."""
