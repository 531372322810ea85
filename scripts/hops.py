"""Count the calls between files that a command makes.

    python scripts/hops.py [--top N] train digits train.iterations=4 --out runs/hops

Rule: a hop is a Python call whose caller and callee lie in different files of ``mar/`` or ``orderings/``. The caller is
the nearest frame of these files, across frames of torch, typer and other packages. Comprehensions and lambdas are no
callees and no callers: what they call, the function around them calls. Module and class bodies are neither, too: a call
on import (registries, defaults of fields) is no hop. A generator counts once, however often it goes on.
"""

from __future__ import annotations

import runpy
import sys
from collections import Counter
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[1]
ROOTS = tuple(f"{CHECKOUT / name}/" for name in ("mar", "orderings"))
INLINE = ("<listcomp>", "<dictcomp>", "<setcomp>", "<genexpr>", "<lambda>")


def ours(code: CodeType) -> bool:
    return code.co_filename.startswith(ROOTS)


def is_callee(code: CodeType) -> bool:
    """A function of ours with a name; a class body has no new locals of its own."""
    return ours(code) and code.co_name not in (*INLINE, "<module>") and bool(code.co_flags & 0x2)


def counter(found: Counter[tuple[str, str]]) -> Any:
    """A profile function that adds each hop to ``found``."""
    callees: dict[CodeType, bool] = {}

    def profile(frame: FrameType, event: str, argument: Any) -> None:
        code = frame.f_code
        resumed = code.co_flags & 0x20 and frame.f_lasti > 8  # a generator that goes on
        if event != "call" or resumed or not callees.setdefault(code, is_callee(code)):
            return
        caller = frame.f_back
        while caller is not None and (not ours(caller.f_code) or caller.f_code.co_name in INLINE):
            caller = caller.f_back
        if caller is not None and is_callee(caller.f_code) and caller.f_code.co_filename != code.co_filename:
            pair = (caller.f_code.co_filename, code.co_filename)
            found[(str(Path(pair[0]).relative_to(CHECKOUT)), str(Path(pair[1]).relative_to(CHECKOUT)))] += 1

    return profile


def main(arguments: list[str]) -> None:
    top = 0
    if arguments[:1] == ["--top"]:
        top, arguments = int(arguments[1]), arguments[2:]
    sys.path.insert(0, str(CHECKOUT))
    sys.argv = ["mar", *arguments]
    found: Counter[tuple[str, str]] = Counter()
    sys.setprofile(counter(found))
    try:
        runpy.run_module("mar", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if end.code:
            raise
    finally:
        sys.setprofile(None)
    print(f"{found.total():,} hops between {len(found)} pairs of files: mar {' '.join(arguments)}")
    for (caller, callee), count in found.most_common(top):
        print(f"{count:>7,}  {caller} -> {callee}")


if __name__ == "__main__":
    main(sys.argv[1:])
