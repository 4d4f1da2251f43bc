"""Searches on images with patients and two sites, in a search space of one's own.

Writes cells.csv, a folder of images and runs/own into the current folder.
"""

from __future__ import annotations

import csv
from pathlib import Path

import cv2

import bloodauto
from bloodauto.data.synthetic.generator import synthesize

SPACE = Path(__file__).resolve().parent / "custom_space.yaml"
IMAGES_PER_SITE = 800
IMAGES_PER_PATIENT = 20


def write_manifest(path: Path) -> None:
    """Writes images of two synthetic sites, and the CSV file that a search reads: path, label, group (patient), site."""
    folder = path.parent / "images"
    folder.mkdir(exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["path", "label", "group", "site"])
        for site in ("lab_a", "lab_b"):
            dataset = synthesize(IMAGES_PER_SITE, site=site, seed=0, image_size_px=32)
            for index, (image, label) in enumerate(zip(dataset.images, dataset.labels, strict=True)):
                name = f"{site}_{index:04d}.png"
                cv2.imwrite(str(folder / name), image[..., ::-1])
                patient = f"{site}_{index // IMAGES_PER_PATIENT}"
                writer.writerow([f"images/{name}", dataset.class_names[label], patient, site])


def main() -> None:
    """Runs the example."""
    write_manifest(Path("cells.csv"))
    result = bloodauto.search("cells.csv", budget="6cpu-min", run_dir="runs/own", space=SPACE, warm_start="none")
    # Folds are sites here: the validation images are of a site that the network was not trained on. Chance is 1/8.
    print(f"balanced accuracy at the site that was left out: {result.ensemble['balanced_accuracy']:.3f}")
    print(f"report: {bloodauto.write_report('runs/own')}")


if __name__ == "__main__":
    main()
