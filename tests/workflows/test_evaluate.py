"""``bloodauto evaluate`` from an export and a folder of another site's images to figures and a page."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

import cv2
import keras
import numpy as np
import pytest
from keras import layers

import bloodauto
from bloodauto.errors import DataError, UserError
from bloodauto.export.labels import labels_of
from bloodauto.run.artifacts import AbstentionRule, Measured, SiteEvaluation, StatedAccuracy
from bloodauto.run.directory import ExportDirectory
from tests.command_line import bloodauto_here

CLASSES = ("erythroblast", "neutrophil", "platelet")


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that names the channel with the most light: red, green, blue."""
    folder = tmp_path_factory.mktemp("export")
    images = keras.Input((16, 16, 3), dtype="uint8")
    means = layers.GlobalAveragePooling2D()(layers.Rescaling(1 / 25)(images))
    model = keras.Model(images, layers.Softmax()(means))
    directory = ExportDirectory(folder)
    model.save(directory.keras_model)
    rule = AbstentionRule(confidence_score="max_probability", threshold=0.5)
    directory.labels.write(labels_of(model, CLASSES, rule))
    directory.stated_accuracy.write(
        StatedAccuracy(in_domain=Measured(value=0.99, low=0.98, high=1.0), images=400, external=None)
    )
    return folder


def write_site(folder: Path, colours: dict[str, list[int]], count: int = 6) -> Path:
    """Images of one channel of light in a folder for each class, as large as a site has them."""
    rng = np.random.default_rng(0)
    for name, channels in colours.items():
        (folder / name).mkdir(parents=True)
        for index in range(count):
            image = rng.integers(0, 60, (20, 20, 3), dtype=np.uint8)
            image[..., channels[index % len(channels)]] += 150
            cv2.imwrite(str(folder / name / f"{index}.png"), image[..., ::-1])
    return folder


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return write_site(tmp_path / "site", {"NRBC": [0], "PMN": [1, 1, 0], "smudge": [2]})


MAP = "NRBC=erythroblast,PMN=neutrophil,smudge=-"


class _References(HTMLParser):
    """Collects addresses and pictures of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.sources: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.sources += [str(value) for name, value in attrs if name == "src"]


def test_a_sites_own_names_are_mapped_and_every_class_is_accounted_for(export: Path, site: Path) -> None:
    evaluation = bloodauto.evaluate(export, site, class_map=MAP)
    assert evaluation.images == 12
    assert evaluation.accuracy.value == pytest.approx(10 / 12)
    assert {entry.name: entry.images for entry in evaluation.recalls} == dict(zip(CLASSES, (6, 6, 0), strict=True))
    assert evaluation.absent_classes == ("platelet",)
    assert [(entry.name, entry.images) for entry in evaluation.unknown_classes] == [("smudge", 6)]
    assert evaluation.flagged == 0.0


def test_proposed_names_are_used_only_where_somebody_confirms_them(export: Path, site: Path) -> None:
    with pytest.raises(DataError, match=f'--map "{MAP}"'):
        bloodauto.evaluate(export, site)
    with pytest.raises(DataError, match="expected the model's class names"):
        bloodauto.evaluate(export, site, confirm=lambda mapping: False)
    confirmed = bloodauto.evaluate(
        export, site, confirm=lambda mapping: mapping.unconfirmed == ("NRBC", "PMN", "smudge")
    )
    assert confirmed == bloodauto.evaluate(export, site, class_map=MAP)


def test_a_single_image_is_enough(export: Path, tmp_path: Path) -> None:
    evaluation = bloodauto.evaluate(export, write_site(tmp_path / "site", {"neutrophil": [1]}, count=1))
    assert (evaluation.images, evaluation.accuracy.value) == (1, 1.0)
    assert evaluation.accuracy.low < 0.3


def test_a_site_without_any_class_of_the_model_is_an_error(export: Path, tmp_path: Path) -> None:
    site = write_site(tmp_path / "site", {"smudge": [0]})
    with pytest.raises(DataError, match="got only classes that it does not have: smudge"):
        bloodauto.evaluate(export, site, class_map="smudge=-")


def test_a_missing_model_is_named_before_images_are_read(site: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected an exported model"):
        bloodauto.evaluate(tmp_path / "nowhere", site)


def test_the_command_prints_json_and_writes_a_page_with_the_mistakes(export: Path, site: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    done = bloodauto_here("evaluate", export, site, "--map", MAP, "--output", page, "--json")
    assert done.code == 0, done.err
    evaluation = SiteEvaluation.model_validate_json(done.out.splitlines()[-1])
    assert evaluation.groups is None
    assert json.loads(done.out.splitlines()[-1])["class_mapping"]["smudge"] is None
    assert "83.3 %" in done.err
    assert "states 99.0 % (98.0-100.0)" in done.err
    text = page.read_text(encoding="utf-8")
    references = _References()
    references.feed(text)
    # Cells of the confusion matrix, and mistakes and doubts with their maps.
    assert sum(source.startswith("data:image/jpeg") for source in references.sources) == len(references.sources) > 20
    assert "neutrophil, predicted erythroblast" in text
    assert "neutrophil predicted as erythroblast: 2 images" in text
    assert "smudge" in text


def test_the_command_says_how_to_map_names(export: Path, site: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    done = bloodauto_here("evaluate", export, site, "--output", page)
    assert done.code == 2
    assert MAP in done.err
    assert not page.exists()


def test_predictions_and_figures_take_a_magnification_or_images_of_the_site(
    export: Path, site: Path, tmp_path: Path
) -> None:
    output = tmp_path / "predictions.csv"
    done = bloodauto_here("predict", export, site, "--output", output, "--magnification", 1.3)
    assert done.code == 0, done.err
    by_hand = output.read_text().splitlines()
    assert len(by_hand) == 19
    done = bloodauto_here("predict", export, site, "--output", output, "--site", site)
    assert done.code == 2
    assert "expected at least 24 to estimate a magnification from, got 18" in done.err
    write_site(tmp_path / "more", {"neutrophil": [1]}, count=24)
    done = bloodauto_here("predict", export, site, "--output", output, "--site", tmp_path / "more")
    assert done.code == 0, done.err
    assert "24 images" in done.err
    for arguments, message in (
        (("--magnification", 1.3, "--site", site), "expected no --site with it"),
        (("--magnification", 9), "expected 0.25 to 4 times, got 9"),
    ):
        done = bloodauto_here("predict", export, site, "--output", output, *arguments)
        assert (done.code, message in done.err) == (2, True), done.err
    evaluation = bloodauto.evaluate(export, site, class_map=MAP, magnification=1.3)
    assert evaluation.images == 12
