"""Which label-free estimate ranks networks for a laboratory of which there are unlabelled images?

    python benchmarks/self_deception.py --save answers.npz
    python benchmarks/target_estimates.py answers.npz

For each other synthetic laboratory: Spearman's correlation over the networks of each estimate with their true accuracy there,
and how far the estimate is off on average. The shift objective, which sees no target image, is the control.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from bloodauto.shift.target import estimate_by_agreement, estimate_by_threshold, mean_agreement, mean_confidence


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("answers", type=Path, help="what self_deception.py --save wrote")
    with np.load(parser.parse_args().answers, allow_pickle=False) as archive:
        saved = {name: archive[name] for name in archive.files}
    laboratories = [name.removeprefix("labels_") for name in saved if name.startswith("labels_")]
    clean, views = saved["clean"], saved["shown"]
    labels, view_labels = saved["labels"], saved["view_labels"]
    both, both_labels = np.concatenate([clean, views], axis=1), np.concatenate([labels, view_labels])
    accuracy = (clean.argmax(axis=2) == labels).mean(axis=1)
    print(
        f"{len(clean)} networks\n\n| estimate | laboratory | Spearman | mean error, points |\n| --- | --- | --- | --- |"
    )
    for name in laboratories:
        answers = saved[f"answers_{name}"]
        truth = (answers.argmax(axis=2) == saved[f"labels_{name}"]).mean(axis=1)
        estimates = {
            "shift objective (no target image)": saved["objective"],
            "clean accuracy (no target image)": accuracy,
            "mean confidence": np.array([mean_confidence(one) for one in answers]),
            "threshold, from clean images": np.array(
                [estimate_by_threshold(labels, *pair) for pair in zip(clean, answers, strict=True)]
            ),
            "threshold, from clean images and views": np.array(
                [estimate_by_threshold(both_labels, *pair) for pair in zip(both, answers, strict=True)]
            ),
            "agreement with the others": mean_agreement(list(answers)),
            "agreement on the line": estimate_by_agreement(accuracy, list(clean), list(answers)),
        }
        ranks = {key: np.argsort(np.argsort(value)) for key, value in estimates.items()}
        estimates["ranks of objective and threshold"] = (
            ranks["shift objective (no target image)"] + ranks["threshold, from clean images and views"]
        ).astype(float)
        for key, value in estimates.items():
            off = f"{100 * np.abs(value - truth).mean():.1f}" if value.max() <= 1 else "-"
            print(f"| {key} | {name} | {spearmanr(value, truth).statistic:.2f} | {off} |")


if __name__ == "__main__":
    main()
