"""The one exception for what a person can mend."""

from __future__ import annotations


class UserError(Exception):
    """Bad input that its author can mend.

    The message is one line that names the file, the place and the rule, and says what to do. The command line
    prints it without a traceback and exits with code 2; from Python it is an ordinary exception.
    """
