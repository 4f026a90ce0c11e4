"""Names: what the name of a folder means by itself: a split, a part of a data set, a date."""

import re
import unicodedata

WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev", "eval", "evaluation"), "val"),
    **dict.fromkeys(("test", "tests", "testing"), "test"),
    **dict.fromkeys(("pred", "predict", "prediction", "predictions", "inference"), "unlabelled"),
    **dict.fromkeys(("unlabeled", "unlabelled", "holdout", "heldout"), "unlabelled"),
}
_PHOTOS = {"photo", "photos", "pic", "pics", "pictures"}  # may be a class, too
FILLERS = {"seg", "single", "set", "image", "images", "img", "imgs", "data", "dataset", "split"}
_THINGS = re.compile(f"(set|images?|imgs?|{'|'.join(sorted(_PHOTOS))}|data|s?bilder|s?daten)$")
_GLUED = re.compile("(training|train|validation|valid|val|testing|test)([^\\W\\d_].*)")
_PARTS = {"fold", "part", "partition", "batch", "subset", "chunk", "shard", "session"}
_DATE = re.compile(  # 2026-06-12, 20260612_143000, 2026-W24, 12.6.26; with other words, too
    r"(?<!\d)(?:(?:19|20)\d\d[-._ ]?W?\d\d(?:[-._ ]?\d\d)?|\d\d?([-._ ])\d\d?\1(?:\d\d)?\d\d)(?!\d)"
)
_NUMBER = re.compile(  # 001; 100CANON, a camera's folder; a time: 14h30, 14.30
    r"\d{3,}|[1-9]\d\d[A-Z\d_]{5}|\d\d?[.:h]\d\d(?:[.:]\d\d)?"
)


def split_of(name: str) -> str | None:
    """Return the split that a folder name means.

    `Training`, `seg_train`, `train_images`, `trainset` and `train2017` are train, and
    `Testbilder` is test. `seg_pred`, `held-out` and similar names are `unlabelled`.
    """
    fillers = FILLERS | _PHOTOS
    words = [word for word in words_of(name) if word not in fillers and not word.isdecimal()]
    return WORDS.get(_THINGS.sub("", "".join(words)))


def splits_in(name: str) -> list[tuple[str, tuple[str, ...]]]:
    """Return the split that a name contains, or an empty one, and its other words.

    `train_cat` is of train. In one word (`traincat`), which may be a trainer, the rest begins with
    an empty word. A name with several splits has none.
    """
    words = words_of(name)
    splits = [WORDS[word] for word in words if word in WORDS] or [""]
    rest = tuple(word for word in words if word not in WORDS)
    glued = _GLUED.fullmatch(plain(name))
    return [
        *([(splits[0], rest)] if len(splits) == 1 else []),
        *([(WORDS[glued[1]], ("", glued[2]))] if glued else []),
    ]


def is_part(name: str) -> bool:
    """Return whether a folder name means a part of a data set: `fold1`, `batch_2`, `setA`, `val`.

    Numbers and single letters alone do not: classes may be called A and B.
    """
    words = [word for word in words_of(name) if len(word) > 1 and not word.isdecimal()]
    return split_of(name) is not None or (bool(words) and {*words} <= _PARTS | FILLERS)


def is_date(name: str) -> bool:
    """Return whether a folder name is or has a date, or is a time or a number of three digits."""
    return bool(_DATE.search(name) or _NUMBER.fullmatch(name.strip()))


def plain(name: str) -> str:
    """Return a name without differences of spelling: case, Unicode form, surrounding spaces."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold()).strip()


def words_of(name: str) -> list[str]:
    """Return the words and numbers of a name, in lower case: `trainSet2` has three."""
    return re.findall(r"[^\W\d_]+|\d+", plain(re.sub("(?<=[a-z])(?=[A-Z])", " ", name)))
