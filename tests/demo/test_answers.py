"""What the page is sent: scenes and movies as plain values, and messages in place of errors."""

from __future__ import annotations

import base64
import io
import json
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from urllib.parse import parse_qsl

import numpy as np
import pytest
import torch
from PIL import Image

from mar.core.errors import UserError
from mar.demo.answers import (
    Misfit,
    drawn_on,
    film_files,
    link,
    linked,
    preview,
    race,
    read_picture,
    request_of,
    table,
    to_levels,
)
from mar.demo.session import Request, Session
from mar.sampling.output import to_bytes
from tests.demo.conftest import session_of


def opened(address: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.removeprefix("data:image/png;base64,")))))


def board(painted=(), given=(), drawn=()):
    return {"painted": list(painted), "given": list(given), "drawn": list(drawn)}


def film(session, request):
    *_, (value, _) = race(session, [request])
    return value["films"][0]


def test_a_bad_plan_is_a_message_with_the_nearest_good_one(session):
    _, message = preview(session, Request("spirl/cosine:16"))
    assert "did you mean 'spiral'" in message and "\n" not in message


def test_no_film_comes_of_a_bad_plan_and_the_field_is_named(session):
    for field, plans in {"plan": ("raster/linear:900", "raster"), "rival": ("raster", "spirl")}.items():
        with pytest.raises(Misfit) as refused:
            list(race(session, [Request(plan) for plan in plans]))
        assert refused.value.field == field


def test_the_scene_holds_the_step_of_each_cell_and_the_picture(session):
    picture = session.test_image(0)[0]
    scene, message = preview(session, Request("raster/equal:8", given=(0, 9), picture=picture))
    assert message == "" and (scene["rows"], scene["columns"]) == (8, 8)
    assert scene["step"][0] == scene["step"][9] == -1 and scene["step"][1] == 0
    assert np.array_equal(opened(scene["picture"]), to_bytes(picture[None], 17)[0].numpy())


def test_an_order_found_along_the_way_has_no_steps_to_show_beforehand(session):
    scene, message = preview(session, Request("lowest-entropy/linear:16"))
    assert scene["step"] is None and message == ""


def test_a_film_is_json_whose_last_frame_is_the_image(session):
    request = Request("spiral/linear:8", label=3)
    found = json.loads(json.dumps(film(session, request)))
    image = session.generate(request).image
    assert np.array_equal(opened(found["frames"][-1]), to_bytes(image, 17)[0].numpy())
    assert found["tokens"][-1] == 64 and len(found["nats"]) == found["steps"] == 8 and found["label"] == "3"
    assert found["done"] and len(base64.b64decode(found["entropy"][0])) == 64


def test_two_orders_race_a_step_each_in_turn(session):
    requests = [Request("raster/linear:8", label=3), Request("random/linear:4", label=3)]
    values = [value["films"] for value, _ in race(session, requests)]
    assert [len(film["nats"]) for film in values[0]] == [1, 1]
    assert [film["nats"] for film in values[-1]] == [session.generate(request).nats for request in requests]
    assert all(film["done"] for film in values[-1])


def test_a_link_holds_plan_cells_pixels_class_and_seed(session):
    request = request_of(
        session, board((5, 6), (7, 63), [[7, 255, 255, 255]]), session.test_image(2)[0],
        Request("painted/cosine:16", label=4, seed=9, guidance=2.5, temperature=0.5),
    )  # fmt: skip
    query = dict(parse_qsl(link(session, request).removeprefix("?")))
    found = linked(session, query)
    kept = torch.zeros(1, 8, 8, dtype=torch.uint8)
    kept.flatten()[[7, 63]] = request.picture.flatten()[[7, 63]]
    assert torch.equal(found.picture, kept)
    assert replace(found, picture=None) == replace(request, picture=None)
    assert torch.equal(session.generate(found).image, session.generate(request).image)


@pytest.mark.parametrize(
    "query",
    [{"given": "999"}, {"given": "3", "pixels": "!!"}, {"given": "3", "pixels": "eNr7DwABAAEA"}, {"seed": "x"},
     {"seed": "-5"}, {"class": "100000000000000000000"}, {"guidance": "inf"}, {"given": "3"}],
)  # fmt: skip
def test_a_damaged_link_is_refused_in_one_line(session, query):
    with pytest.raises(Misfit) as refused:
        linked(session, query)
    assert "\n" not in str(refused.value)


def test_the_film_is_saved_as_a_gif_and_its_end_as_a_png(session, tmp_path):
    own = Session(session.run, tmp_path)
    *_, (_, made) = race(own, [Request("raster/linear:8"), Request("random/linear:4")])
    gif, png = film_files([("raster", made[0]), ("random", made[1])], own)
    with Image.open(gif) as film, Image.open(png) as still:
        assert film.n_frames > 8 and film.size == still.size
        film.seek(film.n_frames - 1)
        assert np.abs(np.asarray(film.convert("L"), int) - np.asarray(still.convert("L"), int)).mean() < 2
    for number in range(110):
        (tmp_path / f"film-{number}.gif").write_bytes(b"")
    film_files([("raster", made[0])], own)
    assert len(list(tmp_path.glob("film-*.gif"))) == 100


def test_the_table_of_orders_names_the_own_one_and_escapes_it(session):
    *_, rows = session.standings(Request("random"), images=4)
    shown = table(rows, "random")
    assert "<b>random</b>" in shown and "reference" in shown and "bits/dim" in shown
    assert "<script>" not in table([replace(rows[0], plan="<script>")], "random")


def test_what_is_painted_given_and_drawn_on_the_board_is_what_is_asked_for(session):
    request = request_of(session, board((5, 6), (7,), [[7, 255, 255, 255]]), None, Request("painted"))
    assert (request.painted, request.given) == ([5, 6], [7])
    assert int(request.picture[0, 0, 7]) == 16 and int(request.picture.sum()) == 16
    movie = film(session, request)
    assert movie["step"][7] == -1 and movie["step"][5] == 0 and movie["step"][6] == 1


def test_drawing_leaves_the_picture_itself_alone(session):
    picture = torch.zeros(1, 8, 8, dtype=torch.uint8)
    drawn_on(session, picture, board(drawn=[[0, 255, 255, 255]]))
    assert int(picture.sum()) == 0


def test_pictures_that_were_shown_come_back_exactly(session):
    x = torch.arange(17, dtype=torch.uint8).repeat(4)[:64].reshape(1, 8, 8)
    assert torch.equal(to_levels(to_bytes(x[None], 17)[0].numpy(), session), x)


def test_an_uploaded_picture_is_scaled_to_the_model_and_a_broken_one_refused(session, tmp_path):
    Image.new("RGB", (40, 30), (255, 255, 255)).save(tmp_path / "white.png")
    assert torch.equal(read_picture(session, tmp_path / "white.png"), torch.full((1, 8, 8), 16, dtype=torch.uint8))
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match="cannot read the picture"):
        read_picture(session, tmp_path / "broken.png")


@pytest.mark.parametrize(
    ("request_", "on_board", "said"),
    [
        (Request("raster", seed=-5), {}, "the seed is a whole number from 0"),
        (Request("raster", seed=math.nan), {}, "the seed is a whole number"),
        (Request("raster", label=10**20), {}, "the class is a whole number from 0 to 9"),
        (Request("raster", label="ten"), {}, "the class is a whole number from 0 to 9"),
        (Request("raster", guidance=math.inf), {}, "guidance is a number from 0"),
        (Request("raster"), {"given": [10**9]}, "a cell is a whole number from 0 to 63"),
        (Request("raster"), {"painted": ["x"]}, "a cell is a whole number"),
        (Request("raster"), {"drawn": [[64, 0, 0, 0]]}, "a pixel is a whole number from 0 to 63"),
    ],
)
def test_values_that_a_client_makes_up_are_refused_in_one_line(session, request_, on_board, said):
    with pytest.raises(UserError, match=said) as refused:
        request_of(session, board(**on_board), None, request_)
    assert "\n" not in str(refused.value)


def test_a_class_is_chosen_by_number_or_name(session):
    for label in (3, "3", 3.0):
        assert request_of(session, None, None, Request("raster", label=label)).label == 3


def test_a_small_file_of_a_huge_picture_is_refused_before_it_is_unpacked(session, tmp_path):
    Image.new("1", (30_000, 30_000)).save(tmp_path / "bomb.png")
    with pytest.raises(UserError, match=r"bomb\.png: .*pixels"):
        read_picture(session, tmp_path / "bomb.png")


def test_files_of_the_machine_are_read_for_its_own_user_alone(session, tmp_path):
    path = session.order_file([5])
    assert preview(session, Request(f"file:{path}"))[1] == ""
    public = Session(session.run, tmp_path, reads_files=False)
    for plan in (f"file:{path}", "file:/etc/passwd", "random/optimal:costs=/etc/passwd:k=4"):
        assert "reads no files" in preview(public, Request(plan))[1]
    assert preview(public, Request("painted", [5]))[1] == ""


def test_twenty_clients_at_once_are_answered_as_one_would_be(session):
    requests = [Request("random/equal:16", label=k % 10, seed=k) for k in range(20)]
    with ThreadPoolExecutor(20) as clients:
        together = list(clients.map(lambda request: film(session, request), requests))
    assert together == [film(session, request) for request in requests]


def test_painted_orders_fill_no_disk(session, tmp_path):
    public = Session(session.run, tmp_path)
    for cell in range(1010):
        public.order_file([cell % 64, 64 + cell // 64])
    assert len(list(tmp_path.glob("order-*.json"))) <= 1000


def test_the_cells_of_patches_are_larger_than_pixels(tmp_path):
    session = session_of(tmp_path, "tokenizer=patches", "tokenizer.patch=4", "head=gaussian-mixture")
    movie = film(session, Request("raster", given=(0,)))
    assert (movie["rows"], movie["columns"]) == (2, 2) and movie["entropy"] == []
    assert movie["step"] == [-1, 0, 1, 2] and opened(movie["frames"][0]).shape == (8, 8, 3)
