"""Names with brackets and braces are no markup, wherever a command shows them."""

from __future__ import annotations

import pytest

from mar.core.progress import bar, wide_console


@pytest.mark.parametrize("name", ["a[/b]", "[red]x", "{0}", "{task.id}", "100 % [bold"])
def test_a_name_is_shown_letter_by_letter(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with bar(name) as progress:
        progress(1, 2, name)
    wide_console().print(name)
    shown = capsys.readouterr()
    assert name in shown.err and name in shown.out
