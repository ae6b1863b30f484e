"""The one exception that a user is meant to read."""


class UserError(Exception):
    """A setting, a file or a source is not as it must be.

    The message is one line that names the setting or file, its value, what was expected and what to do;
    the command line prints it without a traceback and exits with 1.
    """
