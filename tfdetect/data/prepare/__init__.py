"""Manifest -> decoded clips in the cache, by local processes or Apache Beam."""
