"""The program that an export prints: it runs without xception, and answers as predict does."""

import csv
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from images import COLOURS, SMALL, encoded, photo, put
from networks import CPU, lively_network
from PIL import Image
from profiles import rgb_profile

from xception_cli.data.images import decode
from xception_cli.data.transforms import Preprocessing
from xception_cli.inference import predict_images
from xception_cli.model.about import About
from xception_cli.model.bundle import ModelBundle
from xception_cli.onnx.graph import build_onnx
from xception_cli.onnx.program import hand_over, inference_snippet


@pytest.fixture(scope="module")
def bundle() -> ModelBundle:
    """A randomly initialised Xception of three classes at 71 pixels."""
    about = About(tuple(COLOURS), Preprocessing.for_size(SMALL), 0.7)
    return ModelBundle(lively_network(), about, CPU)


def export(bundle: ModelBundle, *, cropped: bool = False) -> Path:
    """Write `food.onnx` and its program, and return the program."""
    model = Path("food.onnx")
    model.write_bytes(build_onnx(bundle, cropped=cropped).SerializeToString())
    program = Path("classify.py")
    program.write_text(inference_snippet(model, bundle.preprocessing, cropped=cropped))
    return program


def classify(program: Path, *names: str, cwd: str = ".") -> tuple[int, list[list[str]], str]:
    """Run the program in a fresh process, and return its exit code, its rows, and its stderr."""
    line = [sys.executable, str(program), *names]
    done = subprocess.run(line, check=False, capture_output=True, encoding="utf-8", cwd=cwd)
    return done.returncode, list(csv.reader(done.stdout.splitlines())), done.stderr


def ranked(bundle: ModelBundle, path: str) -> list[str]:
    """Return the classes of an image as predict orders them."""
    (said,) = predict_images(bundle, [Path(path)], workers=0)
    return list(said.classes)


HEADER = ["path", *(f"{what}_{i}" for i in (1, 2, 3) for what in ("class", "probability"))]


@pytest.mark.parametrize("cropped", [True, False])
def test_the_printed_program_is_short_and_equals_predict(bundle, cropped):
    program = export(bundle, cropped=cropped)
    assert len(program.read_text().splitlines()) <= 76
    profiles = (None, rgb_profile("ProPhoto"), b"garbage")
    for seed, size in enumerate([(113, 82), (300, 200), (79, 80)]):
        photo(seed, *size).save(f"{seed}.png", icc_profile=profiles[seed])
    names = ["0.png", "1.png", "2.png"]
    code, (header, *rows), errors = classify(program, *names)
    assert (code, header, errors) == (0, HEADER, "")
    paths = [Path(name) for name in names]
    for row, said in zip(rows, predict_images(bundle, paths, workers=0), strict=True):
        path, best, share, *_ = row
        assert (path, best) == (str(said.path), said.classes[0])
        assert float(share) == pytest.approx(said.probabilities[0], abs=0.02)


def test_the_program_classifies_folders_and_reports_what_it_cannot_read(bundle):
    program = export(bundle)
    names = ("A.JPG", "deeper/b [1].png", "größer.jpeg")
    sound = [str(Path("photos", name)) for name in names]
    for seed, path in enumerate(sound):
        put(Path(path), photo(seed))
    broken = encoded(photo(3))
    put(Path("photos/broken.jpg"), broken[: len(broken) // 2])
    put(Path("photos/phone.HEIC"), b"\0\0\0\x18ftypheic")
    put(Path("photos/notes.txt"), b"no image")
    Path("photos/folder.jpg").mkdir()
    code, (header, *rows), errors = classify(program, "photos")
    assert (code, header) == (1, HEADER)
    assert [row[:2] for row in rows] == [[path, ranked(bundle, path)[0]] for path in sound]
    assert "Traceback" not in errors
    assert [line.split(": ")[0] for line in errors.splitlines()] == [
        f"cannot read {Path('photos', name)}" for name in ("broken.jpg", "phone.HEIC")
    ]


def test_no_spreadsheet_finds_a_formula_in_what_the_program_prints(bundle):
    about = replace(bundle.about, classes=("=1+1", "a;-2", "plain"))
    program = export(replace(bundle, about=about))
    names = ["=1.png", "x;=2.png", "y.png"]
    for seed, name in enumerate(names):
        photo(seed).save(name)
    code, rows, _ = classify(program, *names)
    assert (code, [row[0] for row in rows]) == (0, ["path", "'=1.png", "x;'=2.png", "y.png"])
    for row in rows[1:]:
        assert sorted(row[1::2]) == ["'=1+1", "a;'-2", "plain"]


def test_the_program_expands_patterns_and_reports_one_that_matches_nothing(bundle):
    program = export(bundle)
    for seed, path in enumerate(("a.jpg", "b.jpg", "photos/c.jpg", "photos/[d].jpg")):
        put(Path(path), photo(seed))
    Path("nothing").mkdir()
    code, (_, *rows), errors = classify(program, "*.jpg", "photos/[d].jpg", "pho*")
    assert (code, errors) == (0, "")
    listed = ["photos/[d].jpg", "photos/[d].jpg", "photos/c.jpg"]
    assert [row[0] for row in rows] == ["a.jpg", "b.jpg", *listed]
    code, rows, errors = classify(program, "*.JPEG", "nothing", "a.jpg")
    assert (code, [row[0] for row in rows]) == (1, ["path", "a.jpg"])
    assert errors.splitlines() == [
        "cannot read *.JPEG: no image found",
        "cannot read nothing: no image found",
    ]
    code, rows, errors = classify(program)
    usage = "no images: python classify.py FOLDER > answers.csv\n"
    assert (code, rows, errors) == (1, [], usage)


def test_the_program_finds_the_model_next_to_it_from_any_folder(bundle):
    program = export(bundle)
    put(Path("elsewhere/a.jpg"), photo(0))
    code, rows, errors = classify(Path("..", program), "a.jpg", cwd="elsewhere")
    assert (code, errors) == (0, "")
    assert rows[1][:2] == ["a.jpg", ranked(bundle, "elsewhere/a.jpg")[0]]


def test_the_printed_program_decodes_every_kind_of_image_as_predict_does():
    made = replace(Preprocessing(), grey_bits=12)
    program = inference_snippet(Path("food.onnx"), made, cropped=False)
    imports = "\n".join(
        line for line in program.splitlines() if line.startswith(("import csv", "from PIL", "srgb"))
    )
    reading = program[program.index("def read(") : program.index("sys.stdout")]
    names: dict[str, Any] = {"numpy": np}
    exec(f"{imports}\n{reading}", names)
    colour, profile = photo(0, 40, 30), rgb_profile("ProPhoto")
    grey, clear = colour.convert("L"), colour.convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(clear.size))
    twelve = np.asarray(grey).astype(np.uint16) << 4
    for number, image in enumerate([colour, grey, clear, Image.fromarray(twelve)]):
        image.save(f"{number}.png")
        image.save(f"{number} with a profile.png", icc_profile=profile)
    Path("pillow scales it.pgm").write_bytes(b"P5 40 30 4095\n" + twelve.astype(">u2").tobytes())
    colour.convert("CMYK").save("cmyk.jpg")
    for name, white in ("white", 0), ("black", 1):  # which zero is
        deep = Image.fromarray(twelve)
        deep.save(f"{name}.tif", tiffinfo={262: white})
    colour.quantize(8).save("palette.png", transparency=0)
    clear.convert("LA").save("grey and alpha.png", icc_profile=profile)
    files = [path for path in sorted(Path().iterdir()) if path.is_file()]
    assert len(files) == 14
    assert not np.array_equal(*(names["read"](f"{name}.tif") for name in ("white", "black")))
    for path in files:
        decoded = decode(path.read_bytes(), grey_bits=12)
        assert np.array_equal(names["read"](path), decoded), path


def test_the_printed_program_states_which_colours_it_does_not_convert():
    """AVIF in Display P3, stated in numbers, is converted by `decode` only."""
    program = inference_snippet(Path("food.onnx"), Preprocessing.for_size(SMALL), cropped=False)
    content = encoded(Image.new("RGB", (64, 48), (200, 30, 40)), "AVIF")
    start, mark, numbers = content.partition(b"colrnclx")
    content = start + mark + (12).to_bytes(2) + numbers[2:]
    assert decode(content).getpixel((9, 9)) == pytest.approx((218, 0, 27), abs=4)
    assert "except one whose colours are stated in numbers or EXIF" in program


def test_the_printed_program_reads_phone_photos_of_200_megapixels_without_a_warning(bundle):
    made = replace(bundle.preprocessing, max_pixels=40_000)
    program = Path("classify.py")
    export(bundle)
    program.write_text(inference_snippet(Path("food.onnx"), made, cropped=False))
    photo(0, 380, 300).save("phone.jpg")  # 2.9 times as many
    photo(0, 380, 380).save("larger.jpg")
    code, rows, errors = classify(program, "phone.jpg")
    assert (code, len(rows), errors) == (0, 2, "")
    _, _, errors = classify(program, "larger.jpg")
    assert "DecompressionBombWarning" in errors  # the control


def test_a_terminal_gets_no_program_but_the_files_to_send(monkeypatch, capsys):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    put(Path("there/classify_food.py"), b"mine")
    for folder, program in (("there", "classify_food-2.py"), (".", "classify_food.py")):
        model = Path(folder, "food.onnx")
        path = Path(folder, program)
        for first in (True, False):  # the second time, the program is there
            hand_over("print('é')\n", [model])
            out, said = capsys.readouterr()
            assert out == ""
            *written, last = said.splitlines()
            expected = [f"written   {path}: classifies images without xception"]
            assert written == (expected if first else [])
            assert last == (
                f"next: send {model} and {path} to a colleague, "
                f"or: xception predict IMAGE.jpg --model {model}"
            )
            assert path.read_bytes() == "print('é')\n".encode()
    assert Path("there/classify_food.py").read_bytes() == b"mine"
    hand_over("", [Path("food.xml"), Path("food.bin")])
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == "next: send food.xml, food.bin and classify_food-2.py to a colleague"


def test_a_pipe_gets_the_program_and_no_file_is_written(capsys):
    hand_over("program\n", [Path("food.onnx")])
    out, said = capsys.readouterr()
    assert out == "program\n"
    assert said.startswith("next: send food.onnx and the printed program to a colleague, or: ")
    assert list(Path().iterdir()) == []


def test_the_page_on_export_shows_the_program_that_is_printed():
    page = (Path(__file__).parents[2] / "docs" / "export.md").read_text(encoding="utf-8")
    assert inference_snippet(Path("food.onnx"), Preprocessing(), cropped=False) in page
