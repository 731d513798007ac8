"""Pages of pictures in a folder that can be sent on, and what more than one of them draws."""

import cv2
import numpy as np

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


def shrink_flow(flow, size):
    """(H, W, 3) flow (u, v, valid) made smaller for a picture; its vectors keep their length.

    Sparse flow is spread over its neighbours, as single points would be lost to the eye.

    Args:
        flow: unknown vectors must be 0.
        size: (width, height) in px.
    """
    # Means of (u, v) over means of valid are means of what is known.
    small = cv2.resize(flow, size, interpolation=cv2.INTER_AREA)
    small = np.where(small[..., 2:] > 0, small, cv2.blur(small, (3, 3)))
    share = small[..., 2:]
    known = share > 0
    return np.dstack([small[..., :2] / np.where(known, share, 1), known]).astype(np.float32)
