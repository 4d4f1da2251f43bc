"""The chosen adaptation helps a site that differs, and leaves alone what it cannot better."""

from __future__ import annotations

import numpy as np
import pytest

from bloodauto.adaptation.colour_transfer import colour_transfer
from bloodauto.adaptation.frozen_ensemble import EnsembleOutputs, FrozenEnsemble
from bloodauto.adaptation.head import HeadSettings, LabelledOutputs, fit_site_head
from bloodauto.adaptation.selection import SiteCells, brier_scores, fit_temperature, folds_of, select_adaptation


@pytest.fixture(scope="module")
def ensemble(ensemble_model):
    return FrozenEnsemble(ensemble_model)


def accuracy(ensemble, selection, cells):
    """Of the chosen candidate and of the unchanged ensemble on other cells of the site."""
    results = []
    for candidate in (selection.chosen, selection.unchanged):
        outputs = ensemble.outputs(cells.images, candidate.transform)
        log_odds = outputs.probabilities if candidate.head is None else candidate.head.log_odds(outputs)
        results.append((log_odds.argmax(axis=1) == cells.labels).mean())
    return results


def test_a_site_of_smaller_cells_gains(ensemble, source, site_cells):
    selection = select_adaptation(ensemble, site_cells(30, radius=3.8), source)
    adapted, unchanged = accuracy(ensemble, selection, site_cells(150, radius=3.8, seed=30))
    assert unchanged < 0.8
    assert adapted > unchanged + 0.1
    assert selection.candidates > 4


def test_the_source_site_itself_is_left_nearly_alone(ensemble, source, site_cells):
    losses = []
    for seed in range(2):
        selection = select_adaptation(ensemble, site_cells(12, seed=40 + seed), source, seed=seed)
        adapted, unchanged = accuracy(ensemble, selection, site_cells(150, seed=30))
        losses.append(unchanged - adapted)
        assert selection.chosen.source_accuracy >= selection.unchanged.source_accuracy - 0.03
    assert np.mean(losses) <= 0.02


def test_without_time_left_the_ensemble_is_still_compared_with_magnifications(ensemble, source, site_cells):
    selection = select_adaptation(ensemble, site_cells(9), source, seconds_left=lambda: 0.0)
    assert selection.chosen.head is None
    assert selection.candidates == 4


def test_two_runs_choose_the_same(ensemble, source, site_cells):
    first, second = (select_adaptation(ensemble, site_cells(12, radius=3.8), source, seed=3) for _ in range(2))
    assert first.chosen.describe() == second.chosen.describe()
    np.testing.assert_array_equal(first.chosen.probabilities, second.chosen.probabilities)


def test_the_expected_accuracy_is_not_that_of_the_luckiest_candidate(ensemble, source, site_cells):
    """Labels that say nothing: whatever is chosen is right by chance."""
    stated = []
    for seed in range(3):
        cells = site_cells(24, seed=60 + seed)
        shuffled = SiteCells(cells.images, np.random.default_rng(seed).permutation(cells.labels), cells.groups)
        selection = select_adaptation(ensemble, shuffled, source, seed=seed)
        assert selection.probabilities.shape == (24, 3)
        stated.append((selection.probabilities.argmax(axis=1) == shuffled.labels).mean())
    assert np.mean(stated) < 0.5


def test_a_group_lies_in_one_fold_and_a_class_in_many():
    labels = np.repeat([0, 1], 20)
    alone = folds_of(SiteCells(np.zeros((40, 1, 1, 3), np.uint8), labels, np.full(40, "")), seed=0)
    assert np.bincount(alone).tolist() == [4] * 10
    assert all(set(alone[labels == label]) == set(range(10)) for label in (0, 1))
    groups = np.array([f"p{number}" for number in np.arange(40) // 5])
    grouped = folds_of(SiteCells(np.zeros((40, 1, 1, 3), np.uint8), labels, groups), seed=0)
    assert all(len(set(grouped[groups == group])) == 1 for group in set(groups))
    assert len(set(grouped)) == 8


def test_the_heads_gradient_leads_to_separated_classes():
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    features = np.eye(3)[labels] * 3 + rng.normal(size=(60, 3))
    flat = EnsembleOutputs(np.full((60, 3), 1 / 3, np.float32), features.astype(np.float32))
    weak, strong = (
        fit_site_head(LabelledOutputs(flat, labels, np.ones(60)), HeadSettings(penalty=penalty))
        for penalty in (1e-3, 1e6)
    )
    assert (weak.log_odds(flat).argmax(axis=1) == labels).mean() > 0.9
    np.testing.assert_allclose(strong.weights, 0, atol=1e-4)


def test_a_temperature_cools_what_is_too_confident_and_is_near_1_without_evidence():
    labels = np.arange(200) % 2
    wrong = np.arange(200) % 5 == 0
    confident = np.where((labels == 1) ^ wrong, 6.0, -6.0)
    log_odds = np.stack([np.zeros(200), confident], axis=1)
    assert fit_temperature(log_odds, labels) > 2.5
    assert 0.8 < fit_temperature(log_odds[:0], labels[:0]) < 1.25


def test_briers_score_is_0_for_certainty_and_2_for_a_confident_mistake():
    assert brier_scores(np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([0, 1])).tolist() == [0.0, 2.0]


def test_colour_transfer_gives_the_sites_images_the_sources_colours(site_cells):
    tinted, plain = site_cells(30, tint=70).images, site_cells(30, seed=50).images
    moved = colour_transfer(tinted, plain).apply_to_array(tinted)
    np.testing.assert_allclose(moved.mean(axis=(0, 1, 2)), plain.mean(axis=(0, 1, 2)), atol=1.5)
