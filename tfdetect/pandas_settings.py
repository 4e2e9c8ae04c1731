"""pandas with the settings that tables of file names need; imported late, since it takes a second."""

import pandas as pd

__all__ = ["pd"]

pd.options.mode.string_storage = "python"  # file names need not be UTF-8, but Arrow strings must be
