"""From names, sizes and overrides to checked experiments."""

from collections.abc import Iterable, Sequence

from moe import fields, registry
from moe.registry import Mistake


def parse_name(name: str) -> tuple[str, tuple[str, ...] | None]:
    """Splits STUDY or STUDY/ARM into (study, None) or (study, (arm,)); the study exists."""
    study, slash, arm = name.partition("/")
    registry.summary("study", study)
    return study, (arm,) if slash else None


def resolve(study_name: str, arms: Iterable[str] | None, size: str, overrides: Sequence[str]):
    """Arm -> validated Experiment, each override applied to every arm that has the field.

    No arms are those of the study but its controls; ("all",) is all of them.

    Raises Mistake for unknown names, an override that no arm has, and what validate() finds.
    """
    study = registry.lookup("study", study_name)
    known = dict(study.arms)
    arms = study.main_arms if arms is None else tuple(arms)
    arms = tuple(known) if arms == ("all",) else arms
    if not arms:
        raise Mistake(f"--arms=: must name some of {', '.join(known)}")
    for arm in arms:
        if arm not in known:
            raise Mistake(f"{study_name}/{arm}: {registry.no_such('arm', arm, known)}")
        if arms.count(arm) > 1:
            raise Mistake(f"--arms={','.join(arms)}: names {arm} twice")
    if size not in study.sizes:
        raise Mistake(f"--size={size}: {registry.no_such('size', size, study.sizes)}")
    experiments = {arm: study.build(arm, size) for arm in arms}
    for assignment in overrides:
        experiments = _overridden(experiments, assignment)
    for arm, experiment in experiments.items():
        try:
            experiment.validate()
        except Mistake as error:
            which = f" (arm {arm})" if len(arms) > 1 else ""
            raise Mistake(f"{error}{which}") from error
    return experiments


def _overridden(experiments: dict, assignment: str) -> dict:
    path, equals, text = assignment.partition("=")
    if not equals or not path:
        raise Mistake(f"--set {assignment}: must be PATH=VALUE, such as train.steps=200")
    changed, missing = {}, []
    for arm, experiment in experiments.items():
        try:
            changed[arm] = fields.override(experiment, path, text)
        except fields.MissingField as error:
            missing.append(error)
    if not changed:
        # An arm that has the parent knows the nearest name; one without it can only say so.
        raise max(missing, key=lambda error: "no such field" in str(error))
    return experiments | changed
