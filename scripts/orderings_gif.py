"""One model generating an image along each of several plans: the step map, the image so far, and its nats so far.

usage: python scripts/orderings_gif.py OUT.gif [RUN] [PLAN …]    # RUN: default the run of mar demo

All panels take the same time. The film starts half-way, so that a still of its first frame shows a generation.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import mar
from mar.demo.answers import film_frame, save_gif
from mar.demo.session import Request, Session, bundled

PLANS = ("raster", "spiral/cosine:16", "random", "subsample/cosine:8")
FRAMES, LABEL, SEED, GUIDANCE, TEMPERATURE = 32, 9, 1, 3.0, 0.9  # nats are those at guidance 1, temperature 1


def main() -> None:
    out, rest = Path(sys.argv[1]), sys.argv[2:]
    run = mar.load(rest[0]) if rest else bundled()
    with tempfile.TemporaryDirectory() as folder:
        session = Session(run, Path(folder))
        label, guidance = (LABEL, GUIDANCE) if session.classes else (None, 1.0)
        chosen = {"label": label, "guidance": guidance, "temperature": TEMPERATURE, "seed": SEED}
        films = [(plan, session.generate(Request(plan, **chosen))) for plan in rest[1:] or PLANS]
        shares = [(k + FRAMES // 2) % FRAMES / (FRAMES - 1) for k in range(FRAMES)]
        out.parent.mkdir(parents=True, exist_ok=True)
        save_gif([film_frame(films, session, share) for share in shares], shares, out)
    print(f"{len(shares)} frames: {out}")


if __name__ == "__main__":
    main()
