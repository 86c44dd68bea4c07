"""What webhooks are to tell is written with the job's end, and each of it is sent by one process at a time."""

from __future__ import annotations

import base64
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import event, select
from sqlalchemy.orm import Session

from core.errors import Conflict, NotFound, WeightworksError
from core.jobs import asking, attempts, deliveries, publishing, store, sweeping, webhooks
from core.jobs.database import Database
from core.jobs.deliveries import FAILING_DAYS, PAUSES, Outcome, Try
from core.jobs.ending import has_deliveries
from core.jobs.models.projects import Project
from core.jobs.models.webhooks import WebhookDelivery, WebhookEndpoint
from core.jobs.status import DeliveryStatus, EndpointStatus, WebhookEvent
from core.spec import MethodSpec
from tests.core.jobs.test_races import race
from tests.core.jobs.test_retention import PROJECT, claim, submit, succeed

OF_ALL = [WebhookEvent.SUCCEEDED, WebhookEvent.FAILED, WebhookEvent.CANCELLED]
DELIVERED, ANSWERED_500 = Outcome(200, None), Outcome(500, "the answer was 500")


def add_endpoint(database: Database, *events: WebhookEvent, project_id: str = PROJECT) -> str:
    told = {"name": "ours", "url": "https://hooks.example/x", "event_types": events or OF_ALL}
    with database.write() as session:
        return webhooks.create_endpoint(session, project_id, **told).id


def told(database: Database, endpoint_id: str, project_id: str = PROJECT) -> list[tuple[str, str]]:
    """What the endpoint is told: event and job, oldest first."""
    with database.read() as session:
        found = deliveries.list_deliveries(session, project_id, endpoint_id, order="asc", limit=100)
    return [(one.event_type, one.body["data"]["id"]) for one in found]


def take(database: Database, **options: Any) -> list[Try]:
    wanted = {"seconds": 30.0, "limit": 32, "under_way": {}, "most_of_project": 32, **options}
    with database.write() as session:
        return deliveries.claim_due(session, **wanted)


def note(database: Database, one: Try, outcome: Outcome, **options: Any) -> None:
    with database.write() as session:
        deliveries.note_outcome(session, one, outcome, **options)


def row(database: Database, delivery_id: str) -> WebhookDelivery:
    with database.read() as session:
        return session.get_one(WebhookDelivery, delivery_id)


def delivery(database: Database) -> Try:
    """One that is to be sent, taken."""
    job_id = submit(database, "file-1")
    with database.write() as session:
        asking.cancel_job(session, PROJECT, job_id)
    (one,) = take(database)
    return one


def test_each_end_of_a_job_is_told_wherever_it_comes(database: Database) -> None:
    endpoint = add_endpoint(database)
    expected = []

    def ended(job_id: str, how: str) -> None:
        expected.append((f"job.{how}", job_id))

    succeeded = submit(database, "file-1")
    succeed(database, claim(database, succeeded))
    ended(succeeded, "succeeded")
    cancelled = submit(database, "file-1")
    held = claim(database, cancelled)
    with database.write() as session:
        asking.cancel_job(session, PROJECT, cancelled)
    assert len(told(database, endpoint)) == 1
    with database.write() as session:
        publishing.cancel_running_job(session, held, files=[], metrics={})
    ended(cancelled, "cancelled")
    failed = submit(database, "file-1")
    held = claim(database, failed)
    behind = submit(database, "file-1", needs={"teacher": failed})
    further = submit(database, "file-1", needs={"teacher": behind})
    with database.write() as session:
        attempts.fail_job(session, held, WeightworksError("no"), is_retryable=False)
        assert has_deliveries(session)
    for job_id in (failed, behind, further):
        ended(job_id, "failed")
    lost = submit(database, "file-1")
    for _ in range(3):
        claim(database, lost)
        with database.write() as session:
            sweeping.sweep_expired(session, sweeping.held_leases(session))
    ended(lost, "failed")
    assert told(database, endpoint) == expected


def test_a_retried_job_ends_again_and_a_paused_one_has_not_ended(database: Database) -> None:
    endpoint = add_endpoint(database)
    job_id = submit(database, "file-1")
    with database.write() as session:
        asking.pause_job(session, PROJECT, job_id)
        assert not has_deliveries(session)
        asking.cancel_job(session, PROJECT, job_id)
        asking.retry_job(session, PROJECT, job_id)
    held = claim(database, job_id)
    with database.write() as session:
        attempts.fail_job(session, held, WeightworksError("no"), is_retryable=True)  # tried again: no end
    succeed(database, claim(database, job_id))
    assert told(database, endpoint) == [("job.cancelled", job_id), ("job.succeeded", job_id)]


def test_an_endpoint_is_told_what_it_asked_for_of_its_own_project(database: Database) -> None:
    with database.write() as session:
        session.add(Project(id="proj-other", name="other", created_at=0))
    both = add_endpoint(database, WebhookEvent.FINE_TUNING_SUCCEEDED, WebhookEvent.SUCCEEDED)
    theirs = add_endpoint(database, WebhookEvent.FINE_TUNING_SUCCEEDED)
    others = add_endpoint(database, WebhookEvent.SUCCEEDED, project_id="proj-other")
    native = submit(database, "file-1")
    succeed(database, claim(database, native))
    with database.write() as session:
        tuned = store.create_job(
            session, project_id=PROJECT, spec=MethodSpec(method="fine_tuning", dataset="file-1"), max_attempts=1
        ).id
    succeed(database, claim(database, tuned))
    assert told(database, theirs) == [("fine_tuning.job.succeeded", tuned)]
    assert told(database, both) == [("job.succeeded", native), *told(database, theirs), ("job.succeeded", tuned)]
    assert told(database, others, "proj-other") == []
    with database.read() as session:
        sent = {one.endpoint_id: one for one in session.scalars(select(WebhookDelivery)) if one.body["id"]}
        job = store.get_job(session, PROJECT, tuned)
    assert len({one.id for one in sent.values()}) == 2
    assert sent[theirs].body == {
        "object": "event",
        "id": sent[theirs].body["id"],
        "type": "fine_tuning.job.succeeded",
        "created_at": job.finished_at,
        "data": {"id": tuned},
    }


def test_an_end_that_is_not_committed_tells_nothing(database: Database) -> None:
    endpoint = add_endpoint(database)
    held = claim(database, submit(database, "file-1"))
    with database.write() as session:
        publishing.succeed_job(session, held, files=[], metrics={}, lineage={})
        session.rollback()
    assert told(database, endpoint) == []


def test_an_end_costs_one_look_more_and_a_submission_none(database: Database) -> None:
    asked: list[str] = []

    def count(connection: Any, cursor: Any, statement: str, *others: Any) -> None:
        asked.append(statement)

    event.listen(database.engine, "before_cursor_execute", count)
    job_id = submit(database, "file-1")
    assert not [one for one in asked if "webhook" in one]
    with database.write() as session:
        asking.cancel_job(session, PROJECT, job_id)
    assert len([one for one in asked if "webhook" in one]) == 1


def test_pauses_grow_until_it_is_given_up(database: Database) -> None:
    add_endpoint(database)
    one = delivery(database)
    waited = []
    for tries in range(1, len(PAUSES)):
        before = time.time()
        note(database, one, ANSWERED_500)
        found = row(database, one.delivery_id)
        assert (found.status, found.tries, found.response_status) == (DeliveryStatus.PENDING, tries, 500)
        waited.append(round(found.next_at - before, 0))
        assert take(database) == []
        with database.write() as session:  # time passes
            session.get_one(WebhookDelivery, one.delivery_id).next_at = time.time() - 1
        (one,) = take(database)
    assert waited == list(PAUSES[1:])
    note(database, one, Outcome(None, "no answer within 10 seconds"))
    found = row(database, one.delivery_id)
    assert (found.status, found.tries, found.response_status) == (DeliveryStatus.FAILED, 8, None)
    assert found.error == "no answer within 10 seconds"
    assert take(database) == []


def give_up(database: Database, one: Try, *, failing_days: float) -> bool:
    """Fail at the last try of a delivery, if so long nothing was taken; whether the endpoint is switched off."""
    note(database, one, ANSWERED_500)
    with database.write() as session:
        found = session.get_one(WebhookDelivery, one.delivery_id)
        found.next_at, found.tries = time.time() - 1, len(PAUSES) - 1
        endpoint = session.get_one(WebhookEndpoint, one.endpoint_id)
        assert endpoint.failing_since == pytest.approx(time.time(), abs=60)
        endpoint.failing_since -= failing_days * 86400
    (last,) = [again for again in take(database) if again.delivery_id == one.delivery_id]
    with database.write() as session:
        is_switched_off = deliveries.note_outcome(session, last, ANSWERED_500)
        assert session.get_one(WebhookDelivery, one.delivery_id).error == ANSWERED_500.error
    return is_switched_off


def test_an_endpoint_that_takes_nothing_for_days_is_switched_off_until_it_is_switched_on(database: Database) -> None:
    endpoint = add_endpoint(database)
    assert not give_up(database, delivery(database), failing_days=FAILING_DAYS - 0.1)
    note(database, delivery(database), DELIVERED)
    failing, waiting = delivery(database), delivery(database)
    assert give_up(database, failing, failing_days=FAILING_DAYS)
    given_up = row(database, waiting.delivery_id)
    assert (given_up.status, given_up.error) == (DeliveryStatus.FAILED, "the endpoint was switched off")
    before = told(database, endpoint)
    job_id = submit(database, "file-1")
    with database.write() as session:
        asking.cancel_job(session, PROJECT, job_id)
        assert not has_deliveries(session)
    assert told(database, endpoint) == before
    with database.write() as session, pytest.raises(Conflict, match="switch it on"):
        deliveries.retry_delivery(session, PROJECT, endpoint, waiting.delivery_id)
    with database.write() as session:
        webhooks.change_endpoint(session, PROJECT, endpoint, status=EndpointStatus.ENABLED)
        deliveries.retry_delivery(session, PROJECT, endpoint, waiting.delivery_id)
    assert [one.delivery_id for one in take(database)] == [waiting.delivery_id]
    assert not give_up(database, delivery(database), failing_days=0)


def test_an_end_that_is_written_just_as_its_endpoint_is_switched_off_is_not_told(database: Database) -> None:
    endpoint = add_endpoint(database)
    job_id = submit(database, "file-1")
    race(
        database,
        lambda session: asking.cancel_job(session, PROJECT, job_id),
        lambda session: webhooks.change_endpoint(session, PROJECT, endpoint, status=EndpointStatus.DISABLED),
    )
    assert take(database) == []
    with database.read() as session:
        (written,) = deliveries.list_deliveries(session, PROJECT, endpoint)
        assert not deliveries.is_any_due(session)
    assert (written.status, written.error) == (DeliveryStatus.FAILED, webhooks.SWITCHED_OFF)


def test_what_was_delivered_is_sent_again_only_if_asked_for(database: Database) -> None:
    endpoint = add_endpoint(database)
    one = delivery(database)
    note(database, one, ANSWERED_500, pause_factor=0.0)
    (again,) = take(database)
    assert (again.delivery_id, again.body) == (one.delivery_id, one.body)
    note(database, again, DELIVERED)
    found = row(database, one.delivery_id)
    assert (found.status, found.tries, found.error) == (DeliveryStatus.DELIVERED, 2, None)
    assert found.delivered_at is not None
    assert take(database) == []
    with database.write() as session:
        deliveries.retry_delivery(session, PROJECT, endpoint, one.delivery_id)
    assert [one.delivery_id for one in take(database)] == [again.delivery_id]


def test_a_claim_that_ends_is_taken_by_another_and_the_first_is_not_believed(database: Database) -> None:
    add_endpoint(database)
    job_id = submit(database, "file-1")
    with database.write() as session:
        asking.cancel_job(session, PROJECT, job_id)
    (lost,) = take(database, seconds=-1.0)  # it has ended already
    (later,) = take(database)
    assert later.delivery_id == lost.delivery_id
    note(database, lost, DELIVERED)
    assert row(database, lost.delivery_id).status == DeliveryStatus.PENDING
    note(database, later, DELIVERED)
    assert row(database, lost.delivery_id).tries == 1


def test_no_two_processes_take_the_same(database: Database) -> None:
    add_endpoint(database)
    for _ in range(24):
        job_id = submit(database, "file-1")
        with database.write() as session:
            asking.cancel_job(session, PROJECT, job_id)
    with ThreadPoolExecutor(6) as threads:
        taken = [one.delivery_id for some in threads.map(lambda _: take(database, limit=4), range(12)) for one in some]
    taken += [one.delivery_id for one in take(database)]
    assert len(taken) == len(set(taken)) == 24


def test_one_project_has_only_so_many_under_way(database: Database) -> None:
    with database.write() as session:
        session.add(Project(id="proj-other", name="other", created_at=0))
    add_endpoint(database)
    add_endpoint(database, project_id="proj-other")
    for project_id in (PROJECT, PROJECT, PROJECT, "proj-other"):
        with database.write() as session:
            spec = MethodSpec(method="pca", dataset="file-1")
            job = store.create_job(session, project_id=project_id, spec=spec, max_attempts=1)
            asking.cancel_job(session, project_id, job.id)
    first = take(database, most_of_project=2, limit=3)
    assert [one.project_id for one in first] == [PROJECT, PROJECT]
    second = take(database, most_of_project=2, limit=3, under_way={PROJECT: 2})
    assert [one.project_id for one in second] == ["proj-other"]


def test_a_secret_is_shown_whole_to_nobody_who_prints_what_is_sent(database: Database) -> None:
    endpoint = add_endpoint(database)
    with database.read() as session:
        found = webhooks.get_endpoint(session, PROJECT, endpoint)
    kind, _, encoded = found.secret.partition("_")
    assert kind == "whsec"
    assert 24 <= len(base64.b64decode(encoded)) <= 32
    assert webhooks.hint_of(found) == f"whsec_...{found.secret[-4:]}"
    one = delivery(database)
    assert one.secrets == (found.secret,)
    assert found.secret not in repr(one)


def test_an_old_secret_signs_until_its_day_is_over(database: Database) -> None:
    endpoint = add_endpoint(database)

    def secrets(*, later: float = 0.0) -> list[str]:
        with database.read() as session:
            return webhooks.secrets_of(webhooks.get_endpoint(session, PROJECT, endpoint), now=time.time() + later)

    (first,) = secrets()
    with database.write() as session:
        second = webhooks.rotate_secret(session, PROJECT, endpoint, should_keep_old=True).secret
    assert secrets() == [second, first]
    assert secrets(later=86_390) == [second, first]
    assert secrets(later=86_410) == [second]
    with database.write() as session:
        third = webhooks.rotate_secret(session, PROJECT, endpoint, should_keep_old=False).secret
    assert secrets() == [third]


def test_only_a_change_is_a_change(database: Database) -> None:
    endpoint = add_endpoint(database)
    with database.write() as session:
        session.get_one(WebhookEndpoint, endpoint).updated_at = 1
    with database.write() as session:
        same = webhooks.change_endpoint(session, PROJECT, endpoint, name="ours", event_types=OF_ALL)
        assert same.updated_at == 1
    with database.write() as session:
        twice = [WebhookEvent.FAILED, WebhookEvent.FAILED]
        changed = webhooks.change_endpoint(session, PROJECT, endpoint, event_types=twice)
        assert (changed.event_types, changed.name) == (["job.failed"], "ours")
        assert changed.updated_at > 1


def test_an_endpoint_goes_with_its_deliveries_and_a_job_that_ends_meanwhile_ends(database: Database) -> None:
    def delete(session: Session) -> None:
        webhooks.delete_endpoint(session, PROJECT, endpoint)

    def end(session: Session) -> None:
        publishing.succeed_job(session, held, files=[], metrics={}, lineage={})

    for first, second in ((delete, end), (end, delete)):
        endpoint = add_endpoint(database)
        delivery(database)
        held = claim(database, submit(database, "file-1"))
        assert race(database, first, second) is None or second is end
        with database.read() as session:
            assert store.get_job(session, PROJECT, held.job_id).status == "succeeded"
            assert session.scalars(select(WebhookDelivery)).all() == []
            with pytest.raises(NotFound):
                webhooks.get_endpoint(session, PROJECT, endpoint)


def test_a_project_has_only_so_many_endpoints(database: Database) -> None:
    for _ in range(webhooks.MOST_ENDPOINTS):
        add_endpoint(database)
    with pytest.raises(Conflict, match="delete one first"):
        add_endpoint(database)


def test_old_deliveries_go_but_none_that_is_still_to_be_sent(database: Database) -> None:
    endpoint = add_endpoint(database)
    kept = []
    for number, status in enumerate([DeliveryStatus.PENDING, DeliveryStatus.DELIVERED, DeliveryStatus.FAILED] * 2):
        one = delivery(database)
        with database.write() as session:
            found = session.get_one(WebhookDelivery, one.delivery_id)
            found.status, found.next_at = status, time.time() - (6 if number < 3 else 4) * 86400
        if status is DeliveryStatus.PENDING:
            note(database, take(database)[0], ANSWERED_500)  # not due any more
        if number >= 3 or status is DeliveryStatus.PENDING:
            kept.append(one.delivery_id)
    with database.write() as session:
        assert [deliveries.drop_deliveries(session, days=5, at_once=1) for _ in range(3)] == [1, 1, 0]
    with database.read() as session:
        left = deliveries.list_deliveries(session, PROJECT, endpoint, order="asc")
    assert [one.id for one in left] == kept
