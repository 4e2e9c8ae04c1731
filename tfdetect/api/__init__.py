"""The Python interface: one file for each thing that one does, with its whole story. The verbs are thin over it."""
