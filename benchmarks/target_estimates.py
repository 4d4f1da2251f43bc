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
from label_free import estimate_by_agreement, estimate_by_threshold
from scipy.stats import spearmanr

from bloodauto.shift.target_estimators import estimate_by_transport


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("answers", type=Path, help="what self_deception.py --save wrote")
    with np.load(parser.parse_args().answers, allow_pickle=False) as archive:
        saved = {name: archive[name] for name in archive.files}
    laboratories = [name.removeprefix("labels_") for name in saved if name.startswith("labels_")]
    clean, views = saved["clean"], saved["shown"]
    labels, shifted_labels = saved["labels"], saved["shifted_labels"]
    both, both_labels = np.concatenate([clean, views], axis=1), np.concatenate([labels, shifted_labels])
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
            "mean confidence": answers.max(axis=2).mean(axis=1),
            "threshold, from clean images": np.array(
                [estimate_by_threshold(labels, *pair) for pair in zip(clean, answers, strict=True)]
            ),
            "threshold, from clean images and views": np.array(
                [estimate_by_threshold(both_labels, *pair) for pair in zip(both, answers, strict=True)]
            ),
            "agreement on the line": estimate_by_agreement(accuracy, list(clean), list(answers)),
            "transport": np.array([estimate_by_transport(one, np.bincount(labels)) for one in answers]),
        }
        for key, value in estimates.items():
            off = 100 * np.abs(value - truth).mean()
            print(f"| {key} | {name} | {spearmanr(value, truth).statistic:.2f} | {off:.1f} |")


if __name__ == "__main__":
    main()
