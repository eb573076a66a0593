"""The one error that users are meant to see."""


class InputError(Exception):
    """Something the user gave cannot be used.

    Its message is one sentence or a short list that says what is wrong and what to do; the command line
    prints it without a traceback and exits with code 2.
    """
