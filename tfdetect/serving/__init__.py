"""From a trained model to verdicts on files."""
