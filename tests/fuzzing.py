"""Fuzzing: damaged and random files by the thousand, each read as the product reads it.

An input is a function of its kind and its seed. Inputs are read in a separate process, so that a
crash or a hang of a library costs one input and is reported with its seed.
"""

import multiprocessing
import random
import resource
import tempfile
import time
import traceback
import zlib
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from images import encoded, exif, photo
from mutations import damage_bytes
from PIL import Image

from xception_cli.console import screen
from xception_cli.errors import XceptionError

SLOW = 5.0  # seconds that an input may take
LARGE = 1e9  # bytes that an input may use
_HANGS = 60.0
_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["fuzzing", "xception_cli.training.checkpoint"])


@dataclass
class Tally:
    """Results for a number of inputs.

    Attributes:
        codes: Number of inputs by exit code; 0 is accepted.
        slowest: Most seconds, and the seed.
        memory: Peak growth of the process in bytes.
        failures: Seeds, and what happened: an unexpected exception, a crash, a hang.
    """

    codes: Counter[int] = field(default_factory=Counter)
    slowest: tuple[float, int] = (0.0, 0)
    memory: int = 0
    failures: list[tuple[int, str]] = field(default_factory=list)

    def try_one(self, seed: int, read: Callable[[], object]) -> None:
        """Read an input."""
        began = time.monotonic()
        try:
            read()
            self.codes[0] += 1
        except XceptionError as error:
            self.codes[error.exit_code] += 1
            if error.exit_code in {1, 5}:  # a file must not be reported as the machine's fault
                self.failures.append((seed, f"{type(error).__name__}: {error}"))
        except Exception:
            self.codes[1] += 1
            self.failures.append((seed, traceback.format_exc()[-1500:]))
        self.slowest = max(self.slowest, (time.monotonic() - began, seed))

    def line(self, kind: str) -> str:
        """Return a row of a table: kind, inputs, refused, accepted, failures, slowest, memory."""
        total, accepted = self.codes.total(), self.codes[0]
        return (
            f"| {kind} | {total:,} | {total - accepted:,} | {accepted:,} | {len(self.failures)} | "
            f"{self.slowest[0]:.2f} s | {self.memory / 1e6:,.0f} MB |"
        )

    def is_sound(self) -> bool:
        """Return whether no input failed, was slow or used much memory."""
        return not self.failures and self.slowest[0] < SLOW and self.memory < LARGE


def peak() -> int:
    """Return the peak memory of this process, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def fuzz(kind: str, seeds: range) -> Tally:
    """Try inputs of a kind, in another process."""
    tally, start = Tally(), seeds.start
    while start < seeds.stop:
        current = _SERVER.Value("q", start, lock=False)
        here, there = _SERVER.Pipe(duplex=False)
        process = _SERVER.Process(target=_try_all, args=(kind, start, seeds.stop, current, there))
        process.start()
        there.close()
        found = None
        last, since = start, time.monotonic()
        while found is None and process.is_alive():
            if here.poll(0.5):
                found = _received(here)
                break
            if current.value != last:
                last, since = current.value, time.monotonic()
            elif time.monotonic() - since > _HANGS:
                process.kill()
        process.join(10)
        found = found or (_received(here) if here.poll() else None)
        here.close()
        if found is not None:
            tally.codes += found.codes
            tally.slowest = max(tally.slowest, found.slowest)
            tally.memory = max(tally.memory, found.memory)
            tally.failures += found.failures
            return tally
        tally.codes[1] += current.value + 1 - start  # inputs before it are counted with it
        tally.failures.append((current.value, f"the process ended with {process.exitcode}"))
        start = current.value + 1
    return tally


def _received(here: Any) -> Tally | None:
    try:
        return here.recv()
    except EOFError:
        return None


def _try_all(kind: str, start: int, stop: int, current: Any, there: Any) -> None:
    screen.quiet = True
    tally = Tally()
    with tempfile.TemporaryDirectory() as folder:
        draw_one = reader(kind, Path(folder))
        with suppress(XceptionError):
            draw_one(random.Random("warm up"))  # lazy imports do not count for the first input
        before = peak()
        for seed in range(start, stop):
            current.value = seed
            tally.try_one(seed, lambda seed=seed: draw_one(random.Random(f"{kind} {seed}")))
        tally.memory = peak() - before
    there.send(tally)


def reader(kind: str, folder: Path) -> Callable[[random.Random], object]:
    """Return a function that makes an input of a kind and reads it."""
    if kind in IMAGES:
        return _image_reader(kind)
    return {"safetensors": _safetensors_reader, "state": _state_reader, "ONNX": _onnx_reader}[kind](
        folder
    )


# --- images --------------------------------------------------------------------------------------


def _frames(kind: str, **options: object) -> bytes:
    more = [photo(seed, 40, 30) for seed in (2, 3)]
    return encoded(photo(1, 40, 30), kind, save_all=True, append_images=more, **options)


def _jpegs() -> list[bytes]:
    image = photo(0, 96, 72)
    return [
        encoded(image, quality=80),
        encoded(image, progressive=True, optimize=True),
        encoded(image.convert("L")),
        encoded(image.convert("CMYK")),
        encoded(image, exif=exif(6), icc_profile=bytes(400), comment=b"x" * 40),
        encoded(image, subsampling=0, restart_marker_blocks=2),
        _frames("MPO"),
    ]


def _pngs() -> list[bytes]:
    image = photo(0, 48, 36)
    alpha = image.copy()
    alpha.putalpha(image.convert("L"))
    palette = image.convert("P", palette=Image.Palette.ADAPTIVE)
    return [
        encoded(image, "PNG"),
        encoded(alpha, "PNG"),
        encoded(alpha.convert("LA"), "PNG"),
        encoded(palette, "PNG", transparency=3),
        encoded(image.convert("L").convert("I;16"), "PNG"),
        encoded(image.convert("1"), "PNG"),
        encoded(image, "PNG", exif=exif(3), icc_profile=bytes(300), dpi=(72, 72)),
        _frames("PNG"),
    ]


def _webps() -> list[bytes]:
    image = photo(0, 64, 48)
    alpha = image.copy()
    alpha.putalpha(image.convert("L"))
    return [
        encoded(image, "WEBP"),
        encoded(image, "WEBP", lossless=True),
        encoded(alpha, "WEBP", exif=exif(8)),
        _frames("WEBP"),
    ]


def _bmps() -> list[bytes]:
    image = photo(0, 24, 18)
    return [encoded(image.convert(mode), "BMP") for mode in ("RGB", "L", "P", "1", "RGBA")]


def _tiffs() -> list[bytes]:
    image = photo(0, 32, 24)
    ways = [None, "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "zstd", "lzma"]
    found = [encoded(image, "TIFF", compression=way) for way in ways]
    modes = ["L", "CMYK", "RGBA", "F", "I;16", "P", "LAB", "YCbCr"]
    found += [encoded(_as(image, mode), "TIFF") for mode in modes]
    found += [encoded(image.convert("1"), "TIFF", compression=w) for w in ("group3", "group4")]
    return [*found, encoded(image, "TIFF", exif=exif(5), big_tiff=True), _frames("TIFF")]


def _as(image: Image.Image, mode: str) -> Image.Image:
    if mode == "LAB":
        from PIL import ImageCms

        profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        return ImageCms.profileToProfile(image, *profiles, outputMode="LAB")
    return image.convert("L").convert(mode) if mode in {"I;16", "F"} else image.convert(mode)


def _gifs() -> list[bytes]:
    image = photo(0, 40, 30).convert("P", palette=Image.Palette.ADAPTIVE)
    return [
        encoded(image, "GIF"),
        encoded(image, "GIF", interlace=0, transparency=5),
        _frames("GIF", loop=0, disposal=2),
    ]


def _ppms() -> list[bytes]:
    image = photo(0, 20, 16)
    plain = b"P3\n4 3\n255\n" + b" ".join(b"%d" % (7 * n) for n in range(36)) + b"\n"
    found = [encoded(image.convert(mode), "PPM") for mode in ("RGB", "L", "1")]
    deep = b"P5\n# grey\n4 3\n65535\n" + bytes(range(24))
    return [*found, plain, deep, b"P1\n4 2\n01010101\n", b"PF\n2 2\n-1.0\n" + bytes(48)]


def _avifs() -> list[bytes]:
    image = photo(0, 48, 36)
    alpha = image.copy()
    alpha.putalpha(image.convert("L"))
    return [
        encoded(image, "AVIF", speed=10),
        encoded(alpha, "AVIF", speed=10, exif=exif(6)),
        _frames("AVIF", speed=10),
    ]


IMAGES: dict[str, Callable[[], list[bytes]]] = {
    "JPEG": _jpegs, "PNG": _pngs, "WEBP": _webps, "BMP": _bmps, "TIFF": _tiffs, "GIF": _gifs,
    "PPM": _ppms, "AVIF": _avifs,
}  # fmt: skip
KINDS = [*IMAGES, "safetensors", "state", "ONNX"]


def _image_reader(kind: str) -> Callable[[random.Random], object]:
    from xception_cli.data.images import decode, examine
    from xception_cli.data.opening import turns

    sound = IMAGES[kind]()

    def read(draw: random.Random) -> None:
        content = damage_image(draw.choice(sound), draw, sound)
        with turns.take(content):
            if draw.random() < 0.5:
                examine(content)
            else:
                decode(content, least_side=16)

    return read


_EXTREMES = [
    0,
    1,
    2,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0x8000,
    0xFFFF,
    0x10000,
    2**31 - 1,
    2**31,
    2**32 - 1,
]


def damage_image(content: bytes, draw: random.Random, others: list[bytes]) -> bytes:
    """Damage an image anywhere, or in its header, which has sizes and offsets."""
    kind = draw.randrange(10)
    if kind < 4:
        damaged = damage_bytes(content, draw)
    elif kind < 8:
        changed = bytearray(content)
        for _ in range(draw.randint(1, 3)):
            at = draw.randrange(min(len(changed), draw.choice([32, 128, 10**9])))
            width = draw.choice([1, 2, 4])
            value = draw.choice([*_EXTREMES, draw.randrange(20_000)]) % 256**width
            changed[at : at + width] = value.to_bytes(width, draw.choice(["big", "little"]))
        damaged = bytes(changed)
    elif kind == 8:
        other = draw.choice(others)
        damaged = content[: draw.randrange(len(content))] + other[draw.randrange(len(other)) :]
    else:
        damaged = content[: draw.randrange(64)] + draw.randbytes(draw.randrange(2000))
    is_png = damaged.startswith(b"\x89PNG") and draw.random() < 0.7
    return _with_sums(damaged) if is_png else damaged


def _with_sums(content: bytes) -> bytes:
    """Correct the checksums of a PNG's chunks, so that damaged chunks are read."""
    changed, at = bytearray(content), 8
    while at + 12 <= len(content):
        end = at + 8 + int.from_bytes(content[at : at + 4], "big")
        if end + 4 > len(content):
            break
        changed[end : end + 4] = zlib.crc32(content[at + 4 : end]).to_bytes(4, "big")
        at = end + 4
    return bytes(changed)


# --- tensors and graphs --------------------------------------------------------------------------


def _safetensors_reader(folder: Path) -> Callable[[random.Random], object]:
    import torch
    from safetensors.torch import save

    from xception_cli.model.seal import seal
    from xception_cli.model.tensors import check_tensors, read_safetensors

    tensors = {f"block{n}.weight": torch.randn(n + 1, 3) for n in range(6)}
    plain = save(tensors, {"about": "{}"})
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    path = folder / "model.safetensors"

    def read(draw: random.Random) -> None:
        content = damage_image(draw.choice([plain, seal(plain)]), draw, [plain])
        path.write_bytes(content)
        check_tensors(read_safetensors(path)[0], shapes, "model.safetensors")

    return read


def _state_reader(folder: Path) -> Callable[[random.Random], object]:
    import torch

    from xception_cli.model.seal import check_entries, seal_entries
    from xception_cli.rundir import read_json, write_json
    from xception_cli.training.checkpoint import StateStore
    from xception_cli.training.history import History

    states = StateStore(folder / "checkpoints")
    layer = torch.nn.Linear(5, 3)
    optimizer = torch.optim.AdamW(layer.parameters())
    layer(torch.ones(2, 5)).sum().backward()
    optimizer.step()
    state = {"trained": layer.state_dict(), "optimizer": optimizer.state_dict()}
    notes = {"phase": "train", "history": History().to_dict(), "max_epochs": 2}
    states.save(state, iteration=1, notes=notes)
    (path,) = states.folder.glob("*.pt")
    manifest = path.with_suffix(".json")
    sound = path.read_bytes(), manifest.read_bytes()

    def read(draw: random.Random) -> None:
        from hashlib import sha256

        path.write_bytes(sound[0])
        manifest.write_bytes(sound[1])
        if draw.random() < 0.2:
            manifest.write_bytes(damage_bytes(sound[1], draw))
        else:  # a malicious author, who signs the changed file
            content = damage_image(sound[0], draw, [sound[0]])
            path.write_bytes(content)
            if draw.random() < 0.9:
                entries = check_entries(read_json(manifest), manifest)
                entries["sha256"] = sha256(content).hexdigest()
                write_json(manifest, seal_entries(entries))
        found = states.load()
        History.of_state(found, 2)

    return read


def _onnx_reader(folder: Path) -> Callable[[random.Random], object]:
    import torch
    from graphs import small_model

    from xception_cli.onnx.file import classifier_from, seal_onnx

    plain = small_model().SerializeToString()
    sealed = seal_onnx(small_model())
    pixels = torch.zeros(1, 3, 80, 71, dtype=torch.uint8)

    def read(draw: random.Random) -> None:
        content = damage_image(draw.choice([plain, plain, sealed]), draw, [plain])
        classifier_from(content, folder / "x.onnx").outcomes(pixels)

    return read
