"""What a data set is made of: properties of its files, shortcuts, duplicates."""
