"""Files that cannot be decoded, and unusual images."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from xception_cli.check.measures import Measures
from xception_cli.check.report import BROKEN, DEEP, UNREADABLE, Finding, Problem
from xception_cli.check.scan import Look, bits_of, largest_values
from xception_cli.data.folder import DataFolder
from xception_cli.data.formats import SUFFIXES_OF
from xception_cli.data.original import Original
from xception_cli.numerals import count_of

_TINY = 32  # pixels of the shorter side
_HUGE = 50_000_000  # pixels
_DARK = 60  # at most 1% of the pixels are brighter
_BRIGHT = 230  # at most 5% of the pixels are darker
_UNIFORM = 3  # standard deviation of the grey
_GREY = 2  # mean difference of the channels
_BLURRED = 0.12  # sharpness; and below a third of the median: some sets are soft throughout


def find_broken(folder: DataFolder, looks: Sequence[Look]) -> list[Problem]:
    """List the files that cannot be decoded; training refuses them."""
    broken: list[Finding] = []
    unreadable: list[Finding] = []
    for image, look in zip(folder.images, looks, strict=True):
        if look.problem:
            read = look.digest or look.problem == "empty file"
            (broken if read else unreadable).append(Finding(image.path, look.problem, "exclude"))
    return [
        *_stopping(UNREADABLE, "cannot be read", unreadable),
        *_stopping(BROKEN, "cannot be decoded", broken),
    ]


def _stopping(name: str, what: str, findings: list[Finding]) -> list[Problem]:
    if not findings:
        return []
    reasons = Counter(_short(finding.detail) for finding in findings).most_common()
    listed = ", ".join(f"{count} {reason}" for reason, count in reasons[:6])
    summary = f"{count_of(len(findings), 'file')} {what}: {listed}"
    return [Problem(name, "stops", summary, tuple(findings))]


def _short(reason: str) -> str:
    """Remove from a reason what differs from file to file."""
    start = reason.split(" (")[0]
    return "of absurd size or shape" if start.startswith(("over", *"0123456789")) else start


@dataclass(frozen=True)
class _Image:
    """An image, as the rules below see it."""

    suffix: str
    original: Original
    measures: Measures
    usual_sharpness: float


@dataclass(frozen=True)
class _Rule:
    """A rule that finds images unusual.

    Attributes:
        name: Name of the problem in issues.csv.
        summary: Describes the images, after their count.
        detail: Describes what is unusual about an image; empty if nothing is.
        badness: Sort key, the worst first.
    """

    name: str
    summary: str
    detail: Callable[[_Image], str]
    badness: Callable[[_Image], float] = lambda picture: 0


def _uniform(picture: _Image) -> bool:
    return picture.measures.contrast < _UNIFORM


def _dark(picture: _Image) -> bool:
    return picture.measures.brightest < _DARK and not _uniform(picture)


def _bright(picture: _Image) -> bool:
    return picture.measures.darkest > _BRIGHT and not _uniform(picture)


def _blurred(picture: _Image) -> bool:
    limit = min(_BLURRED, picture.usual_sharpness / 3)
    return picture.measures.sharpness < limit and not _uniform(picture)


def _size(picture: _Image) -> int:
    return picture.original.width * picture.original.height


def _shape(picture: _Image) -> str:
    return f"{picture.original.width} x {picture.original.height} pixels"


def _cmyk(picture: _Image) -> str:
    if picture.original.mode != "CMYK":
        return ""
    unsure = picture.original.format == "JPEG" and not picture.original.has_adobe_marker
    return "CMYK without an Adobe marker: colours may be inverted" if unsure else "CMYK"


def _deep(picture: _Image) -> str:
    original = picture.original
    if not original.is_deep:
        return ""
    largest = "" if original.highest is None else f", largest value {original.highest:,}"
    return f"stored as {original.mode}{largest}"


def _scale(looks: Sequence[Look]) -> str:
    """Describe the one scale of the 16-bit images whose header states none; empty without any."""
    highest = largest_values(looks)
    if not highest:
        return ""
    return (
        f"; {len(highest):,} of them do not state how many bits they use: these are read as "
        f"{bits_of(looks)} bits, the fewest that hold their largest value, {max(highest):,}"
    )


_RULES = (
    _Rule(
        "near-uniform",
        "of nearly one colour",
        lambda p: f"grey varies by {p.measures.contrast:.1f} of 255" if _uniform(p) else "",
        lambda p: -p.measures.contrast,
    ),
    _Rule(
        "very dark",
        "very dark",
        lambda p: f"mean brightness {p.measures.brightness:.0f} of 255" if _dark(p) else "",
        lambda p: -p.measures.brightness,
    ),
    _Rule(
        "very bright",
        "very bright",
        lambda p: f"mean brightness {p.measures.brightness:.0f} of 255" if _bright(p) else "",
        lambda p: p.measures.brightness,
    ),
    _Rule(
        "blurred",
        "blurred",
        lambda p: (
            f"sharpness {p.measures.sharpness:.2f}, here usually {p.usual_sharpness:.2f}"
            if _blurred(p)
            else ""
        ),
        lambda p: -p.measures.sharpness,
    ),
    _Rule(
        "tiny",
        f"under {_TINY} pixels",
        lambda p: _shape(p) if min(p.original.width, p.original.height) < _TINY else "",
        lambda p: -_size(p),
    ),
    _Rule(
        "huge",
        f"over {_HUGE // 1_000_000} megapixels: smaller ones load faster",
        lambda p: _shape(p) if _size(p) > _HUGE else "",
        _size,
    ),
    _Rule(
        "suffix",
        "whose suffix does not match the format (the content decides)",
        lambda p: "" if p.suffix in SUFFIXES_OF[p.original.format] else f"is {p.original.format}",
    ),
    _Rule(
        "EXIF-rotated",
        "rotated by EXIF (shown upright)",
        lambda p: f"orientation {p.original.orientation}" if p.original.orientation > 1 else "",
    ),
    _Rule(
        "grey",
        "without colour",
        lambda p: f"stored as {p.original.mode}" if p.measures.colourfulness < _GREY else "",
    ),
    _Rule(
        "transparent",
        "with transparency (composited on white)",
        lambda p: f"stored as {p.original.mode}" if p.original.is_transparent else "",
    ),
    _Rule(
        DEEP,
        "with more than 8 bits a channel (they are scaled)",
        _deep,
        lambda p: p.original.highest or 0,
    ),
    _Rule("CMYK", "in printing colours (converted to RGB)", _cmyk),
    _Rule(
        "colour profile",
        "with a colour profile or gamma other than sRGB (they are converted)",
        lambda p: p.original.profile,
    ),
    _Rule(
        "unused profile",
        "with an unusable colour profile (ignored)",
        lambda p: p.original.profile_problem and f"profile {p.original.profile_problem}",
    ),
    _Rule(
        "animated",
        "with several frames or pages (only the first is used)",
        lambda p: f"{p.original.format} with several" if p.original.is_animated else "",
    ),
)


def find_odd(folder: DataFolder, looks: Sequence[Look]) -> list[Problem]:
    """List images that are usable but unusual."""
    usual = median([look.measures.sharpness for look in looks if look.measures] or [0.0])
    pictures = [
        (
            image.path,
            _Image(_suffix(image.path), look.original, look.measures, usual),
        )
        for image, look in zip(folder.images, looks, strict=True)
        if look.original and look.measures
    ]
    problems = []
    for rule in _RULES:
        odd = [(path, picture, rule.detail(picture)) for path, picture in pictures]
        odd = sorted((item for item in odd if item[2]), key=lambda item: -rule.badness(item[1]))
        if odd:
            scale = _scale(looks) if rule.name == DEEP else ""
            summary = f"{count_of(len(odd), 'image')} {rule.summary}{scale}"
            findings = tuple(Finding(path, detail) for path, _, detail in odd)
            problems.append(Problem(rule.name, "note", summary, findings))
    return problems


def _suffix(path: str) -> str:
    return f".{path.rpartition('.')[2].lower()}"  # ten times as fast as Path
