from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bloodauto.config.recipe import EarlyStopping, Optimizer, Schedule, Stage
from bloodauto.run.artifacts import EpochReport
from bloodauto.training.epoch_history import is_best, keeps_last, patience_exhausted, plateau_factor, score_of

BLANK = EpochReport(
    epoch=1,
    stage=0,
    seconds=1.0,
    evaluation_seconds=0.1,
    train_loss=0.5,
    train_accuracy=0.5,
    learning_rate=1e-3,
    loss=0.5,
    accuracy=0.5,
    balanced_accuracy=0.5,
    macro_f1=0.5,
    shift=0.5,
    objective=0.5,
    data_wait_fraction=0.0,
    stage_progress=0.0,
)


def epochs_of(
    objectives: list[float], *, planned: int = 10, stage: int = 0, **fields: list[float]
) -> list[EpochReport]:
    """Reports of a stage of ``planned`` epochs."""
    return [
        BLANK.replace(
            epoch=index + 1,
            stage=stage,
            objective=objective,
            stage_progress=(index + 1) / planned,
            **{name: values[index] for name, values in fields.items()},
        )
        for index, objective in enumerate(objectives)
    ]


def stage(**fields: Any) -> Stage:
    return Stage(epochs=10, optimizer=Optimizer(learning_rate=1e-3), **fields)


def plateau(**fields: Any) -> Schedule:
    return Schedule(**{"name": "plateau", "metric": "objective", "factor": 0.5, "patience_epochs": 2, **fields})


def test_less_loss_is_better_and_more_of_anything_else():
    assert score_of(BLANK.replace(loss=0.2), "loss") > score_of(BLANK.replace(loss=0.3), "loss")
    for metric in ("objective", "accuracy", "balanced_accuracy", "macro_f1"):
        better, worse = (BLANK.replace(**{metric: value}) for value in (0.9, 0.1))
        assert score_of(better, metric) > score_of(worse, metric)


def test_the_last_of_equally_good_epochs_is_the_best():
    assert is_best(epochs_of([0.5, 0.7, 0.7]), "objective")
    assert not is_best(epochs_of([0.5, 0.7, 0.6]), "objective")
    assert is_best(epochs_of([0.9, 0.1], loss=[0.5, 0.4]), "loss")


@pytest.mark.parametrize(
    ("objectives", "over"),
    [([0.5], False), ([0.5, 0.4], False), ([0.5, 0.4, 0.5], True), ([0.5, 0.4, 0.6], False), ([0.5, 0.4, 0.4], True)],
)
def test_patience_counts_epochs_since_the_first_best(objectives, over):
    stopping = stage(early_stopping=EarlyStopping(patience_epochs=2))
    assert patience_exhausted(epochs_of(objectives), stopping) is over
    assert not patience_exhausted(epochs_of(objectives), stage())


def test_patience_watches_the_named_metric():
    epochs = epochs_of([0.1, 0.2, 0.3], accuracy=[0.9, 0.8, 0.8])
    assert patience_exhausted(epochs, stage(early_stopping=EarlyStopping(metric="accuracy", patience_epochs=2)))
    assert not patience_exhausted(epochs, stage(early_stopping=EarlyStopping(patience_epochs=2)))


def test_a_trial_keeps_its_best_epoch_unless_a_stage_says_its_last():
    best, last = stage(), stage(restore_best=False)
    assert not keeps_last(epochs_of([0.5, 0.9, 0.7]), [best])
    assert keeps_last(epochs_of([0.5, 0.9, 0.9]), [best])
    assert keeps_last(epochs_of([0.5, 0.9, 0.7]), [last])
    second = epochs_of([0.8], stage=1)
    assert not keeps_last([*epochs_of([0.9, 0.7]), *second], [best, best])
    assert keeps_last([*epochs_of([0.9, 0.7]), *second], [last, best]), "0.7 was kept, and 0.8 is better"
    assert keeps_last([*epochs_of([0.9, 0.7]), *second], [best, last])


def keras_factor(scores: list[float], schedule: Schedule) -> float:
    """What Keras' own callback makes of the same scores."""
    import keras

    class Model:
        def __init__(self) -> None:
            self.optimizer = keras.optimizers.SGD(1.0)

    callback = keras.callbacks.ReduceLROnPlateau(
        monitor="score",
        mode="max",
        factor=schedule.factor,
        patience=schedule.patience_epochs,
        min_delta=0.0,
        min_lr=schedule.final_factor,
    )
    model = Model()
    callback._model = model
    callback.on_train_begin()
    for epoch, score in enumerate(scores):
        callback.on_epoch_end(epoch, {"score": score})
    return float(model.optimizer.learning_rate.numpy())


@given(
    scores=st.lists(st.sampled_from([0.1, 0.2, 0.3, 0.4]), max_size=12),
    patience=st.integers(1, 4),
    factor=st.sampled_from([0.1, 0.5]),
)
def test_a_plateau_is_that_of_keras(scores, patience, factor):
    schedule = plateau(patience_epochs=patience, factor=factor, final_factor=0.02)
    mine = plateau_factor(schedule, 12, epochs_of(scores, planned=12))
    assert mine == pytest.approx(keras_factor(scores, schedule), rel=1e-5)


def test_under_a_time_limit_patience_is_the_same_fraction_of_the_stage():
    """Ten epochs are planned; within the time limit there are twenty shorter ones, so a patience of 2 becomes 4 of them."""
    twice_as_many = epochs_of([0.5] * 20, planned=20)
    at = [plateau_factor(plateau(), 10, twice_as_many[:count]) for count in (4, 5, 8, 9)]
    assert at == [1.0, 0.5, 0.5, 0.25]


def test_a_plateau_ends_at_the_final_factor():
    assert plateau_factor(plateau(patience_epochs=1, final_factor=0.2), 10, epochs_of([0.5] * 10)) == 0.2
