"""What a file says of its own origin: metadata, which are shown beside a score and never enter it."""
