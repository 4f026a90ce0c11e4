"""Loss and calibration error on one half of val, with a temperature fitted on the other half.

python tests/benchmarks/calibration.py RUN...
"""

import argparse
from pathlib import Path

import numpy as np
from scipy.special import softmax
from sklearn.metrics import log_loss

from xception_cli.evaluation.calibration import fit_temperature
from xception_cli.evaluation.confidence import best_guesses, calibration_error
from xception_cli.evaluation.scored import read_scored
from xception_cli.rundir import RunDir, read_json

SPLITS = 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path)
    for path in parser.parse_args().runs:
        run = RunDir(path)
        scored = read_scored(run, "val")
        # The logits up to a constant per image, which has no effect.
        temperature = read_json(run.result)["calibration"]["temperature"]
        logits = temperature * np.log(np.maximum(scored.probabilities, 1e-12))
        rows = np.array([halves(logits, scored.labels, seed) for seed in range(SPLITS)])
        before, after, loss_before, loss_after = rows.mean(axis=0)
        lower = (rows[:, 1] < rows[:, 0]).mean()
        print(
            f"{path.name}: calibration error {before:.3f}, then {after:.3f} (lower in {lower:.0%} "
            f"of {SPLITS} splits); log loss {loss_before:.3f}, then {loss_after:.3f}"
        )


def halves(logits: np.ndarray, labels: np.ndarray, seed: int) -> tuple[float, ...]:
    order = np.random.default_rng(seed).permutation(len(labels))
    fitted, measured = np.array_split(order, 2)
    temperature = fit_temperature(logits[fitted], labels[fitted])
    answers, every = labels[measured], np.arange(logits.shape[1])
    both = [softmax(logits[measured] / t, axis=1) for t in (1, temperature)]
    errors = [calibration_error(*best_guesses(probabilities, answers)) for probabilities in both]
    return *errors, *(log_loss(answers, probabilities, labels=every) for probabilities in both)


if __name__ == "__main__":
    main()
