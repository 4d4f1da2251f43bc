"""Makes the pictures of the README: the terminal during a search on synthetic cells, and the head of its report.

    python docs/make_assets.py --budget 6cpu-min

Needs Chromium. Takes the time of the search; writes docs/assets/terminal.svg and docs/assets/report.png.
"""

from __future__ import annotations

import argparse
import io
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import cv2
from rich.console import Console
from rich.text import Text

from bloodauto.cli.screen import status_screen
from bloodauto.monitor.reader import StatusReader
from bloodauto.monitor.status import SearchStatus
from bloodauto.run.directory import RunDirectory

ASSETS = Path(__file__).resolve().parent / "assets"
_COLUMNS, _LINES = 110, 34
_REPORT_SIZE_PX = (1200, 1000)
#: Shades of a picture: fewer make a smaller file, and text stays readable.
_BITS_PER_CHANNEL = 5


def run_search(run: Path, budget: str) -> tuple[SearchStatus, list[str]]:
    """Runs the search; returns its state when about half of the budget was spent, and the lines that it ends with."""
    arguments = ["search", "--data", "synthetic", "--space", "tiny", "--budget", budget, "--quiet", "--run", str(run)]
    command = [sys.executable, "-c", "from bloodauto.cli.main import main; main()", *arguments]
    status: SearchStatus | None = None
    search = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=run.parent)
    while search.poll() is None:
        time.sleep(1.0)
        if not RunDirectory(run).study.is_file() or not RunDirectory(run).settings.is_file():
            continue
        current = StatusReader(run).read()
        if current.running and current.spent_device_seconds < current.budget_device_seconds / 2:
            status = current
    shown, _ = search.communicate()
    if search.returncode != 0 or status is None:
        sys.exit(f"expected a search that ends well, got exit code {search.returncode}")
    return replace(status, run=Path("runs/demo")), shown.replace(str(run), "runs/demo").splitlines()


def draw_terminal(status: SearchStatus, result: list[str], path: Path) -> None:
    """Draws the screen of a search and its end as an SVG that loads nothing from elsewhere."""
    console = Console(record=True, width=_COLUMNS, file=io.StringIO(), force_terminal=True)
    budget = f"--budget {status.budget} --run {status.run}"
    console.print(Text(f"$ bloodauto search --data synthetic --space tiny {budget}", style="bold"))
    console.print(status_screen(status, width=_COLUMNS, height=_LINES))
    console.print(Text("\n[at the end]\n", style="dim"))
    for line in result:
        console.print(Text(line), overflow="fold")
    svg = console.export_svg(title="bloodauto")
    path.write_text(re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL), encoding="utf-8")


def photograph_report(report: Path, path: Path) -> None:
    """Writes a PNG of the head of a report."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        sys.exit("expected Chromium (chromium or google-chrome) on the PATH, found none")
    width, height = _REPORT_SIZE_PX
    options = ["--headless", "--no-sandbox", "--hide-scrollbars", "--virtual-time-budget=10000"]
    command = [browser, *options, f"--window-size={width},{height}", f"--screenshot={path}", report.as_uri()]
    subprocess.run(command, check=True, capture_output=True)
    picture = cv2.imread(str(path))
    assert picture is not None, "Chromium wrote no picture"
    step = 1 << (8 - _BITS_PER_CHANNEL)
    cv2.imwrite(str(path), picture // step * step + step // 2, [cv2.IMWRITE_PNG_COMPRESSION, 9])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--budget", default="6cpu-min")
    budget = parser.parse_args().budget
    ASSETS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "demo"
        draw_terminal(*run_search(run, budget), ASSETS / "terminal.svg")
        code = "from bloodauto.cli.main import main; main()"
        subprocess.run([sys.executable, "-c", code, "report", "--run", str(run)], check=True)
        photograph_report(run / "report.html", ASSETS / "report.png")


if __name__ == "__main__":
    main()
