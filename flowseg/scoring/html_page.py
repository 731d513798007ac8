"""How the project's HTML pages look, and how they are written: whole, or not at all."""

from flowseg import files

_STYLE = """
body { background: #181a1f; color: #e2e4e8; font: 16px/1.5 sans-serif; margin: 2em auto;
       max-width: 1280px; padding: 0 1em }
img { max-width: 100%; display: block; margin: 0 0 1em }
a { color: #8ab4f8 } td, th { padding: .2em 1em .2em 0; text-align: left; font-weight: normal }
td { font-variant-numeric: tabular-nums } code { color: #b8bcc4 }
pre { overflow-x: auto; line-height: 1.35; font-size: 14px } figcaption { color: #b8bcc4 }
figure { margin: 0 0 1em } .error { color: #ff8a80 } .warning { color: #ffd180 }
"""


def write_html(path, title, body):
    """Write a page.

    Args:
        path: its file.
        title: of the window, as HTML.
        body: as HTML.

    Raises:
        OSError: the file cannot be written.
    """
    files.write(
        path,
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        f"<style>{_STYLE}</style>{body}</html>\n",
    )
