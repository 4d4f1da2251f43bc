from __future__ import annotations

import base64
import re
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from selenium.webdriver.remote.webelement import WebElement

from bloodauto.config.settings import read_settings, write_settings
from bloodauto.data.pictures import PICTURE_BYTES
from bloodauto.errors import RunError
from bloodauto.report.html import render, write_report
from bloodauto.report.markup import tag
from bloodauto.report.read import read_run
from bloodauto.report.run_info import RunInfo, TrialInfo
from bloodauto.run.artifacts import (
    CleanedPicture,
    ConfusionPictures,
    DataPictures,
    DistillationResult,
    OodEvaluation,
    ParetoFront,
    ParetoTrial,
    PerClassScaling,
    Picture,
    SiteScore,
    SiteScores,
    StudentComparison,
    SyntheticOodResult,
    TargetEstimate,
)
from bloodauto.run.directory import RunDirectory
from bloodauto.run.study_attributes import TrialAttributes
from bloodauto.testing.run_factory import build_run, make_scores, make_selective

from .browser import browser, console_errors, needs_browser

HOSTILE = "<script>window.broken=1</script><img src=x onerror='window.broken=2'>&\"'"


MOMENT = datetime(2025, 1, 2, tzinfo=UTC)


class Page(HTMLParser):
    """The elements of a page, and its text without scripts and styles, by the section it stands in."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.sections: dict[str, str] = {}
        self._open: list[str] = []
        self._section = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.elements.append((tag, attributes))
        if tag not in ("meta", "link", "img"):
            self._open.append(tag)
        if tag == "section":
            self._section = attributes.get("id") or ""

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] not in ("script", "style"):
            self.sections[self._section] = self.sections.get(self._section, "") + data + " "


def page_of(run: RunInfo) -> Page:
    return Page(render(run, written_at=MOMENT))


@pytest.fixture(scope="module")
def report(finished_info: RunInfo) -> Page:
    return page_of(finished_info)


def test_the_summary_says_what_came_out(report: Page, finished_info: RunInfo) -> None:
    text = report.sections["summary"].replace("\u202f", " ")
    assert "An ensemble of 3 members was selected" in text
    assert finished_info.held_out_test is not None
    assert f"{100 * finished_info.held_out_test.accuracy:.1f} %" in text
    assert "between 95.1 % and 97.4 %" in text
    expected = (
        "Expected at an external site 76 % between 41 % and 95 % at 90 % of external sites, estimated from 40 simulated"
    )
    assert expected in text
    assert "left out of the estimate: 91 %" in text
    assert "86.8 GPU-min spent of 2 GPU-h (2gpu-h)" in text
    for chip in ("14 complete", "11 pruned", "2 failed", "1 out of budget", "1 running", "1 waiting"):
        assert chip in text


def test_every_section_has_its_content(report: Page) -> None:
    assert "missing" not in report.sections
    assert "resnet18" in report.sections["trials"]
    assert "out_of_memory" in report.sections["failures"]
    assert "near_duplicate" in report.sections["data"]
    assert "excluded (7), test (15), fold 0 (15)" in report.sections["data"]
    assert "no image of ig" in report.sections["data"]
    assert "successive_halving" in report.sections["settings"]
    assert "bloodauto export-best" in report.sections["next"]
    ensemble = report.sections["ensemble"].replace("\u202f", " ")
    assert "temperature 1.310." in ensemble
    assert "8 trials and 2 refits, and 3 pruned trials (4 of 11 pruned trials were promising)" in ensemble
    assert "The best of 14 trials had an objective of 89.4 %" in ensemble
    assert "Corrected for selection bias (winner's curse), 88.3 %" in ensemble
    errors = report.sections["errors"].replace("\u202f", " ")
    assert "95.0 % of the clean images and 71.0 % of the shifted images get a prediction" in errors
    assert "held-out test set 1.7 % 6.1 %" in " ".join(errors.split())
    assert re.search(
        r"In-domain 9\d\.\d % \(95\.1-97\.4\); external site 76 % \(41-95\)\.", report.sections["external"]
    )
    assert "Not covered: other patients" in report.sections["external"]
    anchors = {attributes["href"] for name, attributes in report.elements if name == "a"}
    assert anchors == {f"#{name}" for name in report.sections if name not in ("", "summary")}


def test_without_an_external_estimate_shifted_images_stand_in(finished_info: RunInfo) -> None:
    assert finished_info.held_out_test is not None
    test = finished_info.held_out_test.replace(external=None, simulated_sites=())
    page = page_of(replace(finished_info, held_out_test=test))
    text = page.sections["summary"].replace("\u202f", " ")
    assert "Expected at an external site" not in text
    assert "87.0 % accuracy on 1,600 shifted test images; lowest: combined shift (simulated site), 68.3 %" in text
    assert "At simulated sites" not in page.sections["external"]


def test_the_agreement_of_objective_and_clean_accuracy_is_printed(finished_info: RunInfo) -> None:
    text = "Over 14 complete trials the rank correlation (Spearman) of objective and clean accuracy is 0.62."
    assert text in page_of(finished_info).sections["external"]


def test_calibration_and_selection_bias_are_described_as_they_are(finished_info: RunInfo) -> None:
    assert finished_info.ensemble is not None
    scaling = PerClassScaling(scales=(1.0,), biases=(0.0,))
    calibration = finished_info.ensemble.calibration.replace(per_class=scaling)
    ensemble = finished_info.ensemble.replace(calibration=calibration, selection_bias=None)
    text = page_of(replace(finished_info, ensemble=ensemble)).sections["ensemble"]
    assert "and a scale and a bias for each class." in text
    assert "a recipe that was trained twice" in text


def test_what_only_some_runs_have_is_shown_and_escaped(own_run: RunDirectory) -> None:
    rng = np.random.default_rng(0)
    own_run.site_scores.write(
        SiteScores(sites=(SiteScore(site="Basel <1>", images=120, accuracy=0.75, balanced_accuracy=0.5),))
    )
    own_run.target_estimate.write(TargetEstimate(images=256, accuracy=0.625, confidence=0.875, agreement=0.5))
    values = {"shift": 0.8, "latency": 1.25, "parameters": 3e6}
    own_run.pareto_front.write(
        ParetoFront(
            objectives=tuple(values),
            trials=(ParetoTrial(trial=3, backbone="mobilenet_1.0", recipe_id="ab", values=values),),
        )
    )
    own_run.distilled.write(_distillation())
    own_run.ood_evaluation.write(
        OodEvaluation(
            in_domain=make_selective(rng, 512, coverage=0.95, accuracy=0.99),
            external=make_selective(rng, 384, coverage=0.64, accuracy=0.8),
            synthetic_ood=(SyntheticOodResult(kind="pictures <of> nothing", images=128, flagged=0.97, auroc=0.99),),
        )
    )
    page = render(read_run(own_run.root), written_at=MOMENT)
    for escaped in ("Basel &lt;1&gt;", "pictures &lt;of&gt; nothing", "own_cnn &lt;b&gt;"):
        assert escaped in page
    text = {name: section.replace("\u202f", " ") for name, section in Page(page).sections.items()}
    assert "120 75.0 % 50.0 %" in " ".join(text["external"].split())
    assert "Estimated accuracy in the target domain: 62.5 %, from 256 unlabelled images" in text["external"]
    assert "Two of its networks agree on 50.0 %" in text["external"]
    assert "3 mobilenet_1.0 80.0 % 1.25 ms 3,000,000" in " ".join(text["trials"].split())
    assert "6,000 91.2 %" in " ".join(text["ensemble"].split())
    assert "both predict the same class for 95.0 %, and for 88.0 % of 120 shifted images" in text["ensemble"]
    assert "95.0 % of 512 images that were left out of training get a prediction, and 64.0 % of 384" in text["errors"]
    assert "it flags 97 % of pictures <of> nothing" in text["errors"]


def _distillation() -> DistillationResult:
    comparison = StudentComparison(
        scores=make_scores(accuracy=0.912, shift=0.7),
        teacher_scores=make_scores(accuracy=0.934, shift=0.8),
        agreement=0.95,
        agreement_shifted=0.88,
        images=400,
        shifted_images=120,
    )
    return DistillationResult(
        network="own_cnn <b>at 32 px",
        recipe_id="ab",
        parameters=6000,
        teacher_parameters=31000,
        epochs=12,
        budget_device_seconds=100.0,
        spent_device_seconds=90.0,
        comparison=comparison,
    )


def test_the_page_needs_nothing_else(report: Page) -> None:
    for name, attributes in report.elements:
        assert name not in ("iframe", "object", "embed", "base", "form")
        if name == "img":
            assert (attributes["src"] or "").startswith("data:image/jpeg;base64,")
        else:
            assert "src" not in attributes
        if name == "link":
            assert attributes["href"] == "data:,"
    (policy,) = [a["content"] or "" for _, a in report.elements if a.get("http-equiv") == "Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'sha256-" in policy
    assert "unsafe-eval" not in policy


def test_plotly_is_there_once(finished_info: RunInfo) -> None:
    page = render(finished_info, written_at=MOMENT)
    assert len(re.findall(r"plotly\.js v\d", page)) == 1
    assert len(page) < 8_000_000


def test_pictures_stand_where_they_belong(report: Page) -> None:
    sources = [attributes for name, attributes in report.elements if name == "img"]
    assert len({attributes["src"] for attributes in sources}) > 40
    assert all(attributes["alt"] for attributes in sources)
    text = report.sections["pictures"].replace("\u202f", " ")
    for title in ("The most confident mistakes", "The least certain correct", "marks for a person"):
        assert title in text
    assert "basophil, predicted eosinophil (89 %)" in text
    assert "exact duplicate" in report.sections["data"]
    external = " ".join(report.sections["external"].replace("\u202f", " ").split())
    assert "; 12 images in each cell" in external
    assert "stain hue 92 % 83 % 75 % 83 %" in external
    assert "refit seed 8" in report.sections["augmentation"]


def test_pictures_of_another_ensemble_are_not_shown(finished_info: RunInfo) -> None:
    assert finished_info.result_pictures is not None
    other = finished_info.result_pictures.replace(ensemble="another")
    page = page_of(replace(finished_info, result_pictures=other))
    assert "bloodauto export-best" in page.sections["pictures"]
    assert not [a for name, a in page.elements if name == "button"]
    assert "augmentation" not in page.sections


def test_the_search_can_be_started_again_from_the_report(report: Page) -> None:
    command = "bloodauto search --data cells.npz --space blood --budget 2gpu-h --workers 2 --cpus-per-trial 4.0"
    assert command in report.sections["next"]
    assert "--seed 7 --run runs/again" in report.sections["next"]


def test_the_largest_report_can_be_sent_by_mail(finished_info: RunInfo) -> None:
    """As many pictures as a run may have, each as large as it may be."""
    assert finished_info.result_pictures is not None
    largest = base64.b64encode(b"\xff\xd8\xff".ljust(PICTURE_BYTES, b"x")).decode()
    picture = Picture(name="img/0000.png", jpeg=largest)
    predicted = finished_info.result_pictures.predictions.confident_mistakes[0]
    predicted = predicted.replace(picture=picture, saliency=largest)
    cleaned = CleanedPicture(picture=picture, label="a", finding="blank", action="keep", reason="")
    cell = ConfusionPictures(true_index=0, predicted_index=0, pictures=(picture,) * 256)
    predictions = finished_info.result_pictures.predictions.replace(
        confusion=(cell,), confident_mistakes=(predicted,) * 48
    )
    families = finished_info.result_pictures.shift[:1] * 28
    shift = tuple(family.replace(example=largest) for family in families)
    pictures = finished_info.result_pictures.replace(predictions=predictions, shift=shift, augmentation=largest * 30)
    data = DataPictures(classes={"basophil": (picture,) * 160}, cleaned=(cleaned,) * 64)
    page = render(replace(finished_info, result_pictures=pictures, data_pictures=data), written_at=MOMENT)
    assert len(page) < 8_000_000


def test_only_the_thirty_best_trials_are_listed(tmp_path: Path) -> None:
    run = build_run(tmp_path / "many", trials=40, finished=False)
    text = page_of(read_run(run.root)).sections["trials"]
    assert "10 more trials are in the study" in text
    assert len(re.findall(r"\b\d+\.\d\u202f%", text)) > 60


def test_trials_that_did_not_fit_into_the_budget_are_counted_not_listed(finished_info: RunInfo) -> None:
    attributes = TrialAttributes(device_seconds=0.0)
    unstarted = [TrialInfo(number, "out_of_budget", None, attributes=attributes) for number in (30, 31)]
    text = page_of(replace(finished_info, trials=(*finished_info.trials, *unstarted))).sections["trials"]
    assert "2 more were suggested that did not fit into the budget" in text
    assert " 31 " not in text


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    run = build_run(tmp_path / "bad", trials=12, classes=(HOSTILE, "b", "c"))
    ensemble = run.ensemble.read()
    members = (ensemble.members[0].replace(name=HOSTILE), *ensemble.members[1:])
    run.ensemble.write(ensemble.replace(members=members, best_single=ensemble.best_single.replace(name=HOSTILE)))
    write_settings(run, read_settings(run).model_copy(update={"data": HOSTILE}))
    run.next_steps.write_text(HOSTILE)
    page = render(read_run(run.root), written_at=MOMENT)
    assert "<script>window" not in page
    assert "<img src=x" not in page
    text = Page(page).sections
    assert HOSTILE in text["settings"]
    assert HOSTILE in text["data"]
    assert HOSTILE in text["next"]


@given(st.text(max_size=30), st.text(max_size=30))
def test_markup_gives_back_any_text(content: str, value: str) -> None:
    class Reader(HTMLParser):
        text, value = "", ""

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            self.value = attrs[0][1] or ""

        def handle_data(self, data: str) -> None:
            self.text += data

    reader = Reader()
    reader.feed(tag("p", content, title=value))
    reader.close()
    assert (reader.text, reader.value) == (content, value)


def test_the_report_is_written_where_asked(own_run: RunDirectory, tmp_path: Path) -> None:
    assert write_report(own_run.root) == own_run.report
    external = write_report(own_run.root, tmp_path / "new" / "page.html")
    assert external.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    with pytest.raises(RunError):
        write_report(tmp_path / "nothing")


def test_killed_and_young_runs_are_reported(tmp_path: Path, finished_run: RunDirectory) -> None:
    (tmp_path / "young").mkdir()
    shutil.copy(finished_run.settings, tmp_path / "young")
    page = Page(write_report(tmp_path / "young").read_text(encoding="utf-8"))
    assert "No trial has started yet." in page.sections["summary"]
    assert "the search has not begun" in page.sections["missing"]
    assert not any(attributes.get("class") == "plot" for _, attributes in page.elements)

    killed = build_run(tmp_path / "killed", trials=12, finished=False)
    page = Page(write_report(killed.root).read_text(encoding="utf-8"))
    assert "The incumbent is trial" in page.sections["summary"]
    assert "on the validation images it was selected on" in page.sections["summary"]
    assert "--resume" in page.sections["next"]
    assert not {"ensemble", "augmentation", "pictures"} & set(page.sections), "no empty sections"


def test_a_run_in_which_everything_failed(tmp_path: Path) -> None:
    import optuna

    study = optuna.create_study(
        storage=f"sqlite:///{tmp_path / 'study.db'}", study_name="bloodauto", direction="maximize"
    )
    for reason in ("nan", "nan", "out_of_memory"):
        trial = study.ask()
        TrialAttributes(outcome="failed", reason=reason).write(trial)
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
    page = Page(write_report(tmp_path).read_text(encoding="utf-8"))
    assert "No trial completed" in page.sections["summary"]
    assert "2 failed: nan" in page.sections["failures"]
    assert set(page.sections) <= {"", "summary", "missing", "failures", "progress", "trials", "next"}, (
        "no empty sections"
    )


@pytest.mark.browser
@pytest.mark.slow
@needs_browser
@pytest.mark.parametrize("width_px", [1280, 390])
def test_a_browser_draws_every_figure_and_complains_of_nothing(
    finished_run: RunDirectory, tmp_path: Path, width_px: int
) -> None:
    page = write_report(finished_run.root, tmp_path / "report.html")
    with browser(width_px) as driver:
        driver.get(page.as_uri())
        driver.set_script_timeout(30)
        drawn = driver.execute_async_script("""
            const done = arguments[0], places = [...document.querySelectorAll(".plot")];
            (function wait() {
              if (!places.every(place => place.dataset.drawn)) return setTimeout(wait, 50);
              done(places.map(place => {
                const svg = place.querySelector("svg.main-svg").getBoundingClientRect();
                const marks = place.querySelectorAll(".trace path, .hm image, .points path, .bars path").length;
                return [place.id, svg.width, svg.height, marks, place.getBoundingClientRect().width];
              }));
            })();
        """)
        assert len(drawn) == 11
        for name, width, height, marks, room in drawn:
            assert width > 200, name
            assert height > 150, name
            assert width <= room + 1, f"{name} stands out of its place"
            assert marks > 0, f"{name} is blank"
        assert driver.execute_script("return document.documentElement.scrollWidth") <= width_px
        buttons = driver.execute_script(
            "return [...document.querySelectorAll('.modebar-btn')].map(b => b.dataset.title)"
        )
        assert not [title for title in buttons if "share" in title.lower() or "cloud" in title.lower()]
        assert console_errors(driver) == []


@pytest.mark.browser
@pytest.mark.slow
@needs_browser
def test_a_click_on_a_cell_of_the_confusion_matrix_shows_its_images(finished_run: RunDirectory, tmp_path: Path) -> None:
    page = write_report(finished_run.root, tmp_path / "report.html")
    with browser(1280) as driver:
        driver.get(page.as_uri())
        driver.implicitly_wait(20)
        # Figures move what is below them until all are drawn.
        driver.find_element("css selector", "#plot-learning[data-drawn]")
        driver.implicitly_wait(0)
        buttons = driver.find_elements("css selector", "table.confusion button")

        def click(button: WebElement) -> None:
            driver.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", button)
            button.click()

        def shown() -> list[str]:
            panels = driver.find_elements("css selector", ".cell-pictures")
            return [panel.get_attribute("id") for panel in panels if panel.is_displayed()]

        assert shown() == []
        for button in buttons[:2]:
            click(button)
            assert shown() == [button.get_attribute("data-cell")]
            panel = driver.find_element("id", button.get_attribute("data-cell"))
            (picture,) = panel.find_elements("css selector", "img")
            assert picture.get_property("naturalWidth") == 32, "the picture is drawn"
            assert f": {button.text} images" in panel.text
        click(buttons[1])
        assert shown() == []
        assert console_errors(driver) == []


@pytest.mark.browser
@pytest.mark.slow
@needs_browser
def test_hostile_names_do_nothing_in_a_browser(tmp_path: Path) -> None:
    run = build_run(tmp_path / "bad", trials=12, classes=(HOSTILE, "b", "c"))
    with browser(1280) as driver:
        driver.get(write_report(run.root).as_uri())
        driver.implicitly_wait(20)
        driver.find_element("css selector", "#plot-ensemble[data-drawn]")
        assert driver.execute_script("return window.broken") is None
        label = driver.find_element("css selector", "table.confusion tbody th").text
        assert label.startswith("<script>"), "shown as it is written"
        driver.execute_script("document.querySelector('table.confusion button').click()")
        assert driver.find_element("css selector", ".cell-pictures:not([hidden])").text.startswith("<script>")
        assert driver.execute_script("return window.broken") is None
        assert console_errors(driver) == []


def test_the_report_of_a_copied_run_is_the_same(
    own_run: RunDirectory, finished_run: RunDirectory, tmp_path: Path
) -> None:
    """Nothing but the place and the moment differs: the page depends on the run's files alone."""

    def body(root: Path) -> str:
        return render(read_run(root), written_at=MOMENT).replace(str(root), "")

    moved = tmp_path / "x" / own_run.root.name
    shutil.copytree(own_run.root, moved)
    assert body(moved) == body(finished_run.root)
