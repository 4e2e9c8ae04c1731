"""The commands: one file each, which tells its whole story from top to bottom with the parts of the other packages."""
