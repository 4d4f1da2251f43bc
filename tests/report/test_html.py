from __future__ import annotations

import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bloodauto.config.settings import read_settings, write_settings
from bloodauto.errors import RunError
from bloodauto.report.html import render, write_report
from bloodauto.report.info import RunInfo, TrialInfo
from bloodauto.report.markup import tag
from bloodauto.report.read import read_run
from bloodauto.run.directory import RunDirectory
from bloodauto.run.files import read_json, write_json
from bloodauto.run.yaml_files import dump_yaml
from bloodauto.testing.run_factory import build_run

from .browser import browser, console_errors, needs_browser

HOSTILE = "<script>window.broken=1</script><img src=x onerror='window.broken=2'>&\"'"


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
        if tag not in ("meta", "link"):
            self._open.append(tag)
        if tag == "section":
            self._section = attributes.get("id") or ""

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] not in ("script", "style"):
            self.sections[self._section] = self.sections.get(self._section, "") + data + " "


@pytest.fixture(scope="module")
def report(finished_info: RunInfo) -> Page:
    return Page(render(finished_info))


def test_the_headline_says_what_was_found(report: Page, finished_info: RunInfo) -> None:
    text = report.sections["summary"].replace("\u202f", " ")
    assert "An ensemble of 3 members was chosen" in text
    assert finished_info.test is not None
    assert finished_info.test.accuracy is not None
    assert f"{100 * finished_info.test.accuracy:.1f} %" in text
    assert "between 95.1 % and 97.4 %" in text
    assert (
        "Expected at an external site 76 % between 41 % and 95 % in 90 % of laboratories nobody has seen, from 40 simulated"
        in text
    )
    assert "it held in 91 % of them" in text
    assert "86.8 GPU-min spent of 2 GPU-h (typed as 2gpu-h)" in text
    for chip in ("14 complete", "11 pruned", "2 failed", "1 out of budget", "1 open", "1 waiting"):
        assert chip in text


def test_every_chapter_is_there_with_its_content(report: Page) -> None:
    assert "missing" not in report.sections
    assert "resnet18" in report.sections["trials"]
    assert "out_of_memory" in report.sections["failures"]
    assert "near_duplicate" in report.sections["data"]
    assert "successive_halving" in report.sections["settings"]
    assert "bloodauto export-best" in report.sections["next"]
    assert "temperature 1.310." in report.sections["ensemble"]
    assert "The best of 14 trials had an objective of 89.4\u202f%" in report.sections["ensemble"]
    assert "without its luck 88.3\u202f%" in report.sections["ensemble"]
    assert (
        "it answers 95.0\u202f% of the clean images and 71.0\u202f% of the shifted views" in report.sections["errors"]
    )
    assert "Same lab 96.8 % (95.1-97.4); elsewhere 76 % (41-95)." in report.sections["external"]
    assert "Not covered: other patients" in report.sections["external"]
    anchors = {attributes["href"] for name, attributes in report.elements if name == "a"}
    assert anchors == {f"#{name}" for name in report.sections if name not in ("", "summary")}


def test_without_drawn_laboratories_shifted_views_stand_in_and_nothing_is_promised(finished_info: RunInfo) -> None:
    assert finished_info.test is not None
    test = replace(finished_info.test, external=None, simulated_sites=())
    page = Page(render(replace(finished_info, test=test)))
    text = page.sections["summary"].replace("\u202f", " ")
    assert "Expected at an external site" not in text
    assert "on average over 7 kinds; worst: another laboratory, everything at once, 68.3 %" in text
    assert "The held-out test has not been judged in simulated sites." in page.sections["external"]


def test_scales_and_luck_are_said_as_they_are(finished_info: RunInfo) -> None:
    assert finished_info.ensemble is not None
    ensemble = replace(finished_info.ensemble, per_class=True, selection_bias=None)
    text = Page(render(replace(finished_info, ensemble=ensemble))).sections["ensemble"]
    assert "and a scale and a bias for each class." in text
    assert "a recipe that was trained twice" in text


def test_the_page_needs_nothing_else(report: Page) -> None:
    for name, attributes in report.elements:
        assert name not in ("iframe", "object", "embed", "base", "form")
        assert "src" not in attributes
        if name == "link":
            assert attributes["href"] == "data:,"
    (policy,) = [a["content"] or "" for _, a in report.elements if a.get("http-equiv") == "Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'sha256-" in policy
    assert "unsafe-eval" not in policy


def test_plotly_is_there_once(finished_info: RunInfo) -> None:
    page = render(finished_info)
    assert len(re.findall(r"plotly\.js v\d", page)) == 1
    assert len(page) < 7_000_000


def test_only_the_thirty_best_trials_are_listed(tmp_path: Path) -> None:
    run = build_run(tmp_path / "many", trials=40, finished=False)
    text = Page(render(read_run(run.root))).sections["trials"]
    assert "10 more trials are in the study" in text
    assert len(re.findall(r"\b\d+\.\d\u202f%", text)) > 60


def test_trials_that_the_budget_could_not_carry_are_counted_not_listed(finished_info: RunInfo) -> None:
    refused = [TrialInfo(number, "out_of_budget", None, device_seconds=0.0) for number in (30, 31)]
    text = Page(render(replace(finished_info, trials=(*finished_info.trials, *refused)))).sections["trials"]
    assert "2 more were suggested that the budget could not carry" in text
    assert " 31 " not in text


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    run = build_run(tmp_path / "bad", trials=12, classes=(HOSTILE, "b", "c"))
    ensemble = read_json(run.ensemble.path)
    ensemble["members"][0]["name"] = ensemble["best_single"]["name"] = HOSTILE
    write_json(run.ensemble.path, ensemble)
    write_settings(run, read_settings(run).model_copy(update={"data": HOSTILE}))
    run.next_steps.write_text(HOSTILE)
    page = render(read_run(run.root))
    assert "<script>window" not in page
    assert "<img" not in page
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


def test_dead_and_young_runs_are_reported(tmp_path: Path) -> None:
    (tmp_path / "young").mkdir()
    (tmp_path / "young" / "settings.yaml").write_text(dump_yaml({"budget": "2gpu-h", "budget_device_seconds": 7200}))
    page = Page(write_report(tmp_path / "young").read_text(encoding="utf-8"))
    assert "Nothing has been tried yet." in page.sections["summary"]
    assert "the search has not begun" in page.sections["missing"]
    assert not any(attributes.get("class") == "plot" for _, attributes in page.elements)

    dead = build_run(tmp_path / "dead", trials=12, finished=False)
    page = Page(write_report(dead.root).read_text(encoding="utf-8"))
    assert "The incumbent is trial" in page.sections["summary"]
    assert "on the validation images it was chosen by" in page.sections["summary"]
    assert "--resume" in page.sections["next"]
    assert "No ensemble has been made." in page.sections["ensemble"]


def test_a_run_in_which_everything_failed(tmp_path: Path) -> None:
    import optuna

    study = optuna.create_study(
        storage=f"sqlite:///{tmp_path / 'study.db'}", study_name="bloodauto", direction="maximize"
    )
    for reason in ("nan", "nan", "out_of_memory"):
        trial = study.ask()
        trial.set_user_attr("reason", reason)
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
    page = Page(write_report(tmp_path).read_text(encoding="utf-8"))
    assert "No trial was completed" in page.sections["summary"]
    assert "2 failed: nan" in page.sections["failures"]
    assert "0 complete trials are too few" in page.sections["importance"]


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
        assert len(drawn) == 12
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
def test_hostile_names_do_nothing_in_a_browser(tmp_path: Path) -> None:
    run = build_run(tmp_path / "bad", trials=12, classes=(HOSTILE, "b", "c"))
    with browser(1280) as driver:
        driver.get(write_report(run.root).as_uri())
        driver.implicitly_wait(20)
        driver.find_element("css selector", "#plot-confusion[data-drawn]")
        assert driver.execute_script("return window.broken") is None
        label = driver.execute_script("return document.querySelector('#plot-confusion .ytick text').textContent")
        assert label.startswith("<script>"), "shown as it is written"
        assert console_errors(driver) == []


def test_the_report_of_a_copied_run_is_the_same(
    own_run: RunDirectory, finished_run: RunDirectory, tmp_path: Path
) -> None:
    """Nothing but the place and the moment differs: the page depends on the run's files alone."""

    def body(root: Path) -> str:
        return re.sub(r"<footer>.*?</footer>", "", render(read_run(root)).replace(str(root), ""))

    moved = tmp_path / "x" / own_run.root.name
    shutil.copytree(own_run.root, moved)
    assert body(moved) == body(finished_run.root)
