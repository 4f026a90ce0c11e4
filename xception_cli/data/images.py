"""Decoding of image files: the only decoder, for training, evaluation and prediction."""

import ctypes
import errno
import logging
import stat
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePath

from PIL import Image, ImageFile, UnidentifiedImageError, _imaging

from xception_cli.console import show
from xception_cli.data.corrections import drop_text
from xception_cli.data.formats import claimed_size, what_else
from xception_cli.data.opening import BYTES_PER_PIXEL, open_image, reduce, turns
from xception_cli.data.opening import ImageError as ImageError
from xception_cli.data.original import Original, Stored, original_of
from xception_cli.data.pixels import Values, to_upright_rgb, values_of
from xception_cli.data.tiff import describe_tiff, describe_undecoded
from xception_cli.errors import MORE_MEMORY, MachineError, XceptionError, is_out_of_memory
from xception_cli.files import TRIES, is_transient, listed_name

# Increased when the pixels of any file change: caches of decoded images depend on it.
DECODER = 7
MAX_BYTES = 500_000_000  # a file that is read whole
_OPEN_FILES = "close other programs, or allow more open files: ulimit -n 4096"
# Errors that any file would have now: the image may be valid.
_SHORT = {errno.ENOMEM: MORE_MEMORY, errno.EMFILE: _OPEN_FILES, errno.ENFILE: _OPEN_FILES}
MAX_ASPECT = 20  # a 3000 x 1 image would be resized to a gigabyte

# What Pillow warns of is either refused below (size) or harmless (odd metadata).
warnings.filterwarnings("ignore", module=r"PIL\..*")
logging.getLogger("PIL").setLevel(logging.CRITICAL)  # it logs an error before it raises one
# libtiff prints what is damaged in an image, without its name, amid our output.
with suppress(AttributeError, OSError):  # where Pillow was linked with it statically
    ctypes.CDLL(_imaging.__file__).TIFFSetErrorHandler(None)


def read_bytes(path: Path) -> bytes:
    """Read an image file; transient errors of a network drive are retried.

    Raises:
        ImageError: It is missing, not a regular file, not readable, too large, or empty.
        MachineError: There is too little memory, or too many files are open.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # opening a FIFO would hang
            raise ImageError("not a regular file")
        if status.st_size > MAX_BYTES:
            raise ImageError(f"over {MAX_BYTES:,} bytes")
        content = _read_patiently(path)
    except FileNotFoundError as error:
        dangling = path.is_symlink()
        raise ImageError("broken link" if dangling else "file not found") from error
    except OSError as error:
        reason = (error.strerror or "cannot be read").lower()
        if error.errno in _SHORT:
            raise MachineError(reason, hint=_SHORT[error.errno]) from error
        raise ImageError(reason) from error
    except ValueError as error:  # a letter that the encoding of file names lacks, or a zero
        raise ImageError("its name cannot be a file name here") from error
    if not content:
        raise ImageError("empty file")
    return content


def _read_patiently(path: Path) -> bytes:
    for attempt in range(1, TRIES):
        try:
            return path.read_bytes()
        except OSError as error:
            if not is_transient(error):
                raise
            time.sleep(0.1 * attempt)
    return path.read_bytes()


def decode(
    content: bytes, *, least_side: int | None = None, grey_bits: int | None = 16
) -> Image.Image:
    """Decode an image to upright RGB, as an image viewer shows it.

    EXIF orientation is applied; an embedded colour profile, or without one what the file states, is
    converted to sRGB; alpha is composited over white; grey with more bits is scaled to 8; an
    animation gives its first frame.

    Args:
        content: The bytes of the file.
        least_side: A JPEG may be decoded at 1/2, 1/4 or 1/8 of its size (libjpeg does so while it
            transforms the blocks, for a fraction of the time) as long as its shorter side keeps
            this many pixels; None: at its full size, or the largest that memory allows.
        grey_bits: Bits of a 16-bit grey image whose header does not state them, see
            `Preprocessing`; None: the fewest that fit its own values.

    Returns:
        An image of mode RGB.

    Raises:
        ImageError: Not an image, damaged, of an unknown range, or of absurd size or shape.
        MachineError: There is too little memory; the image may be valid.
    """
    return examine(content, least_side=least_side, grey_bits=grey_bits)[0]


def examine(
    content: bytes, *, least_side: int | None = None, grey_bits: int | None = 16
) -> tuple[Image.Image, Original]:
    """Decode an image, and describe its file.

    Args:
        content: The bytes of the file.
        least_side: See `decode`.
        grey_bits: See `decode`.

    Raises:
        ImageError: See `decode`.
    """
    with _opened(content) as image:
        stored = Stored.of(image)
        picture, values = _load(image, least_side, grey_bits)
        original = original_of(image, stored, values)
    return picture, original


@contextmanager
def _opened(content: bytes) -> Iterator[ImageFile.ImageFile]:
    """Open an image; any error while it is decoded becomes an `ImageError`."""
    image: ImageFile.ImageFile | None = None

    def size() -> tuple[int, int]:
        return image.size if image else claimed_size(content)  # `reduce` changes it

    with _decoding(size):
        try:
            with open_image(content) as image:
                _check_shape(*image.size)
                yield image
        except (OSError, ValueError) as error:
            if _is_short_of_memory(error, *size()):
                raise
            if isinstance(error, UnidentifiedImageError):
                raise ImageError(describe_tiff(content) or what_else(content)) from error
            if problem := describe_undecoded(content, str(error)):
                raise ImageError(problem) from error
            raise


@contextmanager
def _decoding(size: Callable[[], tuple[int, int]]) -> Iterator[None]:
    # Another library may have switched this on, which would fill truncated images with grey.
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        yield
    except XceptionError:  # a signal may come while a decoder runs
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"over {turns.max_pixels:,} pixels (see --max-pixels)") from error
    except Exception as error:  # decoders raise any error on damaged data
        # The cause may also be too little memory, and the file may be valid.
        if _is_short_of_memory(error, *size()):
            width, height = size()
            raise MachineError(
                f"there is too little memory to decode an image of {width} x {height} pixels",
                hint=MORE_MEMORY,
            ) from error
        raise ImageError(_reason(str(error))) from error


def _reason(error: str) -> str:
    """Return what an error of Pillow's means."""
    if "truncated" in error.lower():
        return "truncated"
    return f"damaged ({'it cannot be decoded' if 'decoder error' in error else show(error)})"


def _is_short_of_memory(error: Exception, width: int, height: int) -> bool:
    needed = BYTES_PER_PIXEL * min(width * height, turns.max_pixels)
    return "memory" in str(error).lower() or is_out_of_memory(error, needed)


def _load(
    image: Image.Image, least_side: int | None, grey_bits: int | None
) -> tuple[Image.Image, Values]:
    reduce(image, least_side)
    image.load()
    drop_text(image)
    values = values_of(image, grey_bits)
    return to_upright_rgb(image, values), values


def read_image(
    path: Path, *, least_side: int | None = None, grey_bits: int | None = 16
) -> Image.Image:
    """Read and decode one image file; see `decode`.

    Raises:
        ImageError: See `read_bytes` and `decode`.
        MachineError: See `decode`.
    """
    with naming(path):
        return decode(read_bytes(path), least_side=least_side, grey_bits=grey_bits)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Add the file's name to an error about too little memory."""
    try:
        yield
    except MachineError as error:
        raise MachineError(f"{show(path)}: {error.message}", hint=error.hint) from error
    except MemoryError as error:
        raise MachineError(
            f"{show(path)}: there is too little memory to read it", hint=MORE_MEMORY
        ) from error


def read_listed(
    root: Path, name: str, *, least_side: int | None = None, grey_bits: int | None = 16
) -> Image.Image:
    """Read an image that is listed in a file of a run, which may come from anyone.

    Raises:
        ImageError: The path leads out of the folder; or see `read_image`.
    """
    if leads_out(name):
        raise ImageError("outside of the data folder")
    path = root / listed_name(root, name)
    return read_image(path, least_side=least_side, grey_bits=grey_bits)


def leads_out(name: str) -> bool:
    """Return whether a path leads out of its folder: it is absolute, or contains `..`."""
    return PurePath(name).is_absolute() or ".." in PurePath(name).parts


def to_image(image: Image.Image, *, grey_bits: int = 16) -> Image.Image:
    """Convert an image in memory as `decode` does: to upright RGB, of valid size and shape.

    It keeps its full size, except a JPEG that is not decoded yet and too large, see `decode`.

    Args:
        image: Any image of Pillow's; its pixels are not changed.
        grey_bits: See `decode`.

    Raises:
        ImageError: See `decode`.
    """
    with _decoding(lambda: image.size):
        _check_shape(*image.size)
        return _load(image, None, grey_bits)[0]


def _check_shape(width: int, height: int) -> None:
    if min(width, height) == 0 or max(width, height) > MAX_ASPECT * min(width, height):
        raise ImageError(f"{width} x {height} is longer than {MAX_ASPECT} to 1")


# Their names in version 0.1, which scripts of users import.
PictureError, read_picture, to_picture = ImageError, read_image, to_image
