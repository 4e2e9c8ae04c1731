"""The directory trees that data sets ship in -> manifest."""
