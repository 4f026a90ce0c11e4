"""Damage to a file by a failing disk, a spreadsheet, an editor or an attacker."""

import json
import random
from copy import deepcopy
from typing import Any

BYTES = (
    b"", b"\0", b"\xff", b"\xef\xbb\xbf", b"\r", b"\n", b"\n\n", b'"', b"'", b";", b",", b"\t",
    b"=", b"[", b"]", b"{", b"}", b"[" * 3000, b"9" * 5000, b"-1", b"1e400", b"nan",
    b"Infinity", b"null", b"true", b"0x" + b"f" * 5000, b"\\ud800", b"\\u0000", b"#",
    b"9" * 20, b"x" * 300,
)  # fmt: skip
VALUES = (
    None, True, False, 0, -1, 1, 2, 10**18, 10**30, -(10**30), 0.5, -0.5, 1e308, float("nan"),
    float("inf"), "", "x", "train", "\ud800", "\udce9", "\0", "a\nb", "1", [], [1], [[]], {},
    {"x": 1}, [None], "../x", "x" * 300, "epoch 99999999999999999999999", "fine-tuned, epoch ²",
)  # fmt: skip


def damage_bytes(content: bytes, draw: random.Random) -> bytes:
    """Flip bits, delete, repeat or insert some bytes, or cut the end off: one to three times."""
    damaged = bytearray(content)
    for _ in range(draw.randint(1, 3)):
        at = draw.randrange(len(damaged) + 1)
        kind = draw.randrange(6)
        if kind <= 1 and damaged:
            damaged[min(at, len(damaged) - 1)] ^= 1 << draw.randrange(8)
        elif kind == 2:
            del damaged[at : at + draw.randint(1, 40)]
        elif kind == 3:
            damaged[at:at] = damaged[at : at + draw.randint(1, 40)]
        elif kind == 4:
            damaged[at:at] = draw.choice(BYTES)
        elif draw.random() < 0.3:
            del damaged[at:]
    return bytes(damaged)


def damage_json(content: bytes, draw: random.Random) -> bytes:
    """Change, remove or add an entry anywhere in a JSON object, keeping it JSON."""
    made = json.loads(content)
    for _ in range(draw.randint(1, 2)):
        places = list(_places(made))
        if not places:
            break
        owner, key = draw.choice(places)
        kind = draw.randrange(4)
        if kind == 0 and isinstance(owner, dict):
            del owner[key]
        elif kind == 1 and isinstance(owner, dict):
            owner[draw.choice(["x", "", "classes", "name", "digest"])] = _value(draw)
        elif kind == 2 and isinstance(owner[key], int | float):
            owner[key] = type(owner[key])(draw.choice([-1, 0, 1, 2, 1000])) * draw.choice([1, -1])
        else:
            owner[key] = _value(draw)
    return json.dumps(made).encode()


def _value(draw: random.Random) -> Any:
    return deepcopy(draw.choice(VALUES))  # lists are changed later


def _places(value: Any) -> Any:
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for key, part in list(pairs):
        yield value, key
        if isinstance(part, dict | list):
            yield from _places(part)


def damage_cells(content: bytes, draw: random.Random) -> bytes:
    """Modify a table like people and spreadsheets do, row by row and cell by cell."""
    lines = content.decode().split("\n")
    for _ in range(draw.randint(1, 3)):
        at = draw.randrange(len(lines))
        cells = lines[at].split(",")
        kind = draw.randrange(6)
        if kind == 0:
            del cells[draw.randrange(len(cells)) :]
        elif kind == 1:
            cells[draw.randrange(len(cells))] = str(draw.choice(VALUES[:-8])).replace("\ud800", "?")
        elif kind == 2:
            draw.shuffle(cells)
        elif kind == 3:
            cells.append("x")
        elif kind == 4:
            lines[at] = lines[draw.randrange(len(lines))]
            continue
        else:
            separator = draw.choice(";\t")
            lines = [line.replace(",", separator) for line in lines]
            continue
        lines[at] = ",".join(cells)
    text = "\n".join(lines).encode("utf-8", "backslashreplace").decode()
    return text.encode(draw.choice(["utf-8", "utf-8", "utf-8-sig", "utf-16", "latin-1"]), "replace")
