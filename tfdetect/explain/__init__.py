"""Show which regions of an image or video drive a detector's score."""
