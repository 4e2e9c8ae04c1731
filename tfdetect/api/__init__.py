"""The Python interface: one file per task, with its whole story. The verbs parse flags, call it and print."""
