"""Defines errors about arguments, which commands report with the names of their flags."""

import re
from pathlib import Path


class ArgumentError(ValueError):
    """An argument has an invalid value, or one that conflicts with another argument.

    The message uses the names of Python arguments (`init_from`); commands show them as flags
    (`--init_from`; see `cli.entry`).

    Args:
        message: text that contains the names of the arguments.
        *arguments: these names.
        path: file or folder that the message is about. It is put in front of the message; names of
            arguments in it are not converted to flags.
    """

    def __init__(self, message: str, *arguments: str, path: Path | str | None = None):
        self.arguments = arguments
        self.prefix = "" if path is None else f"{path}: "
        super().__init__(self.prefix + message)

    def with_flags(self) -> str:
        """Return the message with arguments spelled as flags.

        A name inside a path (`next/0.png`) or a value (`photos=photos`) is not an argument.
        """
        message = str(self).removeprefix(self.prefix)
        if self.arguments:
            names = "|".join(map(re.escape, self.arguments))
            pattern = rf"(?<![\w/.=-])({names})(?![\w/]|\.\w)"
            message = re.sub(pattern, r"--\1", message)
        return self.prefix + message
