"""Writes HTML pages from Jinja templates, atomically."""

from pathlib import Path

import jinja2

from flowseg import files

# Directory of `base.html.jinja`, which all pages extend.
TEMPLATES = Path(__file__).parent / "templates"


def write_html(path: str | Path, template: Path, **values: object) -> None:
    """Write a page.

    Args:
        path: file to write.
        template: template file; it extends `base.html.jinja`, which shows `title`.
        **values: variables of the template. Text is escaped.

    Raises:
        OSError: the file cannot be written.
        jinja2.UndefinedError: the template uses a variable that is not in `values`.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([template.parent, TEMPLATES]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    files.write(path, environment.get_template(template.name).render(values))
