"""``mar data``: what a folder or file holds for a data set."""

from __future__ import annotations

from dataclasses import asdict
from json import dumps
from pathlib import Path
from typing import Annotated

from mar.cli.options import Json, Overrides, arg, printer
from mar.core.errors import MarError
from mar.core.progress import bar


def check(
    path: Annotated[str, arg("A folder or file, or kind:path of a data set.")],
    overrides: Overrides = None,
    json: Json = False,
) -> None:
    """List what a folder or file holds for a data set.

    Splits, classes, files left out and unusual images; exits with 2 if training would refuse it.

    Examples:

        mar data check ~/flowers data.size=64
    """
    from mar import config
    from mar.data import DATA
    from mar.data.check import findings, guess
    from mar.data.files import printable

    kind, inside = DATA.split(path)
    if kind not in DATA or Path(path).expanduser().exists():
        kind, inside = guess(Path(path).expanduser()), path
    given = {"path": inside} if inside else {}
    recipe = config.parse({"data": {"kind": kind, **given}}, overrides or [])
    options = DATA.options(recipe.data.kind, recipe.data.model_extra or {})
    found, refusal = [], None
    with bar("files", not json) as progress:
        try:
            for finding in findings(DATA[recipe.data.kind], options, progress):
                found.append(finding)
        except MarError as error:
            refusal = error
    if json:
        print(dumps([asdict(finding) for finding in found], indent=1))
    else:
        for finding in found:
            some = ", ".join(finding.files[:3]) + (", …" if len(finding.files) > 3 else "")
            printer()(printable(f"{finding.count:>10,} {finding.what}{': ' if some else ''}{some}"))
    if refusal is not None:
        raise refusal
