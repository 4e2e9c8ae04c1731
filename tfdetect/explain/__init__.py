"""Where in a picture a detector sees what it says."""
