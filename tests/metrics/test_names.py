"""Files and folders have names that tell what differs, and that a file system takes."""

from __future__ import annotations

from mar.core.files import short
from mar.metrics.base import file_name, samples_name


def test_a_text_that_fits_is_its_own_name_and_longer_ones_stay_apart_within_the_limit() -> None:
    assert short("raster", 20) == "raster" and short("x" * 20, 20) == "x" * 20
    names = [short(text, 40) for text in ("x" * 41, "x" * 42, "ö" * 30, "ö" * 31)]
    assert len(set(names)) == 4 and all(len(name.encode()) <= 40 for name in names)


def test_records_of_long_plans_have_names_that_a_folder_takes():
    content = {"split": "test", "n_images": 6, "kind": "exact"}
    ones, twos = (f"random/sizes:{','.join(sizes)}" for sizes in (["1"] * 400, ["2"] * 200))
    names = {file_name(plan, content) for plan in (ones, twos, f"file:{'ö' * 200}.json")}
    assert len(names) == 3 and all(len(name.encode()) < 200 and name.endswith("-test-n6-exact") for name in names)
    assert file_name("random/cosine:8", content) == "random-cosine8-test-n6-exact"


def test_samples_generated_otherwise_lie_in_another_folder() -> None:
    every = [{}, {"guidance": "2"}, {"temperature": "0"}, {"class": "3"}, {"class": "3", "guidance": "2"}, {"top_k": 5},
             {"prompt": "to be?"}, {"prompt": "to be!"}, {"prompt": "o" * 300}, {"prompt": "o" * 301}]  # fmt: skip
    names = [samples_name("random/cosine:8", ways, 0) for ways in every]
    assert len(set(names)) == len(every) and max(len(name.encode()) for name in names) < 200
    assert not any(set("/:? \n") & set(name) for name in names)
    assert names[0] == "random-cosine8-seed0" and samples_name("raster", {}, 7) == "raster-seed7"
