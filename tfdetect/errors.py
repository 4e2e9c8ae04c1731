"""The exception for mistakes that a user can fix."""


class UserError(ValueError):
    """A mistake that the user can fix.

    The message says in one or two sentences what was given, what was expected and how to fix it; the command line prints
    it without a traceback. Any other exception except OSError is a bug in tfdetect or in a library.
    """
