"""Fuzzing: no image, model or state causes a traceback, a long wait or large memory use.

`XCEPTION_FUZZ=20000 XCEPTION_SEED=1` tries that many of each kind, with another seed than 0;
docs/faults.md has the results.
"""

import os

import pytest
from fuzzing import IMAGES, KINDS, fuzz

from xception_cli.data.formats import FORMATS

pytestmark = pytest.mark.slow

ROUNDS = int(os.environ.get("XCEPTION_FUZZ", "150"))
SEED = int(os.environ.get("XCEPTION_SEED", "0"))


@pytest.mark.parametrize("kind", KINDS)
def test_any_damaged_file_is_refused_in_a_sentence_or_read(kind: str) -> None:
    start = SEED * 10_000_000
    tally = fuzz(kind, range(start, start + ROUNDS))
    print(tally.line(kind), dict(tally.codes), tally.slowest, *tally.failures, sep="\n  ")
    assert tally.is_sound(), tally
    assert tally.codes.keys() <= {0, 2, 3, 4}
    assert len(tally.codes) > 1  # the control: some were read and some refused


def test_every_format_that_is_read_is_tried() -> None:
    assert set(IMAGES) == set(FORMATS)
