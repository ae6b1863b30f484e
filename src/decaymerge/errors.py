"""The only exception that is written for users."""


class UserError(Exception):
    """A setting, a file or a source is not as it must be.

    The message is one line that names the setting or file, its value, what was expected and what to do. The command
    line prints the message without a traceback and exits with 1.
    """
