"""One file for each thing a user can do: the whole story from top to bottom, made of the other packages' parts."""
