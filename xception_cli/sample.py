"""Draws the sample data set: twelve foods, rendered and not photographed.

A food is a field over its own coordinates: the square of its height, negative outside. The field
gives outline, relief and shading at once, so that one `paint` draws everything. Arrays use only
+ - * / and square roots, which round identically on every machine.
"""

import hashlib
import io
import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from xception_cli.console import screen, show
from xception_cli.errors import MachineError, UsageError

Array = np.ndarray[Any, np.dtype[np.floating[Any]]]

_VERSION = 1  # of the drawing; another version draws other images
_SIDES = (240, 400)  # pixels
_JPEG_QUALITY = 88
_REACH = 1.4  # a thing and its shadow stay within this many of its sizes


def _rgb(colour: str) -> Array:
    return np.array(list(bytes.fromhex(colour)), np.float32) / np.float32(255)


def _palette(colours: str) -> list[Array]:
    return [_rgb(colour) for colour in colours.split()]


_GREEN, _STEM, _CHAR = _palette("4d7524 4d331a 4d2e14")


class _Spot:
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

    def part(self, u: float, v: float, *, scale: float = 1.0, turn: float = 0.0) -> "_Spot":
        """Return the place of a part of the thing: centred at (u, v), smaller, turned."""
        x, y, turned, lean = self._place
        cos, sin = self.size * math.cos(turned), self.size * math.sin(turned)
        x, y = x + u * cos - v * sin, y + (u * sin + v * cos) * lean
        return _Spot(self.frame, x, y, self.size * scale, turned + turn, lean)


class _Scene:
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

    def colour(self, palette: str, spread: float = 0.06) -> Array:
        """Return one of the colours, slightly varied."""
        off = self.rng.random(3, np.float32) * 2 - 1
        chosen: Array = self.pick(*_palette(palette)) + np.float32(spread) * off
        return chosen

    def noise(self, shape: tuple[int, ...], down: float, across: float) -> Array:
        """Return smooth noise between -1 and 1 with this many cells down and across."""
        cells = (max(2, round(down)), max(2, round(across)))
        grid = Image.fromarray(self.rng.random(cells, np.float32) * 2 - 1)
        smooth = grid.resize((shape[1], shape[0]), Image.Resampling.BICUBIC)
        return np.asarray(smooth, np.float32)

    def grain(self, spot: _Spot, cells: float) -> Array:
        """Return noise on a thing, with this many cells over its size."""
        down, across = (side / spot.size * cells for side in spot.u.shape)
        return self.noise(spot.u.shape, down, across)

    def paint(
        self,
        spot: _Spot,
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
        spot: _Spot,
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
            self.paint(bit, _ball(bit, slim) * np.float32(0.4), self.pick(*colours), gloss=0.1)

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


def _mix(one: Array, other: Array, share: Array) -> Array:
    """Blend one colour into another as the share goes from 0 to 1."""
    weight = np.clip(share, 0, 1)[..., None]
    return one + (other - one) * weight


def _near(u: Array, v: Array | float, width: float) -> Array:
    """Return 1 at the origin, falling to a half at this distance."""
    return 1 / (1 + (u * u + v * v) / np.float32(width * width))


def _ball(spot: _Spot, slim: float = 1.0) -> Array:
    v = spot.v * slim
    return 1 - spot.u * spot.u - v * v


def _ring(spot: _Spot, hole: float) -> Array:
    thick = (1 - hole) / 2
    off = np.sqrt(spot.radius2) - (1 - thick)
    return thick * thick - off * off


def _rod(spot: _Spot, width: float, bend: float = 0.0) -> Array:
    """Return a rod of length 1 from the origin upwards."""
    u, v = (spot.u + bend * spot.v * spot.v) / width, spot.v * 2 + 1
    return (1 - u * u - v * v * v * v * v * v) * np.float32(width * width)


def _star(spot: _Spot, points: int, waist: float) -> Array:
    """Return a flat star, its notches at `waist` of its radius."""
    radius = np.sqrt(spot.radius2) + np.float32(1e-6)
    c, s = spot.u / radius, spot.v / radius
    cos, sin = c, s
    for _ in range(points - 1):  # cosine and sine of `points` times the angle
        cos, sin = cos * c - sin * s, sin * c + cos * s
    edge = waist + (1 - waist) * (0.5 + 0.5 * cos) * (0.5 + 0.5 * cos)
    return (edge * edge - spot.radius2) * np.float32(0.3)


def _leaf(scene: _Scene, spot: _Spot, colour: Array = _GREEN) -> None:
    half = 0.42 * (1 - spot.v * spot.v)
    field = (half * np.abs(half) - spot.u * spot.u) * np.float32(0.4)
    vein = 0.6 * _near(spot.u, 0, 0.05)
    scene.paint(spot, field, _mix(colour, colour + np.float32(0.2), vein), gloss=0.1)


def _apple(scene: _Scene, spot: _Spot) -> None:
    u, v = spot.u * (1 + 0.14 * spot.v), spot.v * scene.between(0.94, 1.05)
    dip = _near(spot.u, spot.v + 0.86, 0.26)
    field = 1 - u * u - v * v - 0.5 * dip * dip
    skin, blush = scene.colour("b81a1a cc401f 99b32e d1b333"), scene.colour("ccb840 9ead33 bf261a")
    streaks = scene.noise(u.shape, 5, 5) * 0.7 + scene.grain(spot, 6) * 0.3
    scene.paint(spot, field, _mix(skin, blush, streaks * 1.1 + dip * 0.5 - 0.1), gloss=0.45)
    if scene.chance(0.65):
        stem = spot.part(0, -0.66, scale=0.45, turn=scene.between(-0.5, 0.5))
        scene.paint(stem, _rod(stem, 0.11, bend=0.15), _STEM)
        if scene.chance(0.35):
            _leaf(scene, spot.part(0.3, -1.0, scale=0.32, turn=1.1))


def _bagel(scene: _Scene, spot: _Spot) -> None:
    hole = scene.between(0.1, 0.3)
    field = _ring(spot, hole) + 0.02 * scene.grain(spot, 3)
    crust, pale = scene.colour("b87333 9e5724 d19952 663d1f"), scene.colour("e0b875 cc944d")
    colour = _mix(crust, pale, 0.5 + scene.grain(spot, 3) * 0.6 - field)
    scene.paint(spot, field, colour, gloss=0.2, bump=scene.grain(spot, 14) * 0.006)
    if scene.chance(0.6):
        seeds, count = scene.pick("eddbad", "292426", "e6cc99 332b26"), scene.between(10, 45)
        within = (hole + 0.2, 0.85)
        scene.strew(spot, _palette(seeds), count=count, size=0.045, within=within, slim=1.7)


def _banana(scene: _Scene, spot: _Spot) -> None:
    u, v2 = spot.u - scene.between(0.3, 0.5) * spot.v * spot.v + 0.25, spot.v * spot.v
    half = 0.27 * (1 - v2 * v2 * v2) + 0.055
    field = half * np.abs(half) - u * u
    spots = np.clip(scene.grain(spot, 9) * 3 - scene.between(1.2, 3), 0, 1) * 0.8
    colour = _mix(scene.colour("edc72e dbc238 a8b338"), _CHAR, spots)
    colour = _mix(colour, _STEM, np.clip(v2 * 6 - 4.9, 0, 1))
    scene.paint(spot, field, colour, gloss=0.12, bump=np.abs(u + 0.06) * -0.25)


def _cookie(scene: _Scene, spot: _Spot) -> None:
    r2 = spot.radius2 + 0.1 * scene.grain(spot, 2.5)
    dough = scene.colour("c28a4d a86e38 d6a86b 4d2e1f")
    colour = _mix(dough, dough * np.float32(0.72), r2 * r2 * 0.6 + scene.grain(spot, 4) * 0.3)
    bump = scene.grain(spot, 7) * 0.035 + scene.grain(spot, 16) * 0.015
    scene.paint(spot, (1 - r2 * r2 * r2) * np.float32(0.06), colour, bump=bump)
    bits, count = scene.pick("331c12", "331c12 59331f", "e6d6b3", "592924"), scene.between(0, 16)
    scene.strew(spot, _palette(bits), count=count, size=0.1, within=(0, 0.82), slim=1.2)


def _donut(scene: _Scene, spot: _Spot) -> None:
    hole = scene.between(0.2, 0.38)
    field = _ring(spot, hole)
    dough = scene.colour("c7853d ad6b2e d9a35c")
    pale = 0.5 * _near(field - np.float32(0.02), 0, 0.015)  # the pale line around a fried donut
    colour = _mix(dough, dough + np.float32(0.2), pale)
    if scene.chance(0.25):  # only sugar on it
        sugar = _mix(colour, _rgb("f5f0e6"), np.clip(scene.grain(spot, 40) * 1.5, 0, 0.7))
        scene.paint(spot, field, sugar)
        return
    scene.paint(spot, field, colour, gloss=0.1)
    drip = (field - 0.045 - 0.035 * scene.grain(spot, 3.5)) * np.float32(1.2)
    icing = scene.colour("eb8ca8 522e1a f2ebdb bf7a38 996640")
    scene.paint(spot, drip, icing, gloss=0.5, shadow=0.25)
    if scene.chance(0.5):
        bits = _palette(scene.pick("e6334d f2d933 4d99d9 66bf66 ffffff", "4d2b1a", "f2ede6"))
        count, within = scene.between(10, 40), (hole + 0.15, 0.85)
        scene.strew(spot, bits, count=count, size=0.06, within=within, slim=3.0)


def _lemon(scene: _Scene, spot: _Spot) -> None:
    tips = _near(spot.u - 1, spot.v, 0.16) + _near(spot.u + 1, spot.v, 0.16)
    wide, slim = spot.u * 1.06, spot.v * scene.between(1.3, 1.5)
    field = (1 - wide * wide - slim * slim + 0.32 * tips) * np.float32(0.55)
    share = 0.32 * tips + scene.grain(spot, 2) * 0.25
    colour = _mix(scene.colour("edcc24 e0d140 b8bf33"), scene.colour("9ea82e"), share)
    scene.paint(spot, field, colour, gloss=0.3, bump=scene.grain(spot, 20) * 0.010)


def _orange(scene: _Scene, spot: _Spot) -> None:
    peel, share = scene.colour("eb800f e0660f e69e1f b39e26"), scene.grain(spot, 1.5) * 0.4
    field, bump = _ball(spot, scene.between(0.98, 1.08)), scene.grain(spot, 22) * 0.010
    scene.paint(spot, field, _mix(peel, _rgb("d99e26"), share), gloss=0.3, bump=bump)
    if scene.chance(0.6):
        nub = spot.part(*scene.around(0, 0, scene.between(0, 0.75)), scale=0.1)
        scene.paint(nub, _star(nub, 5, 0.6), scene.colour("6b702e"))


def _peach(scene: _Scene, spot: _Spot) -> None:
    bow = spot.u - scene.between(0.1, 0.4) * (1 - spot.v * spot.v)
    crease = _near(bow, 0, 0.045) * np.clip(0.6 - spot.v, 0, 1)
    dip = _near(spot.u, spot.v + 0.88, 0.13)
    field = _ball(spot, scene.between(1.0, 1.1)) - 0.09 * crease - 0.25 * dip
    patch = scene.noise(spot.u.shape, 3, 3) + 0.3 * scene.grain(spot, 9) + scene.between(-0.2, 0.5)
    colour = _mix(scene.colour("eba857 e6bd6b e68c47"), scene.colour("c73d2e d96b40"), patch)
    fuzz = scene.grain(spot, 30) * 0.003
    scene.paint(spot, field, _mix(colour, _CHAR, crease * 0.3), gloss=0.04, bump=fuzz)
    if scene.chance(0.3):
        _leaf(scene, spot.part(0.3, -1.0, scale=0.38, turn=1.2))


def _pear(scene: _Scene, spot: _Spot) -> None:
    low, high = spot.v - np.float32(0.3), spot.v + np.float32(0.45)
    belly = 0.48 - spot.u * spot.u - low * low
    neck = scene.between(0.12, 0.19) - spot.u * spot.u - high * high * 0.8
    apart = belly - neck  # the two balls melt into one another
    field = (belly + neck + np.sqrt(apart * apart + np.float32(0.12))) / 2
    skin, blush = scene.colour("adb333 ccb840 997033 809933"), scene.colour("b3592e bfb84d")
    colour = _mix(skin, blush, scene.noise(spot.u.shape, 3, 3))
    freckles = np.clip(scene.grain(spot, 22) * 2 - 0.9, 0, 1) * 0.4
    scene.paint(spot, field, _mix(colour, _STEM, freckles), gloss=0.2)
    stem = spot.part(0, -0.86, scale=0.34, turn=scene.between(-0.4, 0.4))
    scene.paint(stem, _rod(stem, 0.13, bend=0.15), _STEM)


def _pizza(scene: _Scene, spot: _Spot) -> None:
    spot = spot.part(0, 0, scale=1.15)
    r2 = spot.radius2 + 0.05 * scene.grain(spot, 3)
    field, rim = (1 - r2 * r2 * r2) * np.float32(0.08), np.clip((r2 - 0.7) * 12, 0, 1)
    if scene.chance(0.4):  # a piece is missing
        first = scene.between(0, 2 * math.pi)
        second = first + math.pi - scene.between(0.5, 1.2)
        cuts = [spot.u * math.cos(angle) + spot.v * math.sin(angle) for angle in (first, second)]
        field = np.minimum(field, np.maximum(*cuts) * np.float32(0.3))
    char = np.clip(scene.grain(spot, 6) * 3 - 1.2, 0, 0.6)
    crust = _mix(scene.colour("d19952 b37538"), _CHAR, char)
    melted = scene.grain(spot, 3.5) * 1.5 + scene.grain(spot, 9) * 0.6 + scene.between(0, 0.9)
    cheese = _mix(scene.colour("bf381a cc6624"), scene.colour("f0cc6b f5e09e e6b34d"), melted)
    bump = rim * 0.10 + scene.grain(spot, 9) * 0.02 * (1 - rim)
    scene.paint(spot, field, _mix(cheese, crust, rim), gloss=0.12, bump=bump)
    # salami, olives, basil, mushrooms
    toppings = (("a8291a", 0.16, 1), ("262424", 0.07, 1), ("4d7524", 0.1, 2), ("dbccb3", 0.11, 1.5))
    for index in scene.rng.permutation(4)[: scene.pick(0, 1, 2, 3)]:
        colour, size, slim = toppings[index]
        count, within = scene.between(3, 9), (0.1, 0.72)
        scene.strew(spot, _palette(colour), count=count, size=size, within=within, slim=slim)


def _strawberry(scene: _Scene, spot: _Spot) -> None:
    u = spot.u / (scene.between(0.62, 0.8) - 0.22 * spot.v)
    field = (1 - u * u - spot.v * spot.v) * np.float32(0.45)
    down = spot.v * 5.5
    across = u * 5.5 + 0.5 * (np.floor(down) % 2)  # every other row of seeds is shifted
    pit = _near((across - np.floor(across) - 0.5) * 1.5, down - np.floor(down) - 0.5, 0.13)
    shoulder = np.clip(-spot.v * 1.6 - 0.9, 0, 1) * scene.between(0, 1)
    colour = _mix(scene.colour("cc1a1f b81414 d94d33"), _rgb("f2d9b3"), shoulder)
    colour = _mix(colour, _rgb("e0b859"), np.clip(pit * 2 - 0.9, 0, 0.9))
    scene.paint(spot, field, colour, gloss=0.5, bump=pit * -0.03)
    if scene.chance(0.8):
        cap = spot.part(0, -0.82, scale=scene.between(0.4, 0.6), turn=scene.between(0, 6))
        scene.paint(cap, _star(cap, 7, 0.3), scene.colour("4d7524"))


def _tomato(scene: _Scene, spot: _Spot) -> None:
    up = -scene.between(0.25, 0.6)
    dip = _near(spot.u, spot.v - up, 0.2)
    field = _ball(spot, scene.between(1.02, 1.22)) - 0.35 * dip
    share = dip * 0.9 + scene.grain(spot, 2) * 0.3
    colour = _mix(scene.colour("c71a0f d13814 d98c1f 8c9433"), scene.colour("d97326 8c8c33"), share)
    scene.paint(spot, field, colour, gloss=0.6)
    if scene.chance(0.65):
        green, points = scene.colour("4d7524"), scene.pick(5, 6)
        calyx = spot.part(0, up, scale=scene.between(0.34, 0.5), turn=scene.between(0, 6))
        scene.paint(calyx, _star(calyx, points, 0.12), green)
        stem = spot.part(0, up, scale=0.24, turn=scene.between(-1, 1))
        scene.paint(stem, _rod(stem, 0.2), green)


FOODS: dict[str, Callable[[_Scene, _Spot], None]] = {
    "apple": _apple,
    "bagel": _bagel,
    "banana": _banana,
    "cookie": _cookie,
    "donut": _donut,
    "lemon": _lemon,
    "orange": _orange,
    "peach": _peach,
    "pear": _pear,
    "pizza": _pizza,
    "strawberry": _strawberry,
    "tomato": _tomato,
}


def _lay_table(scene: _Scene) -> None:
    """Draw wood, cloth, stone or plain paint."""
    shape = scene.frame
    down, across = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    kind = scene.pick("wood", "cloth", "stone", "paint")
    if kind == "wood":
        colour = scene.colour("946138 5c3824 c2996b 998f80")
        plank = down / scene.between(50, 110)
        seam = np.abs(plank - np.floor(plank) - 0.5) > 0.485
        fibre = scene.noise(shape, 80, 5) + scene.noise(shape, 16, 2)
        light = (1 + 0.14 * fibre) * (1 - 0.5 * seam)
    elif kind == "cloth":
        across, down = across + 0.3 * down, down - 0.3 * across
        period = scene.between(18, 60)
        checks = sum((at / period) % 1 > 0.5 for at in (across, down)) * scene.pick(0.05, 0.4)
        dye = scene.colour("b32929 335799 4d8059 d9b34d 998c80")
        colour = _mix(scene.colour("e6e0d6"), dye, checks) if scene.chance(0.7) else dye
        light = 1 + 0.12 * scene.noise(shape, 4, 4) + 0.05 * scene.noise(shape, 120, 120)
    else:
        colour = scene.colour("d1cfc9 474a4f 8c9e99 804d40 ccbd9e")
        rough = 0.2 if kind == "stone" else 0.03
        light = 1 + rough * (scene.noise(shape, 5, 5) + 0.6 * scene.noise(shape, 90, 90))
    scene.pixels = scene.pixels * colour * light[..., None].astype(np.float32)


def _set_plate(scene: _Scene, spot: _Spot) -> None:
    glaze, line = scene.colour("edebe6 edebe6 596b80 ccb38c", 0.03), scene.colour("334d8c 997333")
    rim = np.clip((spot.radius2 - 0.45) * 6, 0, 1) * 0.07
    edge = np.clip(1 - np.abs(spot.radius2 - 0.9) * 30, 0, 1) * scene.pick(0.0, 0.5)
    field = (1 - spot.radius2) * np.float32(0.02)
    scene.paint(spot, field, _mix(glaze, line, edge), gloss=0.15, bump=rim)


def _add_clutter(scene: _Scene, x: float, y: float, size: float) -> None:
    """Add an object that is not food."""
    spot = _Spot(scene.frame, x, y, size, scene.between(0, 2 * math.pi), 1.0)
    kind = scene.pick("spoon", "leaf", "napkin", "crumbs")
    if kind == "spoon":
        metal, bowl = scene.colour("9e9ea3 8c6138 333338"), spot.part(0, -0.8, scale=0.5)
        handle = spot.part(0, 1.0, scale=1.6)
        scene.paint(handle, _rod(handle, 0.056), metal, gloss=0.5)
        flat = (1 - bowl.u * bowl.u * 3.3 - bowl.v * bowl.v) * np.float32(0.1)
        scene.paint(bowl, flat, metal, gloss=0.6)
    elif kind == "leaf":
        _leaf(scene, spot.part(0, 0, scale=0.6), scene.colour("4d7524 667333"))
    elif kind == "napkin":
        far = np.maximum(np.abs(spot.u), np.abs(spot.v))
        cloth, hem = (
            scene.colour("ebebe6 b34d4d 6680a6"),
            (np.abs(far - 0.6) < 0.05) * np.float32(0.3),
        )
        folds = scene.grain(spot, 2.5) * 0.05 + np.clip(spot.u * 8, 0, 1) * 0.03
        field = (0.75 - far) * np.float32(0.05)
        scene.paint(spot, field, _mix(cloth, 0 * cloth, hem), bump=folds)
    else:
        crumbs = _palette("b3804d 80522e")
        scene.strew(spot, crumbs, count=14, size=0.05, within=(0, 1), slim=1.4)


def _draw(name: str, number: int) -> bytes:
    """Draw one image of a food, as JPEG; the food and the number determine it."""
    scene = _Scene(f"{_VERSION} {name} {number}")
    _lay_table(scene)
    (height, width), short = scene.frame, min(scene.frame)
    x, y = width * scene.between(0.34, 0.66), height * scene.between(0.34, 0.66)
    lean = scene.between(0.8, 1.0)  # the camera looks down at a slant
    if scene.chance(0.55):
        _set_plate(scene, _Spot(scene.frame, x, y, short * scene.between(0.42, 0.6), 0, lean))
    if scene.chance(0.5):
        _add_clutter(scene, *scene.around(x, y, short * 0.45), short * scene.between(0.15, 0.3))
    count, smaller, apart = scene.pick(
        (1, 1, 0), (1, 1, 0), (1, 1, 0), (2, 0.75, 1), (3, 0.62, 1.2)
    )
    size, angle = short * smaller * scene.between(0.13, 0.34), scene.between(0, 2 * math.pi)
    for _ in range(count):
        at = (x + size * apart * math.cos(angle), y + size * apart * math.sin(angle))
        turn = scene.between(-0.9, 0.9) + scene.pick(0, 0, 3)
        FOODS[name](scene, _Spot(scene.frame, *at, size, turn, lean))
        angle += 2 * math.pi / count
    if scene.chance(0.65):
        _add_clutter(scene, *scene.around(x, y, size), size * scene.between(0.6, 1.2))
    return scene.photograph()


def draw_sample(folder: Path, *, classes: int = 12, images: int = 40) -> int:
    """Draw a labelled data set, one folder per food: `folder/apple/apple_000.jpg` and so on.

    An image depends only on its food and number, so that more images or classes only add to it.

    Args:
        folder: A new or empty folder.
        classes: Number of foods, in alphabetical order.
        images: Number of images of each.

    Returns:
        The number of images written.

    Raises:
        UsageError: A number is out of range, or the folder is not empty.
        MachineError: The folder cannot be written; nothing is left in it.
    """
    if not 2 <= classes <= len(FOODS):
        raise UsageError(f"the sample has 2 to {len(FOODS)} classes, not {classes}")
    if not 2 <= images <= 1000:
        raise UsageError(f"the sample has 2 to 1000 images per class, not {images}")
    try:
        if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
            raise UsageError(
                f"{show(folder)} exists and is not an empty folder; nothing is overwritten",
                hint="name a folder that does not exist yet",
            )
        made: list[Path] = []
        try:
            with screen.bar("drawing", classes * images) as bar:
                for name in list(FOODS)[:classes]:
                    (folder / name).mkdir(parents=True)
                    made.append(folder / name)
                    for number in range(images):
                        path = folder / name / f"{name}_{number:03}.jpg"
                        path.write_bytes(_draw(name, number))
                        bar.advance(1)
        except BaseException:  # so that the same command can be typed again
            for place in made:
                shutil.rmtree(place, ignore_errors=True)
            raise
    except OSError as error:
        raise MachineError(
            f"cannot write {show(folder)}: {error.strerror}",
            hint="choose a folder that can be written, on a disk with space",
        ) from error
    return classes * images
