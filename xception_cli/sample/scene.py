"""Scene: an image that is being drawn, and the shapes of things in it.

A thing is a field over its own coordinates: the square of its height, negative outside. The field
gives outline, relief and shading at once, so that one `paint` draws everything. Arrays use only
+ - * / and square roots, which round identically on every machine.
"""

import hashlib
import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

Array = np.ndarray[Any, np.dtype[np.floating[Any]]]

_SIDES = (240, 400)  # pixels
_JPEG_QUALITY = 88
_REACH = 1.4  # a thing and its shadow stay within this many of its sizes


def rgb(colour: str) -> Array:
    """Return a colour that is written in hexadecimal, as light between 0 and 1."""
    return np.array(list(bytes.fromhex(colour)), np.float32) / np.float32(255)


def palette(colours: str) -> list[Array]:
    """Return colours that are separated by spaces, see `rgb`."""
    return [rgb(colour) for colour in colours.split()]


class Spot:
    """The place of a thing: coordinates in units of its size, and a window of the image."""

    def __init__(
        self, frame: tuple[int, int], x: float, y: float, size: float, turn: float, lean: float
    ) -> None:
        self.frame, self.size = frame, size
        self._place = (x, y, turn, lean)
        self.window = (self._range(y, frame[0]), self._range(x, frame[1]))
        down, across = np.mgrid[self.window].astype(np.float32)
        across, down = (across - np.float32(x)) / size, (down - np.float32(y)) / (size * lean)
        cos, sin = math.cos(turn), math.sin(turn)
        self.u: Array = across * cos + down * sin
        self.v: Array = down * cos - across * sin
        self.radius2: Array = self.u * self.u + self.v * self.v

    def _range(self, centre: float, side: int) -> slice:
        start = min(max(int(centre - self.size * _REACH), 0), side - 3)  # a slope needs some
        return slice(start, max(start + 3, min(int(centre + self.size * _REACH), side)))

    def part(self, u: float, v: float, *, scale: float = 1.0, turn: float = 0.0) -> "Spot":
        """Return the place of a part of the thing: centred at (u, v), smaller, turned."""
        x, y, turned, lean = self._place
        cos, sin = self.size * math.cos(turned), self.size * math.sin(turned)
        x, y = x + u * cos - v * sin, y + (u * sin + v * cos) * lean
        return Spot(self.frame, x, y, self.size * scale, turned + turn, lean)


class Scene:
    """An image being drawn: its pixels as light between 0 and 1, its lamp, its random numbers."""

    def __init__(self, key: str) -> None:
        seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big")
        self.rng = np.random.default_rng(seed)
        width, height = (round(self.between(*_SIDES)) for _ in range(2))
        self.frame = (height, width)
        self.pixels: Array = np.ones((height, width, 3), np.float32)
        angle, slant = self.between(0, 2 * math.pi), self.between(0.45, 1.1)
        lamp = np.array((slant * math.cos(angle), slant * math.sin(angle), 1), np.float32)
        self.lamp = lamp / np.float32(math.hypot(slant, 1))
        self.softness = self.between(0.35, 0.75)  # the share of ambient light

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * float(self.rng.random())

    def chance(self, probability: float) -> bool:
        return float(self.rng.random()) < probability

    def pick(self, *options: Any) -> Any:
        return options[int(self.rng.integers(len(options)))]

    def around(self, x: float, y: float, far: float) -> tuple[float, float]:
        """Return a point at this distance, in a random direction."""
        angle = self.between(0, 2 * math.pi)
        return x + far * math.cos(angle), y + far * math.sin(angle)

    def colour(self, choices: str, spread: float = 0.06) -> Array:
        """Return one of the colours, slightly varied."""
        off = self.rng.random(3, np.float32) * 2 - 1
        chosen: Array = self.pick(*palette(choices)) + np.float32(spread) * off
        return chosen

    def noise(self, shape: tuple[int, ...], down: float, across: float) -> Array:
        """Return smooth noise between -1 and 1 with this many cells down and across."""
        cells = (max(2, round(down)), max(2, round(across)))
        grid = Image.fromarray(self.rng.random(cells, np.float32) * 2 - 1)
        smooth = grid.resize((shape[1], shape[0]), Image.Resampling.BICUBIC)
        return np.asarray(smooth, np.float32)

    def grain(self, spot: Spot, cells: float) -> Array:
        """Return noise on a thing, with this many cells over its size."""
        down, across = (side / spot.size * cells for side in spot.u.shape)
        return self.noise(spot.u.shape, down, across)

    def paint(
        self,
        spot: Spot,
        field: Array,
        colour: Array,
        *,
        gloss: float = 0.0,
        bump: Array | None = None,
        shadow: float = 0.5,
    ) -> None:
        """Draw the inside of a field, lit by the lamp, and its shadow.

        Args:
            spot: Where to draw.
            field: The squared height, in sizes; negative outside.
            colour: One colour, or one for each pixel.
            gloss: Strength of the lamp's reflection.
            bump: Relief on top, in sizes.
            shadow: Darkness of the shadow.
        """
        down, across = np.gradient(field)
        slope = np.sqrt(across * across + down * down) + np.float32(1e-6)
        mask = np.clip(field / slope + np.float32(0.5), 0, 1)
        pixels = self.pixels[spot.window]
        if shadow:
            whole = Image.fromarray((mask * 255).astype(np.uint8))
            moved = Image.new("L", whole.size)
            away = [round(float(-0.2 * spot.size * part)) for part in self.lamp[:2]]
            moved.paste(whole, (away[0], away[1]))
            cast = Image.blend(moved, whole, self.softness)
            cast = cast.filter(ImageFilter.GaussianBlur((0.04 + 0.08 * self.softness) * spot.size))
            pixels *= 1 - np.asarray(cast, np.float32)[..., None] * np.float32(shadow / 255)
        # The slope of a height is half that of its square, over the height; here, times the height.
        height = np.sqrt(np.clip(field, 0, None)) + np.float32(0.03)
        across, down = (part * (spot.size / -2) for part in (across, down))
        if bump is not None:
            bump_down, bump_across = np.gradient(bump * spot.size)
            across, down = across - bump_across * height, down - bump_down * height
        length = np.sqrt(across * across + down * down + height * height)
        x, y, z = self.lamp
        facing = np.clip((across * x + down * y + height * z) / length, 0, None)
        everywhere = 0.55 + 0.45 * height / length
        light = self.softness * everywhere + (1 - self.softness) * 1.3 * facing
        lit = colour * light[..., None]
        if gloss:  # where the normal is half-way between eye and lamp
            half = gloss ** (1 / 32) / np.sqrt(2 + 2 * z)
            shine = np.clip((across * x + down * y + height * (1 + z)) * half / length, 0, 1)
            for _ in range(5):  # to the power of 32
                shine = shine * shine
            lit += shine[..., None]
        pixels += mask[..., None] * (lit - pixels)

    def strew(
        self,
        spot: Spot,
        colours: Sequence[Array],
        *,
        count: float,
        size: float,
        within: tuple[float, float],
        slim: float = 1.0,
    ) -> None:
        """Strew bits over a round thing, between two radii."""
        low, high = within
        for _ in range(int(count)):
            u, v = self.around(0, 0, math.sqrt(self.between(low * low, high * high)))
            scale, turn = size * self.between(0.7, 1.3), self.between(0, math.pi)
            bit = spot.part(u, v, scale=scale, turn=turn)
            self.paint(bit, ball(bit, slim) * np.float32(0.4), self.pick(*colours), gloss=0.1)

    def photograph(self) -> bytes:
        """Apply uneven light, white balance, exposure, focus, noise and JPEG compression."""
        light = 1 + self.between(0.05, 0.3) * self.noise(self.frame, 2, 2)
        if self.chance(0.3):  # the shade of a window frame or of the photographer
            light = light * (1 - 0.45 * np.clip(self.noise(self.frame, 3, 3) * 8, 0, 1))
        warm, exposure = self.between(-0.1, 0.1), self.between(0.6, 1.3)
        balance = np.array((1 + warm, 1 + self.between(-0.03, 0.03), 1 - warm), np.float32)
        pixels = self.pixels * light[..., None] * (balance * exposure)
        grey = pixels.mean(axis=2, keepdims=True)
        pixels = grey + (pixels - grey) * self.between(0.6, 1.1)
        image = Image.fromarray((np.clip(pixels, 0, 1) * 255).astype(np.uint8))
        image = image.filter(ImageFilter.GaussianBlur(self.between(0.2, 2.4)))
        noise = self.rng.random(self.pixels.shape, np.float32) - np.float32(0.5)
        noisy = np.asarray(image, np.float32) + noise * self.between(3, 30)
        buffer = io.BytesIO()
        photo = Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))
        photo.save(buffer, "JPEG", quality=_JPEG_QUALITY)
        return buffer.getvalue()


def mix(one: Array, other: Array, share: Array) -> Array:
    """Blend one colour into another as the share goes from 0 to 1."""
    weight = np.clip(share, 0, 1)[..., None]
    return one + (other - one) * weight


def near(u: Array, v: Array | float, width: float) -> Array:
    """Return 1 at the origin, falling to a half at this distance."""
    return 1 / (1 + (u * u + v * v) / np.float32(width * width))


def ball(spot: Spot, slim: float = 1.0) -> Array:
    """Return a ball, or an ellipsoid that is slimmer by a factor."""
    v = spot.v * slim
    return 1 - spot.u * spot.u - v * v


def ring(spot: Spot, hole: float) -> Array:
    """Return a ring around a hole of this radius."""
    thick = (1 - hole) / 2
    off = np.sqrt(spot.radius2) - (1 - thick)
    return thick * thick - off * off


def rod(spot: Spot, width: float, bend: float = 0.0) -> Array:
    """Return a rod of length 1 from the origin upwards."""
    u, v = (spot.u + bend * spot.v * spot.v) / width, spot.v * 2 + 1
    return (1 - u * u - v * v * v * v * v * v) * np.float32(width * width)


def star(spot: Spot, points: int, waist: float) -> Array:
    """Return a flat star, its notches at `waist` of its radius."""
    radius = np.sqrt(spot.radius2) + np.float32(1e-6)
    c, s = spot.u / radius, spot.v / radius
    cos, sin = c, s
    for _ in range(points - 1):  # cosine and sine of `points` times the angle
        cos, sin = cos * c - sin * s, sin * c + cos * s
    edge = waist + (1 - waist) * (0.5 + 0.5 * cos) * (0.5 + 0.5 * cos)
    return (edge * edge - spot.radius2) * np.float32(0.3)
