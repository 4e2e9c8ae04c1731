"""What verbs share: reading the data set, scoring, writing results, the console."""
