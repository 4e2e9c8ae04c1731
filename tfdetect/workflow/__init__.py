"""What the verbs share: reading data sets, scoring, writing results, ensembles, recipes and the console."""
