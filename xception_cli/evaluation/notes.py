"""Notes: caveats for the reader of an evaluation."""

from collections import Counter
from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from xception_cli.data.photo import Photo
from xception_cli.data.split import Split
from xception_cli.evaluation.eval_report import NEAR_COPY, OTHER_CLASS, TRAINED_ON, Uncounted
from xception_cli.numerals import count_of

FITTED_NOTE = "the model was also fitted to these images: expect less on new ones"
VAL_NOTE = "validation also selected this model: expect a little less on new images"
OTHER_SPLIT_NOTE = (
    "the model was trained on another split of the run's data: all of its images count as training "
    "images"
)

_REASONS = {  # of several images
    TRAINED_ON: "the model was trained on",
    NEAR_COPY: "near-copies of training images",
    OTHER_CLASS: "of classes that the model does not know",
}


def left_out_note(left_out: Sequence[Uncounted], images: int) -> str | None:
    """Count the images that do not count, by reason; None if there are none."""
    numbers = Counter(found.reason for found in left_out)
    reasons = ", ".join(
        f"{numbers[why]:,} {text}" for why, text in _REASONS.items() if numbers[why]
    )
    count = len(left_out)
    of = f"{count:,} of {count_of(count + images, 'image')}"
    return f"{of} left out: {reasons}" if left_out else None


def choosers_note(images: Sequence[Photo], choosers: AbstractSet[str]) -> str | None:
    """Count the measured images that also selected the model; None if there are none.

    Args:
        images: With their problem, if they could not be measured.
        choosers: Digests of the images that selected it.
    """
    measured = [image for image in images if image.problem is None]
    count = sum(image.digest in choosers for image in measured)
    of = f"{count:,} of {count_of(len(measured), 'image')}"
    return f"{of} also selected the model (val): expect a little less" if count else None


def has_no_error(monitor: str, split: Split) -> bool:
    """Return whether fine-tuning could not replace the linear probe, because val is one unit.

    With `last`, fine-tuning must gain more than the standard error, which needs two units.
    """
    return monitor == "last" and len({image.unit for image in split.of("val")}) == 1


def join_notes(*notes: str | None) -> str | None:
    """Join notes; None if there are none."""
    return "; ".join(note for note in notes if note) or None
