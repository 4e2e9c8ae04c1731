"""From files to batches: manifest, media, cache, pipeline."""
