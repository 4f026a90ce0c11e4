"""The script that collects what a GPU machine lacks; it runs seldom, and must work then."""

from pathlib import Path
from runpy import run_path

from images import draw_photos
from PIL import Image

PREPARE = run_path(str(Path(__file__).with_name("prepare")))


def test_images_are_shrunk_into_folders_of_their_classes(tmp_path: Path):
    photos = draw_photos(tmp_path / "photos")
    large = photos / "red" / "large.png"
    Image.new("RGB", (1000, 500), "red").save(large)
    assert PREPARE["shrink_images"](photos, tmp_path / "small") == 25
    found = {path.relative_to(tmp_path / "small") for path in (tmp_path / "small").rglob("*.jpg")}
    named = {path.relative_to(photos).with_suffix(".jpg") for path in photos.rglob("*.*")}
    assert found == named
    with Image.open(tmp_path / "small" / "red" / "large.jpg") as image:
        assert image.size == (640, 320)
