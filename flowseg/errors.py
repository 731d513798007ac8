"""Errors that name an argument, which commands have as a flag."""

import re


class ArgumentError(ValueError):
    """A value that an argument cannot have, or that does not go with another.

    The message names arguments as the library does, `init_from`; a command shows it with their
    flags, `--init_from` (see `cli.entry`).

    Args:
        message: with the names in it.
        *arguments: the names.
    """

    def __init__(self, message: str, *arguments: str):
        super().__init__(message)
        self.arguments = arguments

    def with_flags(self) -> str:
        """The message as a command says it."""
        names = "|".join(map(re.escape, self.arguments))
        return re.sub(rf"(?<![\w-])({names})(?!\w)", r"--\1", str(self)) if names else str(self)
