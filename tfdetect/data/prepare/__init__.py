"""Decode the files of a manifest into the clip cache, with local processes or Apache Beam."""
