"""Data folders and splits without image files."""

from hashlib import blake2b
from pathlib import Path

from xception_cli.data.folder import DataFolder, read_folder
from xception_cli.data.inspection import Inspection, inspect_all
from xception_cli.data.photo import Photo
from xception_cli.data.split import Split

Row = tuple[str, str, str, str | None]  # (class, path, content, given split)


def digest(content: str) -> str:
    return blake2b(content.encode(), digest_size=16).hexdigest()


def fabricate(rows: list[Row], root: str = "data") -> DataFolder:
    """Return an inspected folder without images; content that starts with `!` is bad."""
    classes = tuple(sorted({row[0] for row in rows}))
    images = tuple(Photo(path, classes.index(name), given) for name, path, _, given in rows)
    given = {row[3] for row in rows} - {None}
    splits = tuple(split for split in ("train", "val", "test") if split in given)
    folder = DataFolder(Path(root), classes, images, {}, splits)
    return folder.inspected(
        Inspection(digest(content), "truncated" if content.startswith("!") else None)
        for _, _, content, _ in rows
    )


def inspected_folder(root: Path) -> DataFolder:
    folder = read_folder(root)
    return folder.inspected(inspect_all([root / image.path for image in folder.images]))


def many(count: int, classes: int = 4, prefix: str = "") -> list[Row]:
    return [
        (f"c{i % classes}", f"c{i % classes}/{prefix}{i}.jpg", f"{prefix}{i}", None)
        for i in range(count)
    ]


def by_path(split: Split) -> dict[str, str]:
    return {image.path: image.split for image in split.images}


# --- given splits ------------------------------------------------------------------------------


def given(split: str, count: int, classes: int = 2) -> list[Row]:
    return [
        (f"c{i % classes}", f"{split}/c{i % classes}/{i}.jpg", f"{split}{i}", split)
        for i in range(count)
    ]
