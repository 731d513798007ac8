"""Starts commands: parses their flags and reports errors as one line on stderr.

Import this before TensorFlow or Keras: `console` quiets TensorFlow's start-up log.
"""

import io
import os
import re
import sys
import traceback
from collections.abc import Callable

from absl import app, flags, logging

from flowseg import console  # noqa: F401  (quiets TensorFlow's start)
from flowseg.errors import ArgumentError

_HELP = {"--help", "-help", "--helpshort", "-h", "-?"}
# Packages whose flags --help shows; absl and other libraries define dozens more.
_PACKAGES = {"flowseg", "data_prep", "export"}


def run(main: Callable[[], object], usage: str | None = None) -> None:
    """Parse the flags, call `main()` and exit: 0, 1 after an error, 130 after Ctrl-C.

    An invalid flag, and a ValueError, OSError or TensorFlow error from `main`, are reported as one
    line on stderr; the environment variable FLOWSEG_DEBUG=1 shows the traceback instead. Any other
    exception is a bug and keeps its traceback.

    Args:
        main: function without arguments that reads `absl.flags.FLAGS`.
        usage: text that `--help` prints above the flags; default: docstring of main's module.
    """

    def parse(argv):
        if _HELP & set(argv[1:]):
            _print_help(_help(main, usage))
            sys.exit(0)
        try:
            rest = flags.FLAGS([*argv[:1], *_read_flagfiles(argv[1:])])[1:]
        except UnicodeDecodeError as error:
            _fail(f"--flagfile: not UTF-8 text ({error})")
        except flags.Error as error:
            _fail(f"{error} (--help lists the flags)")
        if rest:
            _fail(f"unexpected argument {rest[0]!r}: every flag begins with -- (see --help)")
        return argv[:1]

    # Names of files may contain bytes that are not valid UTF-8. stderr escapes them already.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    app.run(lambda _: _guard(main), flags_parser=parse)


def _print_help(text):
    try:
        print(text, flush=True)
    except BrokenPipeError:  # `--help | head`: nobody reads the rest.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _read_flagfiles(arguments):
    """Replace --flagfile by the lines of the file, without a byte order mark at its beginning.

    Editors on Windows write that mark, which Absl takes for a part of the first line.
    """
    lines = []
    for argument in flags.FLAGS.read_flags_from_files(arguments, force_gnu=False):
        line = argument.removeprefix("\ufeff")
        if line == argument or not re.match(r"\s*(#|//|$)", line):
            lines.append(line)
    return lines


def _guard(main):
    # TensorFlow's export logs every file that it writes.
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)
    try:
        return main()
    except KeyboardInterrupt as error:
        print(": ".join(["stopped", *map(str, error.args)]), file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        if not isinstance(error, expected_errors()):
            raise
        if os.environ.get("FLOWSEG_DEBUG") == "1":
            traceback.print_exc()
            sys.exit(1)
        _fail(message(error))


def expected_errors() -> tuple[type[Exception], ...]:
    """Exceptions that are reported in one line; any other is a bug."""
    # TensorFlow is looked up, not imported: commands that do not need it start 4 s faster.
    tensorflow = sys.modules.get("tensorflow")
    return (ValueError, OSError, *([tensorflow.errors.OpError] if tensorflow else []))


def message(error: Exception) -> str:
    """Return the user-facing message of an expected error."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if isinstance(error, ArgumentError):
        return error.with_flags()
    if isinstance(error, UnicodeEncodeError):
        # A name with bytes that are not valid UTF-8, for a library that needs UTF-8.
        return f"{error.object}: not valid UTF-8: rename this file or folder"
    # Only TensorFlow errors have `message`, which starts with the name of the graph function.
    text = re.sub(r"\{\{[^}]*\}\} ?", "", getattr(error, "message", None) or str(error))
    return text or type(error).__name__


def _fail(text):
    text = " ".join(str(text).split("\n")) + _hint(str(text))
    print(f"error: {text}", file=sys.stderr)
    sys.exit(1)


def _hint(text):
    """Return a note if the error is about a path of the command line with backslashes."""
    values = (argument.partition("=")[2] or argument for argument in sys.argv[1:])
    paths = (path for path in values if "\\" in path and path in text)
    if os.sep == "/" and any(not os.path.lexists(path) for path in paths):
        return " (a Windows path? FlowSeg needs / instead of \\ here)"
    return ""


def _help(main, usage):
    module = main.__module__
    text = usage or sys.modules[module].__doc__ or ""
    # absl lists the flags of `python -m` under the program's path, not under "__main__".
    name = sys.argv[0] if module == "__main__" else module
    shown = {
        flag.name: flag
        for source, defined in flags.FLAGS.flags_by_module_dict().items()
        if source == name or source.split(".")[0] in _PACKAGES
        for flag in defined
    }
    lines = [f"  --{flag.name}: {_flag_help(flag)}" for _, flag in sorted(shown.items())]
    return "\n".join([text.strip(), "", "Flags:", *lines, "", "--helpfull adds absl's flags."])


def _flag_help(flag):
    default = "" if flag.default in (None, []) else f" (default: {flag.default})"
    return " ".join(flag.help.split()) + default
