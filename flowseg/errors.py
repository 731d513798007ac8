"""Errors that name an argument, which commands have as a flag."""

import re
from pathlib import Path


class ArgumentError(ValueError):
    """A value that an argument cannot have, or that does not go with another.

    The message names arguments as the library does, `init_from`; a command shows it with their
    flags, `--init_from` (see `cli.entry`).

    Args:
        message: with the names in it.
        *arguments: the names.
        path: file or folder that the message is about, put before it. No part of it is an argument.
    """

    def __init__(self, message: str, *arguments: str, path: Path | str | None = None):
        self.arguments = arguments
        self.prefix = "" if path is None else f"{path}: "
        super().__init__(self.prefix + message)

    def with_flags(self) -> str:
        """The message as a command says it.

        A name that is part of a path (`next/0.png`) or a value (`photos=photos`) is no argument.
        """
        message = str(self).removeprefix(self.prefix)
        if self.arguments:
            names = "|".join(map(re.escape, self.arguments))
            pattern = rf"(?<![\w/.=-])({names})(?![\w/]|\.\w)"
            message = re.sub(pattern, r"--\1", message)
        return self.prefix + message
