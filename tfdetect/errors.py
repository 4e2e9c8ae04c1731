"""The error that a user can mend."""


class UserError(ValueError):
    """What came, what was expected and how to fix it, in one sentence; the command line shows it without a traceback.

    Any other exception but an OSError is a bug of the program, or of a library that it uses.
    """
