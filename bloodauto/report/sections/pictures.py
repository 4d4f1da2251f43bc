"""Pictures in the report: contact sheets, the confusion matrix with the images behind its cells, and saliency maps."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from bloodauto.report.figures.confusion import ConfusionInfo
from bloodauto.report.formatting import count, percent, spaced, training_name
from bloodauto.report.markup import Content, Markup, hint, join, table, tag
from bloodauto.report.run_info import RunInfo
from bloodauto.run.artifacts import (
    CleanedPicture,
    ConfusionPictures,
    DataPictures,
    PredictedPicture,
    PredictionPictures,
    ResultPictures,
    ShiftFamily,
)

_SALIENCY_HINT = (
    "Beside each image the same with its saliency map (Grad-CAM): yellow is what speaks most for the predicted class. "
    "Maps show where the evidence lies, not whether it is right."
)
_NO_PICTURES = (
    "Pictures of predictions are missing: the budget ended before they could be drawn. "
    "'bloodauto export-best' draws them."
)


def image(jpeg: str, text: str, *, width_px: int = 96) -> Markup:
    """A picture inside the page.

    Args:
        jpeg: a JPEG file in base64.
        text: stands for the picture where it cannot be seen.
        width_px: on the screen; 0: as wide as its container at most.
    """
    size = Markup(' width="{}"').format(width_px) if width_px else Markup("")
    return Markup('<img alt="{}" src="data:image/jpeg;base64,{}"{}>').format(text, jpeg, size)


def class_rows(pictures: DataPictures, counts: dict[str, int]) -> Markup:
    """A row of pictures for each class, with its number of images."""
    largest, total = max(counts.values(), default=0), max(sum(counts.values()), 1)
    rows = []
    for name, number in counts.items():
        bar = tag("div", tag("span", "", style=f"width:{100 * number / max(largest, 1):.1f}%"), class_="bar")
        heading = tag(
            "div",
            tag("b", name),
            tag("span", f"{count(number)} images, {percent(number / total)}"),
            bar,
            class_="about",
        )
        strip = tag("div", *(image(entry.jpeg, entry.name) for entry in pictures.classes.get(name, ())), class_="strip")
        rows.append(tag("div", heading, strip, class_="class-row"))
    return tag("div", *rows, class_="class-rows")


def cleaned_pictures(pictures: Sequence[CleanedPicture]) -> Markup | None:
    """The images in which cleaning found something, by finding; None where there are none."""
    parts: list[Content] = []
    for finding in dict.fromkeys(entry.finding for entry in pictures):
        of_finding = [entry for entry in pictures if entry.finding == finding]
        figures = (
            _figure(image(entry.picture.jpeg, entry.picture.name), f"{entry.label}, {entry.action}", entry.reason)
            for entry in of_finding
        )
        parts += [tag("h4", spaced(finding)), tag("div", *figures, class_="pictures")]
    return join(parts) if parts else None


def _figure(shown: Markup, caption: str, title: str) -> Markup:
    return tag("figure", shown, tag("figcaption", caption, title=title))


def confusion_table(info: ConfusionInfo, pictures: Sequence[ConfusionPictures]) -> Markup:
    """A confusion matrix; a click on a cell shows pictures of its images below.

    Args:
        info: the matrix.
        pictures: of some cells.
    """
    pictured = {(cell.true_index, cell.predicted_index): cell for cell in pictures}
    head = tag("tr", tag("th", "true", class_="corner"), *(_column_heading(name) for name in info.classes))
    rows = [
        tag(
            "tr",
            tag("th", name, scope="row"),
            *(_matrix_cell(info, (row, column), pictured) for column in range(len(info.classes))),
        )
        for row, name in enumerate(info.classes)
    ]
    grid = tag("table", tag("thead", head), tag("tbody", *rows), class_="confusion")
    parts: list[Content] = [tag("div", grid, class_="scroll", tabindex="0")]
    if pictured:
        panels = (_cell_panel(info, cell) for cell in pictures)
        parts += [hint("Rows are true classes. Click on a number to see its images."), *panels]
    return tag("div", *parts, class_="confusion-matrix")


def _column_heading(name: str) -> Markup:
    return tag("th", tag("span", name), scope="col", title=f"predicted {name}")


def _matrix_cell(info: ConfusionInfo, cell: tuple[int, int], pictured: Collection[tuple[int, int]]) -> Markup:
    row, column = cell
    number, fraction = info.counts[row][column], info.fractions[row][column]
    if not number:
        return tag("td")
    # The root makes few errors among many correct predictions visible.
    shade = fraction**0.5
    style = f"background:rgb(163 18 58 / {100 * shade:.0f}%)"
    title = f"{info.classes[row]} predicted as {info.classes[column]}: {count(number)}, {fraction:.1%} of the class"
    kind = "strong" if shade > 0.5 else "weak"
    content: Content = str(number)
    if cell in pictured:
        content = tag(
            "button",
            str(number),
            type="button",
            data_cell=_cell_id(row, column),
            aria_expanded="false",
            aria_label=title,
        )
    return tag("td", content, style=style, title=title, class_=kind)


def _cell_id(row: int, column: int) -> str:
    return f"cell-{row}-{column}"


def _cell_panel(info: ConfusionInfo, cell: ConfusionPictures) -> Markup:
    row, column = cell.true_index, cell.predicted_index
    number, shown = info.counts[row][column], len(cell.pictures)
    some = f", {shown} of them" if shown < number else ""
    title = f"{info.classes[row]} predicted as {info.classes[column]}: {count(number)} images{some}"
    images = tag("div", *(image(entry.jpeg, entry.name) for entry in cell.pictures), class_="strip wrap")
    return tag("div", tag("h4", title), images, class_="cell-pictures", id=_cell_id(row, column), hidden="hidden")


def recall_table(info: ConfusionInfo) -> Markup:
    """Recall and precision of each class, from a confusion matrix."""
    columns = [sum(row[index] for row in info.counts) for index in range(len(info.classes))]
    rows: list[tuple[Content, ...]] = []
    for index, name in enumerate(info.classes):
        images, correct = sum(info.counts[index]), info.counts[index][index]
        recall = correct / images if images else None
        precision = correct / columns[index] if columns[index] else None
        bar = tag("div", tag("span", "", style=f"width:{100 * (recall or 0.0):.1f}%"), class_="bar narrow")
        rows.append((name, count(images), percent(recall), bar, percent(precision)))
    return table(("class", "images", "recall", "", "precision"), rows, numeric=(1, 2, 4))


def prediction_sections(pictures: PredictionPictures) -> Markup:
    """The mistakes, the least certain correct predictions and the abstained images, each with its saliency map."""
    groups = (
        ("The most confident mistakes", "Check their labels, too.", pictures.confident_mistakes),
        ("The least certain correct predictions", "", pictures.uncertain_correct),
        ("Images that the model marks for a person", "The most confident of them first.", pictures.abstained),
    )
    parts: list[Content] = []
    for title, remark, chosen in groups:
        if chosen:
            explanation = f"Of {pictures.source}. {remark}"
            parts += [tag("h3", title), hint(explanation.strip()), predicted_pictures(chosen)]
    if parts:
        parts.insert(0, hint(_SALIENCY_HINT))
    return join(parts)


def predicted_pictures(pictures: Iterable[PredictedPicture]) -> Markup:
    """Images with what was predicted for them."""
    figures = []
    for entry in pictures:
        shown = image(entry.picture.jpeg, entry.picture.name)
        if entry.saliency is not None:
            shown = tag("div", shown, image(entry.saliency, f"saliency map of {entry.picture.name}"), class_="pair")
        is_right = entry.true_class == entry.predicted_class
        prediction = f"{entry.predicted_class} ({percent(entry.probability, 0)})"
        caption = f"{prediction}, correct" if is_right else f"{entry.true_class}, predicted {prediction}"
        figures.append(_figure(shown, caption, entry.picture.name))
    return tag("div", *figures, class_="pictures pairs")


def result_pictures_of(run: RunInfo) -> ResultPictures | None:
    """The pictures of the run's ensemble; None where there are none, or those of another one."""
    known, chosen = run.result_pictures, run.ensemble
    return known if known is not None and chosen is not None and known.ensemble == chosen.ensemble_id else None


def missing_pictures_hint(run: RunInfo) -> Markup | None:
    """How to have pictures drawn; None where they are there, or where there is no ensemble."""
    if run.ensemble is None or result_pictures_of(run) is not None:
        return None
    return hint(_NO_PICTURES)


def shift_heat_map(pictures: ResultPictures) -> Markup | None:
    """Accuracy by corruption family and severity, with an example image of each family; None without any."""
    if not pictures.shift:
        return None
    severities = sorted({level.severity for family in pictures.shift for level in family.levels})
    numbers = sorted(level.images for family in pictures.shift for level in family.levels)
    images = count(numbers[0]) if numbers[0] == numbers[-1] else f"{count(numbers[0])} to {count(numbers[-1])}"
    explanation = (
        f"Accuracy of the ensemble on corrupted validation images, on which it was selected; {images} images in each cell, so "
        f"that single cells are rough. Examples are shown at severity {severities[-1]}."
    )
    original = _figure(image(pictures.shift_original, "the original image", width_px=64), "the original", "")
    by_group = {
        group: [family for family in pictures.shift if family.group == group]
        for group in dict.fromkeys(family.group for family in pictures.shift)
    }
    grids = (_group_grid(group, families, severities) for group, families in by_group.items())
    return join([hint(explanation), tag("div", original, class_="pictures"), tag("div", *grids, class_="heat-groups")])


def _group_grid(group: str, families: Sequence[ShiftFamily], severities: Sequence[int]) -> Markup:
    levels = (tag("th", f"severity {level}" if level == severities[0] else str(level)) for level in severities)
    head = tag("tr", tag("th", spaced(group), colspan="2", class_="group"), *levels, tag("th", "all"))
    rows = (_family_row(family, severities) for family in families)
    return tag("div", tag("table", tag("thead", head), tag("tbody", *rows), class_="heat"), class_="heat-group")


def _family_row(family: ShiftFamily, severities: Sequence[int]) -> Markup:
    levels = {level.severity: (level.correct, level.images) for level in family.levels}
    total = (sum(correct for correct, _ in levels.values()), sum(images for _, images in levels.values()))
    cells = (_heat_cell(*levels.get(severity, (0, 0))) for severity in severities)
    example = image(family.example, f"example of {family.family}", width_px=64)
    return tag("tr", tag("td", example), tag("th", spaced(family.family), scope="row"), *cells, _heat_cell(*total))


def _heat_cell(correct: int, images: int) -> Markup:
    if not images:
        return tag("td")
    errors = 1 - correct / images
    return tag(
        "td",
        percent(correct / images, 0),
        style=f"background:rgb(163 18 58 / {100 * errors:.0f}%)",
        title=f"{correct} of {images} images",
        class_="strong" if errors > 0.5 else "weak",
    )


def augmented_images(pictures: ResultPictures) -> Markup:
    """Images as they are and as training saw them."""
    source = training_name(pictures.augmentation_source)
    text = f"The first column is as it is; the others are as its last stage saw them ({source})."
    shown = image(pictures.augmentation, "augmented versions of training images", width_px=0)
    return join([hint(text), tag("div", shown, class_="sheet")])
