"""One model generating an image along each of several plans: the step map, the image so far, and its nats so far.

usage: python scripts/orderings_gif.py RUN OUT.gif [PLAN …]

All panels take the same time. The film starts half-way, so that a still of its first frame shows a generation.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont

import mar
from mar.demo.session import Generation, Request, Session
from mar.sampling.output import to_bytes
from orderings.draw import INK, NOW, PAPER, UNKNOWN, palette

PLANS = ("raster", "spiral/cosine:16", "random", "subsample/cosine:8")
SIDE, MAP, GAP, FRAMES = 168, 84, 18, 32  # pixels of an image, of a map and between them; frames of the film
LABEL, SEED, GUIDANCE = 9, 3, 2.0  # nats are those at guidance 1


def step_map(made: Generation, session: Session, done: int) -> Image.Image:
    """The cells in the colours of their steps; those after step ``done`` pale, the present ones marked."""
    last = int(made.plan.n_steps_B) - 1
    colours = palette(last + 1)
    step_N = made.plan.step_BL[0].reshape(-1, session.channels).amax(1).tolist()
    picture = Image.new("RGB", (session.columns, session.rows))
    draw = ImageDraw.Draw(picture)
    for cell, step in enumerate(step_N):
        colour = NOW if step == done < last else colours[step] if step <= done else UNKNOWN
        draw.point((cell % session.columns, cell // session.columns), colour)
    return picture.resize((MAP, MAP), Image.Resampling.NEAREST)


def image(made: Generation, session: Session, shown: int) -> Image.Image:
    """The image after a step, with cells that are not known yet left blank."""
    pixels = to_bytes(made.frames[shown], session.run.spec.levels)[0]
    known_L = made.plan.step_BL[0] <= made.shown[shown]
    known = known_L.reshape(session.rows, session.columns, -1).all(-1)
    across, down = pixels.shape[1] // session.columns, pixels.shape[0] // session.rows
    known = known.repeat_interleave(down, 0).repeat_interleave(across, 1)[..., None]
    blank = torch.tensor(list(bytes.fromhex(UNKNOWN[1:])), dtype=torch.uint8)
    drawn = torch.where(known, pixels, blank)
    return Image.fromarray(drawn.numpy()).resize((SIDE, SIDE), Image.Resampling.NEAREST)


def frame(films: dict[str, Generation], session: Session, share: float) -> Image.Image:
    """All panels after a share of their steps."""
    large, small = ImageFont.load_default(size=15), ImageFont.load_default(size=13)
    width, height = GAP + len(films) * (SIDE + GAP), MAP + SIDE + 4 * GAP + 24
    canvas = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(canvas)
    for column, (plan, made) in enumerate(films.items()):
        shown = min(len(made.frames) - 1, int(share * len(made.frames)))
        done, left = made.shown[shown], GAP + column * (SIDE + GAP)
        draw.text((left + SIDE // 2, GAP), plan, INK, large, anchor="mm")
        canvas.paste(step_map(made, session, done), (left + (SIDE - MAP) // 2, 2 * GAP))
        canvas.paste(image(made, session, shown), (left, 3 * GAP + MAP))
        said = f"step {done + 1} of {int(made.plan.n_steps_B)}"
        said += f"   {made.nats[done]:.0f} nats" if made.nats else ""
        draw.text((left + SIDE // 2, height - GAP), said, INK, small, anchor="mm")
    return canvas


def main() -> None:
    run, out = mar.load(sys.argv[1]), Path(sys.argv[2])
    with tempfile.TemporaryDirectory() as folder:
        session = Session(run, Path(folder))
        label = LABEL if session.classes else None
        films = {
            plan: session.generate(Request(plan, label=label, guidance=GUIDANCE if session.classes else 1.0, seed=SEED))
            for plan in sys.argv[3:] or PLANS
        }
    shares = [(k + FRAMES // 2) % FRAMES / (FRAMES - 1) for k in range(FRAMES)]
    pictures = [frame(films, session, share).quantize(48, dither=Image.Dither.NONE) for share in shares]
    times = [2500 if share == 1.0 else 110 for share in shares]
    out.parent.mkdir(parents=True, exist_ok=True)
    pictures[0].save(out, save_all=True, append_images=pictures[1:], duration=times, loop=0)
    print(f"{len(pictures)} frames: {out}")


if __name__ == "__main__":
    main()
