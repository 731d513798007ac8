"""Recognises files and folders that operating systems and file managers leave in data sets."""

import re
from collections.abc import Iterable
from pathlib import Path, PurePath

# Compared in lower case. Names that begin with a dot (._0001.png, .DS_Store, .AppleDouble,
# .Trashes) are left out in any case.
_NAMES = {
    "__macosx", "icon\r", "network trash folder", "temporary items",  # macOS
    "thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini",  # Windows
    "$recycle.bin", "system volume information",
    "@eadir", "#recycle", "@recycle", "@recently-snapshot", "#snapshot",  # network storage
    "lost+found",  # Linux
}  # fmt: skip
# Windows' record of a download, as Linux shows it: 0001.png:Zone.Identifier.
_DOWNLOADED = re.compile(r".+:(zone\.identifier|encryptable)(:\$data)?")


def is_system_file(path: str | PurePath) -> bool:
    """Whether a system left a file or folder of this name; the folders above do not matter.

    True for names that begin with a dot too, which systems hide from users.
    """
    name = PurePath(path).name.lower()
    return name.startswith(".") or name in _NAMES or bool(_DOWNLOADED.fullmatch(name))


def without(paths: Iterable[Path], root: Path) -> list[Path]:
    """Sort paths below `root`, without system files and without the content of system folders."""
    return sorted(
        path for path in paths if not any(map(is_system_file, path.relative_to(root).parts))
    )


def glob(folder: Path, pattern: str) -> list[Path]:
    """Like `folder.glob(pattern)`, sorted and without what systems leave."""
    return without(folder.glob(pattern), folder)
