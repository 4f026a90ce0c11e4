"""Notes: caveats for the reader of an evaluation."""

from collections.abc import Sequence

from xception_cli.evaluation.eval_report import TRAINED_ON, Uncounted
from xception_cli.numerals import count_of

FITTED_NOTE = "the model was also fitted to these images: expect less on new ones"
VAL_NOTE = "validation also selected this model: expect a little less on new images"


def left_out_note(left_out: Sequence[Uncounted], images: int) -> str | None:
    """Count the images that do not count, by reason; None if there are none.

    Args:
        left_out: These images.
        images: Number of the others.
    """
    count, known = len(left_out), sum(found.reason == TRAINED_ON for found in left_out)
    parts = (known, "the model was trained on"), (count - known, "near-copies of training images")
    reasons = ", ".join(f"{number:,} {reason}" for number, reason in parts if number)
    of = f"{count:,} of {count_of(count + images, 'image')}"
    return f"{of} left out: {reasons}" if left_out else None


def join_notes(*notes: str | None) -> str | None:
    """Join notes; None if there are none."""
    return "; ".join(note for note in notes if note) or None
