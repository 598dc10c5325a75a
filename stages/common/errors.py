"""The one error that a user can cause."""


class InputError(ValueError):
    """Bad input: a parameter, a file, a record, a model or a missing network.

    The message says where, what was expected, what came, and what to do next. It never holds a value that may be
    personal data. A stage prints it in one line and exits with 1; anything else is our own mistake and keeps its
    traceback.
    """
