"""The user attributes of a study and its trials: the only module that knows their keys."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, ValidationError

from bloodauto.errors import RunError
from bloodauto.run.artifacts.base import Count, Record, Seconds, problems_text

if TYPE_CHECKING:
    import optuna

Outcome = Literal["complete", "pruned", "failed", "out_of_budget"]
_MAX_MESSAGE_CHARACTERS = 1000
_INITIAL_PREFIX = "initial: "
_PERTURBED_PREFIX = "perturbed from trial "
_PROMOTED_PREFIX = "promoted from trial "
#: The origin of a trial that the sampler suggested.
SAMPLED = "sampled"


def initial_origin(name: str) -> str:
    """The origin of a trial of an initial configuration."""
    return f"{_INITIAL_PREFIX}{name}"


def perturbed_origin(parent: int) -> str:
    """The origin of a trial that is a local perturbation of another."""
    return f"{_PERTURBED_PREFIX}{parent}"


def promoted_origin(number: int) -> str:
    """The origin of a trial that goes on with the weights of another."""
    return f"{_PROMOTED_PREFIX}{number}"


class Timing(Record):
    """What one training took, in wall seconds on its worker; kept in the study for a resumed search.

    Attributes:
        start_seconds: from its assignment to its first epoch.
        cold: on a worker that had to start up itself.
        full_epoch_seconds: training part of an epoch with everything unfrozen.
        evaluation_seconds: of an epoch.
        finish_seconds: from its last epoch to its end; None when it was stopped before.
    """

    start_seconds: Seconds
    cold: bool
    full_epoch_seconds: Seconds
    evaluation_seconds: Seconds
    finish_seconds: Seconds | None


class _Attributes(Record):
    """User attributes as fields. Only fields that were given are written."""

    def _without_none(self) -> dict[str, Any]:
        values = self.model_dump(mode="json")
        return {name: values[name] for name in self.model_fields_set}

    @classmethod
    def _parse(cls, attributes: Mapping[str, Any], where: str) -> Self:
        try:
            return cls.model_validate_json(json.dumps(dict(attributes)))
        except (ValidationError, TypeError, ValueError) as error:
            problem = problems_text(error) if isinstance(error, ValidationError) else f"{error}."
            raise RunError(
                f"{where}: user attributes: {problem} The study was written by another version of bloodauto or by "
                "another program. Start a new run."
            ) from error


class TrialAttributes(_Attributes):
    """What the project keeps with a trial.

    Attributes:
        origin: where its parameters come from: ``initial: <name>``, ``perturbed from trial <number>``, ``sampled``, or
            ``promoted from trial <number>`` for one that goes on with the weights of a shorter trial.
        recipe_id: hash of its recipe.
        backbone: label of its backbone.
        started: whether it was ever trained.
        given_seconds: wall seconds that it was given on its worker, start and final evaluation included; None while unknown.
        curve: with several objectives the primary one after each epoch, (epoch, value): Optuna keeps no intermediate values
            for such studies.
        timing: what it took; None while unknown.
        outcome: how it ended; None while it is open.
        reason: a short word for the outcome, for example ``nan`` or ``rung_2``; empty where there is none.
        device_seconds: devices reserved x seconds reserved; None while it is open.
        message: what a failed trial said, at most 1,000 characters.

    Example:
        >>> TrialAttributes(outcome="pruned", reason="rung_2").as_user_attrs()
        {'outcome': 'pruned', 'reason': 'rung_2'}
    """

    origin: str = ""
    recipe_id: str = ""
    backbone: str = ""
    started: bool = False
    given_seconds: Seconds | None = None
    curve: tuple[tuple[Annotated[int, Field(ge=1)], float], ...] = ()
    timing: Timing | None = None
    outcome: Outcome | None = None
    reason: str = ""
    device_seconds: Seconds | None = None
    message: str = ""

    @classmethod
    def read(cls, trial: optuna.trial.FrozenTrial | optuna.Trial) -> Self:
        """The attributes of a trial.

        Raises:
            RunError: an attribute is unknown or has a wrong value.
        """
        return cls._parse(trial.user_attrs, f"trial {trial.number}")

    def write(self, trial: optuna.Trial) -> None:
        """Sets the attributes that were given to this object; others of the trial stay as they are."""
        for name, value in self.as_user_attrs().items():
            trial.set_user_attr(name, value)

    def as_user_attrs(self) -> dict[str, Any]:
        """The given attributes as ``optuna.Study.enqueue_trial`` takes them."""
        fields = self._without_none()
        if "message" in fields:
            fields["message"] = fields["message"][:_MAX_MESSAGE_CHARACTERS]
        return {name: fields[name] for name in type(self).model_fields if name in fields}

    @property
    def is_initial(self) -> bool:
        """Whether the trial is an initial configuration."""
        return self.origin.startswith(_INITIAL_PREFIX)

    @property
    def initial_name(self) -> str | None:
        """Name of the initial configuration; None for any other origin."""
        return self.origin.removeprefix(_INITIAL_PREFIX) if self.is_initial else None

    @property
    def promoted_from(self) -> int | None:
        """The trial whose weights this one goes on with; None for any other origin."""
        number = self.origin.removeprefix(_PROMOTED_PREFIX)
        return int(number) if number != self.origin else None

    @property
    def parent(self) -> int | None:
        """The trial that this one is a local perturbation of; None for any other origin."""
        number = self.origin.removeprefix(_PERTURBED_PREFIX)
        return int(number) if number != self.origin else None


class RefitPlanEntry(Record):
    """A refit that is planned.

    Attributes:
        name: unique in the run.
        trial: whose recipe is trained again.
        fold: that is left out of its training.
        seed: of the training.
    """

    name: str
    trial: Count
    fold: Count
    seed: Count


class StudyAttributes(_Attributes):
    """What the project keeps with a study.

    Attributes:
        trainings_done: nothing more is to be trained, so that an ensemble may be selected.
        refit_plan: the refits there will be; None before they are planned.
        ended_refits: how each refit ended, by name.
    """

    trainings_done: bool = False
    refit_plan: tuple[RefitPlanEntry, ...] | None = None
    ended_refits: dict[str, str] = Field(default_factory=dict)

    @classmethod
    def read(cls, study: optuna.Study) -> Self:
        """The attributes of a study.

        Raises:
            RunError: an attribute is unknown or has a wrong value.
        """
        return cls._parse(study.user_attrs, f"study {study.study_name!r}")

    def write(self, study: optuna.Study) -> None:
        """Sets the attributes that were given to this object; others of the study stay as they are."""
        for name, value in self._without_none().items():
            study.set_user_attr(name, value)
