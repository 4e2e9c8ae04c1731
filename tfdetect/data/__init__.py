"""From files to batches: manifests, media readers, the clip cache and the input pipeline."""
