"""Another site's class names become the model's, and nobody's guess passes unseen."""

from __future__ import annotations

import pytest

from bloodauto.data.class_mapping import map_classes, parse_mapping, require_confirmed
from bloodauto.data.dataset import COMPETITION_CLASSES
from bloodauto.errors import DataError, UserError


@pytest.mark.parametrize("name", ["Neutrophil", "neutrophils", "NEUTROPHILS", "06_neutrophil", " neutro-phil "])
def test_a_name_that_differs_in_its_spelling_only_needs_no_confirmation(name):
    mapping = map_classes([name], COMPETITION_CLASSES)
    assert (mapping.target_of, mapping.unconfirmed) == ({name: "neutrophil"}, ())


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("PMN", "neutrophil"),
        ("Mo", "monocyte"),
        ("LYT", "lymphocyte"),
        ("Thrombocyte", "platelet"),
        ("normoblast", "erythroblast"),
        ("Immature granulocyte", "ig"),
        ("neutrophyl", "neutrophil"),
        ("smudge", None),
    ],
)
def test_other_names_are_proposals(name, target):
    mapping = map_classes(["basophil", name], COMPETITION_CLASSES)
    assert mapping.target_of == {"basophil": "basophil", name: target}
    assert mapping.unconfirmed == (name,)
    with pytest.raises(DataError, match=f"{name}={'-' if target is None else target}"):
        require_confirmed(mapping, "new_site")


def test_what_the_user_says_overrides_a_name():
    mapping = map_classes(["monocyte", "PMN"], COMPETITION_CLASSES, parse_mapping("PMN=neutrophil,monocyte=-"))
    assert mapping.target_of == {"monocyte": None, "PMN": "neutrophil"}
    require_confirmed(mapping, "new_site")
    assert parse_mapping(mapping.as_option()) == mapping.target_of


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("map.txt", "# ours = theirs\nPMN = neutrophil\n\nsmudge = -\n"),
        ("map.csv", "site_class,model_class\nPMN,neutrophil\nsmudge,\n"),
    ],
)
def test_a_file_holds_a_mapping(tmp_path, file, text):
    (tmp_path / file).write_text(text)
    assert parse_mapping(str(tmp_path / file)) == {"PMN": "neutrophil", "smudge": None}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("PMN", "expected pairs such as"),
        ("nowhere.csv", "expected pairs such as"),
        ("PMN=neutrophil,PMN=ig", "'PMN' twice"),
        ("=neutrophil", "expected a pair"),
        (",=", "expected a pair"),
        ("XYZ=neutrophil", "--map: expected classes of the images"),
        ("PMN=neutrophyl", "PMN: expected a class of the model"),
    ],
)
def test_a_mapping_that_cannot_be_used_is_an_error(text, message):
    with pytest.raises(UserError, match=message):
        map_classes(["PMN"], COMPETITION_CLASSES, parse_mapping(text))
