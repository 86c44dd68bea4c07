"""From a request's body to a queued job: everything that can be refused is refused here, before anything is stored."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from core.catalog import method_named
from core.data.profile import Profile
from core.errors import InvalidData, InvalidSpec
from core.jobs.checkpoints import lock_checkpoint
from core.jobs.files import BASE_MODEL, lock_file
from core.jobs.inputs import Input, lock_model, model_of_job, resolve_references
from core.jobs.models.jobs import Job
from core.jobs.names import find_named
from core.jobs.status import Status
from core.jobs.store import create_job, get_job, lock_job
from core.registry import Method
from core.spec import FINE_TUNED, JobReference, MethodSpec, TrainingSpec, files_of, models_of


@dataclass(frozen=True)
class Checked:
    """A spec whose files and models exist and fit."""

    spec: MethodSpec
    profile: Profile
    needs: Mapping[str, str]


def has_names(spec: MethodSpec) -> bool:
    """Whether it calls models by their names, `ft:...`, that must be ids before it is checked."""
    return any(map(_is_name, models_of(spec).values()))


def with_ids(session: Session, project_id: str, spec: MethodSpec) -> MethodSpec:
    """The spec with the id of each model or checkpoint in place of its name; raises NotFound, naming the field."""
    named = {field: str(name) for field, name in models_of(spec).items() if _is_name(name)}
    ids = {field: find_named(session, project_id, name, param=field).id for field, name in named.items()}
    return spec.model_copy(update=ids)


def _is_name(reference: str | JobReference) -> bool:
    return isinstance(reference, str) and reference.startswith(FINE_TUNED)


def check_submission(session: Session, project_id: str, spec: MethodSpec) -> Checked:
    """Check all that a spec names; raises InvalidSpec, InvalidData or NotFound, naming the field."""
    profile = _check_data(session, project_id, spec)
    return Checked(spec, profile, _models(session, project_id, spec))


def _check_data(session: Session, project_id: str, spec: MethodSpec) -> Profile:
    """Check the data sets of a spec, and itself against them; answers the profile of what it learns from."""
    _refuse_nul(spec.model_dump(mode="json"), ())
    method = method_named(spec.method)
    profile = None
    for field, file_id in files_of(spec).items():
        found = _data_set(session, project_id, file_id, field, method)
        profile = found if field == "dataset" else profile
        if field != "dataset" and profile is not None and found.kind is not profile.kind:
            raise InvalidSpec(f"{field} is {found.kind} and the data set is {profile.kind}: give the same", param=field)
    assert profile is not None  # noqa: S101 - every spec has a data set
    if method.check is not None:
        method.check(spec, profile)
    return profile


def _refuse_nul(value: Any, place: tuple[str, ...]) -> None:
    """NUL is the one character that PostgreSQL keeps nowhere."""
    if isinstance(value, Mapping):
        if any("\0" in name for name in value):
            raise InvalidSpec("a NUL character cannot be stored", param=".".join(place))
        for name, inner in value.items():
            _refuse_nul(inner, (*place, name))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            _refuse_nul(inner, (*place, str(index)))
    elif isinstance(value, str) and "\0" in value:
        raise InvalidSpec("a NUL character cannot be stored", param=".".join(place))


def _data_set(session: Session, project_id: str, file_id: str, field: str, method: Method) -> Profile:
    file = lock_file(session, project_id, file_id, param=field)
    if file.profile is None:
        what = "an uploaded model" if file.purpose == BASE_MODEL else f"of purpose '{file.purpose}'"
        raise InvalidSpec(f"{file_id} is {what}, not a data set", param=field)
    profile = Profile.from_dict(file.profile)
    if profile.kind not in method.reads:
        kinds = ", ".join(method.reads)
        raise InvalidSpec(f"{file_id} holds {profile.kind}, and {method.name} takes {kinds}", param=field)
    if profile.examples == 0:
        raise InvalidData("the data set is empty", param=field)
    return profile


def _models(session: Session, project_id: str, spec: MethodSpec) -> dict[str, str]:
    """Check the models that a spec starts from; answers the jobs that will make some of them, by field."""
    needs = {}
    for field, reference in models_of(spec).items():
        if isinstance(reference, JobReference):
            needs[field] = reference.job
            job = lock_job(session, project_id, reference.job, param=field)
            if job.status in (Status.FAILED, Status.CANCELLED):
                raise InvalidSpec(f"{job.id} is {job.status} and has no weights to give: retry it first", param=field)
            if job.status is Status.SUCCEEDED and model_of_job(session, job.id) is None:
                raise InvalidSpec(f"the model that {job.id} made was deleted", param=field)
        elif reference.startswith("file-"):
            file = lock_file(session, project_id, reference, param=field)
            if file.purpose != BASE_MODEL:
                raise InvalidSpec(f"{reference} is a data set; upload a model with purpose '{BASE_MODEL}'", param=field)
        elif reference.startswith("ckpt-"):
            lock_checkpoint(session, project_id, reference, param=field)
        else:
            lock_model(session, project_id, reference, param=field)
    return needs


def inputs_to_measure(session: Session, project_id: str, spec: MethodSpec) -> dict[str, Input] | str:
    """The files and models of a spec by field; or why a job's first steps cannot be made now."""
    models, missing = _models_there(session, models_of(spec))
    for field, needed in missing.items():
        return f"{field} takes the weights of {needed}, which are not there yet"
    return resolve_references(session, project_id=project_id, job_id="", files=files_of(spec), models=models)


def data_to_check(
    session: Session, project_id: str, spec: MethodSpec, *, local: Collection[str]
) -> tuple[Profile, dict[str, Input]]:
    """The profile of a spec's data set, its files, and those of its models that are there; raises as a submission does.

    `local`: the names of the jobs that a pipeline is yet to make.
    """
    profile = _check_data(session, project_id, spec)
    references = {}
    for field, reference in models_of(spec).items():
        if isinstance(reference, JobReference):
            if reference.job in local:
                continue
            get_job(session, project_id, reference.job, param=field)
        references[field] = reference
    models, _ = _models_there(session, references)
    files = files_of(spec)
    return profile, resolve_references(session, project_id=project_id, job_id="", files=files, models=models)


def _models_there(session: Session, references: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, str]]:
    """The models by field that are there, and the jobs that are yet to make the others."""
    there, missing = {}, {}
    for field, reference in references.items():
        if not isinstance(reference, JobReference):
            there[field] = reference
        elif (model := model_of_job(session, reference.job)) is not None:
            there[field] = model.id
        else:
            missing[field] = reference.job
    return there, missing


def submit(session: Session, project_id: str, checked: Checked, *, max_attempts: int, **pipeline: Any) -> Job:
    """Write the job of a checked spec, which the project's quotas allow."""
    return create_job(
        session, project_id=project_id, spec=checked.spec, max_attempts=max_attempts, needs=checked.needs, **pipeline
    )


def in_order_of_need(specs: Mapping[str, MethodSpec]) -> list[str]:
    """The local names of a pipeline so that each comes behind those that it needs; raises InvalidSpec for a circle."""
    order: list[str] = []
    waiting = dict.fromkeys(specs)
    while waiting:
        ready = [name for name in waiting if not (local_needs(specs[name], specs) - set(order))]
        if not ready:
            raise InvalidSpec(f"these jobs need each other in a circle: {', '.join(waiting)}", param="jobs")
        for name in ready:
            del waiting[name]
        order += ready
    return order


def local_needs(spec: MethodSpec, names: Mapping[str, Any]) -> set[str]:
    """The local names that a pipeline's spec refers to."""
    return {
        reference.job
        for reference in models_of(spec).values()
        if isinstance(reference, JobReference) and reference.job in names
    }


def estimate_steps(spec: MethodSpec, profile: Profile) -> int | None:
    """The steps a job will make, where its spec and the number of examples tell."""
    if not isinstance(spec, TrainingSpec):
        return None
    if spec.steps is not None:
        return spec.steps
    examples = profile.examples
    if spec.validation_fraction is not None:
        examples -= min(max(1, round(examples * spec.validation_fraction)), examples - 1)
    return -(-examples // min(spec.batch_size, examples)) * (spec.epochs or 1)
