"""Export a trained model as a SavedModel, and predict files with it."""
