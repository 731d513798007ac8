"""Shared code of the commands: flags, start-up and error reporting."""
