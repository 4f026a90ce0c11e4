"""Foods: how each of the twelve is drawn."""

import math
from collections.abc import Callable

import numpy as np

from xception_cli.sample.scene import (
    Array,
    Scene,
    Spot,
    ball,
    mix,
    near,
    palette,
    rgb,
    ring,
    rod,
    star,
)

_GREEN, _STEM, _CHAR = palette("4d7524 4d331a 4d2e14")


def draw_leaf(scene: Scene, spot: Spot, colour: Array = _GREEN) -> None:
    """Draw a leaf, as on an apple or on the table."""
    half = 0.42 * (1 - spot.v * spot.v)
    field = (half * np.abs(half) - spot.u * spot.u) * np.float32(0.4)
    vein = 0.6 * near(spot.u, 0, 0.05)
    scene.paint(spot, field, mix(colour, colour + np.float32(0.2), vein), gloss=0.1)


def _apple(scene: Scene, spot: Spot) -> None:
    u, v = spot.u * (1 + 0.14 * spot.v), spot.v * scene.between(0.94, 1.05)
    dip = near(spot.u, spot.v + 0.86, 0.26)
    field = 1 - u * u - v * v - 0.5 * dip * dip
    skin, blush = scene.colour("b81a1a cc401f 99b32e d1b333"), scene.colour("ccb840 9ead33 bf261a")
    streaks = scene.noise(u.shape, 5, 5) * 0.7 + scene.grain(spot, 6) * 0.3
    scene.paint(spot, field, mix(skin, blush, streaks * 1.1 + dip * 0.5 - 0.1), gloss=0.45)
    if scene.chance(0.65):
        stem = spot.part(0, -0.66, scale=0.45, turn=scene.between(-0.5, 0.5))
        scene.paint(stem, rod(stem, 0.11, bend=0.15), _STEM)
        if scene.chance(0.35):
            draw_leaf(scene, spot.part(0.3, -1.0, scale=0.32, turn=1.1))


def _bagel(scene: Scene, spot: Spot) -> None:
    hole = scene.between(0.1, 0.3)
    field = ring(spot, hole) + 0.02 * scene.grain(spot, 3)
    crust, pale = scene.colour("b87333 9e5724 d19952 663d1f"), scene.colour("e0b875 cc944d")
    colour = mix(crust, pale, 0.5 + scene.grain(spot, 3) * 0.6 - field)
    scene.paint(spot, field, colour, gloss=0.2, bump=scene.grain(spot, 14) * 0.006)
    if scene.chance(0.6):
        seeds, count = scene.pick("eddbad", "292426", "e6cc99 332b26"), scene.between(10, 45)
        within = (hole + 0.2, 0.85)
        scene.strew(spot, palette(seeds), count=count, size=0.045, within=within, slim=1.7)


def _banana(scene: Scene, spot: Spot) -> None:
    u, v2 = spot.u - scene.between(0.3, 0.5) * spot.v * spot.v + 0.25, spot.v * spot.v
    half = 0.27 * (1 - v2 * v2 * v2) + 0.055
    field = half * np.abs(half) - u * u
    spots = np.clip(scene.grain(spot, 9) * 3 - scene.between(1.2, 3), 0, 1) * 0.8
    colour = mix(scene.colour("edc72e dbc238 a8b338"), _CHAR, spots)
    colour = mix(colour, _STEM, np.clip(v2 * 6 - 4.9, 0, 1))
    scene.paint(spot, field, colour, gloss=0.12, bump=np.abs(u + 0.06) * -0.25)


def _cookie(scene: Scene, spot: Spot) -> None:
    r2 = spot.radius2 + 0.1 * scene.grain(spot, 2.5)
    dough = scene.colour("c28a4d a86e38 d6a86b 4d2e1f")
    colour = mix(dough, dough * np.float32(0.72), r2 * r2 * 0.6 + scene.grain(spot, 4) * 0.3)
    bump = scene.grain(spot, 7) * 0.035 + scene.grain(spot, 16) * 0.015
    scene.paint(spot, (1 - r2 * r2 * r2) * np.float32(0.06), colour, bump=bump)
    bits, count = scene.pick("331c12", "331c12 59331f", "e6d6b3", "592924"), scene.between(0, 16)
    scene.strew(spot, palette(bits), count=count, size=0.1, within=(0, 0.82), slim=1.2)


def _donut(scene: Scene, spot: Spot) -> None:
    hole = scene.between(0.2, 0.38)
    field = ring(spot, hole)
    dough = scene.colour("c7853d ad6b2e d9a35c")
    pale = 0.5 * near(field - np.float32(0.02), 0, 0.015)  # the pale line around a fried donut
    colour = mix(dough, dough + np.float32(0.2), pale)
    if scene.chance(0.25):  # only sugar on it
        sugar = mix(colour, rgb("f5f0e6"), np.clip(scene.grain(spot, 40) * 1.5, 0, 0.7))
        scene.paint(spot, field, sugar)
        return
    scene.paint(spot, field, colour, gloss=0.1)
    drip = (field - 0.045 - 0.035 * scene.grain(spot, 3.5)) * np.float32(1.2)
    icing = scene.colour("eb8ca8 522e1a f2ebdb bf7a38 996640")
    scene.paint(spot, drip, icing, gloss=0.5, shadow=0.25)
    if scene.chance(0.5):
        bits = palette(scene.pick("e6334d f2d933 4d99d9 66bf66 ffffff", "4d2b1a", "f2ede6"))
        count, within = scene.between(10, 40), (hole + 0.15, 0.85)
        scene.strew(spot, bits, count=count, size=0.06, within=within, slim=3.0)


def _lemon(scene: Scene, spot: Spot) -> None:
    tips = near(spot.u - 1, spot.v, 0.16) + near(spot.u + 1, spot.v, 0.16)
    wide, slim = spot.u * 1.06, spot.v * scene.between(1.3, 1.5)
    field = (1 - wide * wide - slim * slim + 0.32 * tips) * np.float32(0.55)
    share = 0.32 * tips + scene.grain(spot, 2) * 0.25
    colour = mix(scene.colour("edcc24 e0d140 b8bf33"), scene.colour("9ea82e"), share)
    scene.paint(spot, field, colour, gloss=0.3, bump=scene.grain(spot, 20) * 0.010)


def _orange(scene: Scene, spot: Spot) -> None:
    peel, share = scene.colour("eb800f e0660f e69e1f b39e26"), scene.grain(spot, 1.5) * 0.4
    field, bump = ball(spot, scene.between(0.98, 1.08)), scene.grain(spot, 22) * 0.010
    scene.paint(spot, field, mix(peel, rgb("d99e26"), share), gloss=0.3, bump=bump)
    if scene.chance(0.6):
        nub = spot.part(*scene.around(0, 0, scene.between(0, 0.75)), scale=0.1)
        scene.paint(nub, star(nub, 5, 0.6), scene.colour("6b702e"))


def _peach(scene: Scene, spot: Spot) -> None:
    bow = spot.u - scene.between(0.1, 0.4) * (1 - spot.v * spot.v)
    crease = near(bow, 0, 0.045) * np.clip(0.6 - spot.v, 0, 1)
    dip = near(spot.u, spot.v + 0.88, 0.13)
    field = ball(spot, scene.between(1.0, 1.1)) - 0.09 * crease - 0.25 * dip
    patch = scene.noise(spot.u.shape, 3, 3) + 0.3 * scene.grain(spot, 9) + scene.between(-0.2, 0.5)
    colour = mix(scene.colour("eba857 e6bd6b e68c47"), scene.colour("c73d2e d96b40"), patch)
    fuzz = scene.grain(spot, 30) * 0.003
    scene.paint(spot, field, mix(colour, _CHAR, crease * 0.3), gloss=0.04, bump=fuzz)
    if scene.chance(0.3):
        draw_leaf(scene, spot.part(0.3, -1.0, scale=0.38, turn=1.2))


def _pear(scene: Scene, spot: Spot) -> None:
    low, high = spot.v - np.float32(0.3), spot.v + np.float32(0.45)
    belly = 0.48 - spot.u * spot.u - low * low
    neck = scene.between(0.12, 0.19) - spot.u * spot.u - high * high * 0.8
    apart = belly - neck  # the two balls melt into one another
    field = (belly + neck + np.sqrt(apart * apart + np.float32(0.12))) / 2
    skin, blush = scene.colour("adb333 ccb840 997033 809933"), scene.colour("b3592e bfb84d")
    colour = mix(skin, blush, scene.noise(spot.u.shape, 3, 3))
    freckles = np.clip(scene.grain(spot, 22) * 2 - 0.9, 0, 1) * 0.4
    scene.paint(spot, field, mix(colour, _STEM, freckles), gloss=0.2)
    stem = spot.part(0, -0.86, scale=0.34, turn=scene.between(-0.4, 0.4))
    scene.paint(stem, rod(stem, 0.13, bend=0.15), _STEM)


def _pizza(scene: Scene, spot: Spot) -> None:
    spot = spot.part(0, 0, scale=1.15)
    r2 = spot.radius2 + 0.05 * scene.grain(spot, 3)
    field, rim = (1 - r2 * r2 * r2) * np.float32(0.08), np.clip((r2 - 0.7) * 12, 0, 1)
    if scene.chance(0.4):  # a piece is missing
        first = scene.between(0, 2 * math.pi)
        second = first + math.pi - scene.between(0.5, 1.2)
        cuts = [spot.u * math.cos(angle) + spot.v * math.sin(angle) for angle in (first, second)]
        field = np.minimum(field, np.maximum(*cuts) * np.float32(0.3))
    char = np.clip(scene.grain(spot, 6) * 3 - 1.2, 0, 0.6)
    crust = mix(scene.colour("d19952 b37538"), _CHAR, char)
    melted = scene.grain(spot, 3.5) * 1.5 + scene.grain(spot, 9) * 0.6 + scene.between(0, 0.9)
    cheese = mix(scene.colour("bf381a cc6624"), scene.colour("f0cc6b f5e09e e6b34d"), melted)
    bump = rim * 0.10 + scene.grain(spot, 9) * 0.02 * (1 - rim)
    scene.paint(spot, field, mix(cheese, crust, rim), gloss=0.12, bump=bump)
    # salami, olives, basil, mushrooms
    toppings = (("a8291a", 0.16, 1), ("262424", 0.07, 1), ("4d7524", 0.1, 2), ("dbccb3", 0.11, 1.5))
    for index in scene.rng.permutation(4)[: scene.pick(0, 1, 2, 3)]:
        colour, size, slim = toppings[index]
        count, within = scene.between(3, 9), (0.1, 0.72)
        scene.strew(spot, palette(colour), count=count, size=size, within=within, slim=slim)


def _strawberry(scene: Scene, spot: Spot) -> None:
    u = spot.u / (scene.between(0.62, 0.8) - 0.22 * spot.v)
    field = (1 - u * u - spot.v * spot.v) * np.float32(0.45)
    down = spot.v * 5.5
    across = u * 5.5 + 0.5 * (np.floor(down) % 2)  # every other row of seeds is shifted
    pit = near((across - np.floor(across) - 0.5) * 1.5, down - np.floor(down) - 0.5, 0.13)
    shoulder = np.clip(-spot.v * 1.6 - 0.9, 0, 1) * scene.between(0, 1)
    colour = mix(scene.colour("cc1a1f b81414 d94d33"), rgb("f2d9b3"), shoulder)
    colour = mix(colour, rgb("e0b859"), np.clip(pit * 2 - 0.9, 0, 0.9))
    scene.paint(spot, field, colour, gloss=0.5, bump=pit * -0.03)
    if scene.chance(0.8):
        cap = spot.part(0, -0.82, scale=scene.between(0.4, 0.6), turn=scene.between(0, 6))
        scene.paint(cap, star(cap, 7, 0.3), scene.colour("4d7524"))


def _tomato(scene: Scene, spot: Spot) -> None:
    up = -scene.between(0.25, 0.6)
    dip = near(spot.u, spot.v - up, 0.2)
    field = ball(spot, scene.between(1.02, 1.22)) - 0.35 * dip
    share = dip * 0.9 + scene.grain(spot, 2) * 0.3
    colour = mix(scene.colour("c71a0f d13814 d98c1f 8c9433"), scene.colour("d97326 8c8c33"), share)
    scene.paint(spot, field, colour, gloss=0.6)
    if scene.chance(0.65):
        green, points = scene.colour("4d7524"), scene.pick(5, 6)
        calyx = spot.part(0, up, scale=scene.between(0.34, 0.5), turn=scene.between(0, 6))
        scene.paint(calyx, star(calyx, points, 0.12), green)
        stem = spot.part(0, up, scale=0.24, turn=scene.between(-1, 1))
        scene.paint(stem, rod(stem, 0.2), green)


FOODS: dict[str, Callable[[Scene, Spot], None]] = {
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
