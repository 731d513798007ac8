"""The project's HTML pages: written from Jinja templates, whole or not at all."""

from pathlib import Path

import jinja2

from flowseg import files

# Of `base.html.jinja`, which pages extend.
TEMPLATES = Path(__file__).parent / "templates"


def write_html(path: str | Path, template: Path, **values: object) -> None:
    """Write a page.

    Args:
        path: its file.
        template: file of its template; it extends `base.html.jinja`, which shows `title`.
        **values: what the template shows. Text is escaped: it need not be HTML.

    Raises:
        OSError: the file cannot be written.
        jinja2.UndefinedError: the template shows a value that is not given.
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
