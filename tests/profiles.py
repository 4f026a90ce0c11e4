"""ICC profiles written by tests: of screens, grey scanners, printers, and malicious ones."""

import struct
from itertools import product

import numpy as np

# Primaries and white in CIE xy, and gamma, of colour spaces (published numbers).
SPACES = {
    "Display P3": (((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)), (0.3127, 0.3290), None),
    "Adobe RGB": (((0.640, 0.330), (0.210, 0.710), (0.150, 0.060)), (0.3127, 0.3290), 563 / 256),
    "ProPhoto": (((0.7347, 0.2653), (0.1596, 0.8404), (0.0366, 0.0001)), (0.3457, 0.3585), 1.8),
    "sRGB": (((0.640, 0.330), (0.300, 0.600), (0.150, 0.060)), (0.3127, 0.3290), None),
}
D50 = np.array([0.9642, 1.0, 0.8249])
_BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)


def to_xyz(space: str) -> np.ndarray:
    """Return the matrix from linear RGB of a colour space to XYZ under D50."""
    primaries, white, _ = SPACES[space]
    columns = np.array([(x / y, 1.0, (1 - x - y) / y) for x, y in primaries]).T
    x, y = white
    seen = np.array([x / y, 1.0, (1 - x - y) / y])
    matrix = columns * np.linalg.solve(columns, seen)
    adapt = np.linalg.inv(_BRADFORD) @ np.diag(_BRADFORD @ D50 / (_BRADFORD @ seen)) @ _BRADFORD
    return adapt @ matrix


def encode(linear: np.ndarray, gamma: float | None) -> np.ndarray:
    """Encode linear light as 8-bit values; None is the curve of sRGB."""
    light = np.clip(linear, 0, 1)
    if gamma is None:
        low = light <= 0.0031308
        values = np.where(low, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    else:
        values = light ** (1 / gamma)
    return np.round(255 * values).astype(np.uint8)


def stored_in(space: str, linear: np.ndarray) -> np.ndarray:
    """Store linear sRGB pixels, `(..., 3)`, as 8-bit values of a colour space."""
    there = linear @ to_xyz("sRGB").T @ np.linalg.inv(to_xyz(space)).T
    return encode(there, SPACES[space][2])


def _fixed(*values: float) -> bytes:
    return b"".join(struct.pack(">i", round(65536 * value)) for value in values)


def _xyz(values: np.ndarray) -> bytes:
    return b"XYZ \0\0\0\0" + _fixed(*values)


def curve(gamma: float | None) -> bytes:
    if gamma is None:
        numbers = _fixed(2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
        return b"para\0\0\0\0\0\3\0\0" + numbers
    return b"para\0\0\0\0\0\0\0\0" + _fixed(gamma)


def profile(tags: dict[bytes, bytes], name: str, space: bytes, pcs: bytes = b"XYZ ") -> bytes:
    """Write a profile of version 4."""
    text = name.encode("utf-16-be")
    words = b"mluc\0\0\0\0" + struct.pack(">II4sII", 1, 12, b"enUS", len(text), 28) + text
    tags = {b"desc": words, b"wtpt": _xyz(D50), **tags}
    table, data, start = b"", b"", 132 + 12 * len(tags)
    for key, value in tags.items():
        table += struct.pack(">4sII", key, start + len(data), len(value))
        data += value.ljust(-(-len(value) // 4) * 4, b"\0")
    kind = b"prtr" if space == b"CMYK" else b"mntr"
    head = struct.pack(
        ">I4sI4s4s4s12x4s", start + len(data), b"test", 0x04300000, kind, space, pcs, b"acsp"
    )
    head = (head.ljust(68, b"\0") + _fixed(*D50)).ljust(128, b"\0")
    return head + struct.pack(">I", len(tags)) + table + data


def rgb_profile(space: str, **more: bytes) -> bytes:
    """Write the profile of a screen; `more` are additional tags."""
    columns = {
        key: _xyz(column)
        for key, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), to_xyz(space).T, strict=True)
    }
    curves = dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve(SPACES[space][2]))
    others = {key.encode(): value for key, value in more.items()}
    return profile({**others, **columns, **curves}, space, b"RGB ")


def grey_profile(gamma: float) -> bytes:
    return profile({b"kTRC": curve(gamma)}, "Grey", b"GRAY")


def cmyk_profile() -> bytes:
    """Write the profile of a printer whose inks C, M, Y and K all print grey."""
    corners = (max(0, 255 - 85 * sum(inks)) for inks in product((0, 1), repeat=4))
    table = b"".join(bytes([light, 128, 128]) for light in corners)
    lut = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + _fixed(1, 0, 0, 0, 1, 0, 0, 0, 1)
    ramp = bytes(range(256))
    return profile({b"A2B0": lut + 4 * ramp + table + 3 * ramp}, "Grey ink", b"CMYK", b"Lab ")


def table_without_entries(points: int = 255) -> bytes:
    """A table of colours that claims gigabytes."""
    curves = 3 * curve(1.0)
    places = struct.pack(">IIIII", 32, 0, 0, 32 + len(curves), 32)
    grid = bytes([points] * 3).ljust(16, b"\0") + b"\2\0\0\0"
    return b"mAB \0\0\0\0" + bytes([3, 15, 0, 0]) + places + curves + grid + bytes(64)


def repeated_table(times: int = 60) -> bytes:
    """One table of colours that a profile references many times."""
    table = b"clut\0\0\0\0" + struct.pack(">HH", 3, 3) + bytes([64] * 3).ljust(16, b"\0")
    table += bytes(64**3 * 3 * 4)
    places = struct.pack(">II", 16 + 8 * times, len(table)) * times
    return b"mpet\0\0\0\0" + struct.pack(">HHI", 3, 3, times) + places + table
