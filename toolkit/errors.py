"""What a person can mend, and the rules of data by name."""

from __future__ import annotations

from typing import Any


class UserError(Exception):
    """Bad input that its author can mend.

    The message is one line that names the file, the place and the rule, and says what to do. The command line
    prints it without a traceback and exits with code 2; from Python it is an ordinary exception.
    """


class RuleError(Exception):
    """A rule of `toolkit.data.findings` is broken.

    Args:
        code: the rule's name there.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code

    def __reduce__(self) -> tuple[Any, ...]:
        # Exceptions come back from worker processes by their first argument alone otherwise.
        return type(self), (self.code, str(self))
