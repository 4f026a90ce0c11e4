"""Table: what a food is photographed on, and what lies around it."""

import math

import numpy as np

from xception_cli.sample.foods import draw_leaf
from xception_cli.sample.scene import Scene, Spot, mix, palette, rod


def lay_table(scene: Scene) -> None:
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
        colour = mix(scene.colour("e6e0d6"), dye, checks) if scene.chance(0.7) else dye
        light = 1 + 0.12 * scene.noise(shape, 4, 4) + 0.05 * scene.noise(shape, 120, 120)
    else:
        colour = scene.colour("d1cfc9 474a4f 8c9e99 804d40 ccbd9e")
        rough = 0.2 if kind == "stone" else 0.03
        light = 1 + rough * (scene.noise(shape, 5, 5) + 0.6 * scene.noise(shape, 90, 90))
    scene.pixels = scene.pixels * colour * light[..., None].astype(np.float32)


def set_plate(scene: Scene, spot: Spot) -> None:
    """Draw a plate with a coloured line near its rim."""
    glaze, line = scene.colour("edebe6 edebe6 596b80 ccb38c", 0.03), scene.colour("334d8c 997333")
    rim = np.clip((spot.radius2 - 0.45) * 6, 0, 1) * 0.07
    edge = np.clip(1 - np.abs(spot.radius2 - 0.9) * 30, 0, 1) * scene.pick(0.0, 0.5)
    field = (1 - spot.radius2) * np.float32(0.02)
    scene.paint(spot, field, mix(glaze, line, edge), gloss=0.15, bump=rim)


def add_clutter(scene: Scene, x: float, y: float, size: float) -> None:
    """Add an object that is not food."""
    spot = Spot(scene.frame, x, y, size, scene.between(0, 2 * math.pi), 1.0)
    kind = scene.pick("spoon", "leaf", "napkin", "crumbs")
    if kind == "spoon":
        metal, bowl = scene.colour("9e9ea3 8c6138 333338"), spot.part(0, -0.8, scale=0.5)
        handle = spot.part(0, 1.0, scale=1.6)
        scene.paint(handle, rod(handle, 0.056), metal, gloss=0.5)
        flat = (1 - bowl.u * bowl.u * 3.3 - bowl.v * bowl.v) * np.float32(0.1)
        scene.paint(bowl, flat, metal, gloss=0.6)
    elif kind == "leaf":
        draw_leaf(scene, spot.part(0, 0, scale=0.6), scene.colour("4d7524 667333"))
    elif kind == "napkin":
        far = np.maximum(np.abs(spot.u), np.abs(spot.v))
        cloth, hem = (
            scene.colour("ebebe6 b34d4d 6680a6"),
            (np.abs(far - 0.6) < 0.05) * np.float32(0.3),
        )
        folds = scene.grain(spot, 2.5) * 0.05 + np.clip(spot.u * 8, 0, 1) * 0.03
        field = (0.75 - far) * np.float32(0.05)
        scene.paint(spot, field, mix(cloth, 0 * cloth, hem), bump=folds)
    else:
        crumbs = palette("b3804d 80522e")
        scene.strew(spot, crumbs, count=14, size=0.05, within=(0, 1), slim=1.4)
