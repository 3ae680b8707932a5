"""`qcli dlq`: list, show, replay and purge dead letters."""

import json

import pytest

SENT = """
import sys
from proj import app

ids = [app.send_task("proj.nosuch", (n,), {"why": "test"}).id for n in range(int(sys.argv[1]))]
for id in ids:
    app.AsyncResult(id).get(timeout=20, propagate=False)
print(" ".join(ids))
"""

NEWCOMER = """

@app.task
def nosuch(n, why):
    return n + 1
"""


def parked(project, count):
    """Ids of tasks that a worker did not know, as they lie in the queue; the worker has stopped when this returns."""
    (project.directory / "send.py").write_text(SENT)
    worker = project.start("-A", "proj", "worker", "-c", "1", "-l", "INFO")
    worker.wait_for(r"ready\.")
    command = project.command
    project.command = lambda *words: [command()[0], *words]
    try:
        run = project.run("send.py", str(count))
    finally:
        project.command = command
    assert run.returncode == 0, run.stderr
    assert worker.stop() == 0
    ids = [entry["id"] for entry in listed(project)]
    assert sorted(ids) == sorted(run.stdout.split())
    return ids


def listed(project, *words):
    run = project.run("-A", "proj", "dlq", "list", "--json", *words)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def test_nothing_is_there_at_first(project):
    assert listed(project) == []
    assert project.run("-A", "proj", "dlq", "list").stdout == "There are no dead letters.\n"
    assert project.run("-A", "proj", "dlq", "purge").stdout == "There are no dead letters.\n"
    assert project.run("-A", "proj", "dlq", "replay", "--all").stdout == "There are no such dead letters.\n"


def test_a_parked_task_is_listed_shown_and_kept(project):
    first, second = parked(project, 2)

    entries = listed(project)
    assert [entry["id"] for entry in entries] == [first, second]
    assert entries[0]["queue"] == "celery.dead"
    assert entries[0]["origin"] == "celery"
    assert entries[0]["task"] == "proj.nosuch"
    assert "not registered" in entries[0]["reason"]
    text = project.run("-A", "proj", "dlq", "list").stdout
    assert "celery.dead: 2 messages" in text
    assert first in text
    assert [entry["id"] for entry in listed(project)] == [first, second]

    shown = project.run("-A", "proj", "dlq", "show", second).stdout
    assert second in shown
    assert "'why': 'test'" in shown
    assert "not registered" in shown
    details = json.loads(project.run("-A", "proj", "dlq", "show", second, "--json").stdout)
    assert details["headers"]["task"] == "proj.nosuch"
    assert '"why": "test"' in details["body"].replace('":"', '": "')


def test_a_replayed_task_runs_with_its_past_forgotten(project):
    first, second = parked(project, 2)
    proj = project.directory / "proj.py"
    proj.write_text(proj.read_text() + NEWCOMER)

    dry = project.run("-A", "proj", "dlq", "replay", first, "--dry-run")
    assert "Would send" in dry.stdout
    assert len(listed(project)) == 2
    run = project.run("-A", "proj", "dlq", "replay", second)

    assert run.returncode == 0, run.stderr
    assert f"Sent {second} (proj.nosuch) to celery" in run.stdout
    assert [entry["id"] for entry in listed(project)] == [first]
    worker = project.start("-A", "proj", "worker", "-c", "1", "-l", "INFO")
    worker.wait_for(rf"{second}\] succeeded")
    assert worker.stop() == 0


def test_a_task_name_chooses(project):
    parked(project, 2)

    assert project.run("-A", "proj", "dlq", "replay", "--task", "other").stdout.startswith(
        "There are no such"
    )
    sent = json.loads(project.run("-A", "proj", "dlq", "replay", "--task", "proj.nosuch", "--json").stdout)

    assert len(sent) == 2
    assert listed(project) == []


def test_purge_asks_and_then_deletes(project):
    parked(project, 2)

    refused = project.run("-A", "proj", "dlq", "purge", stdin="n\n")
    assert refused.returncode != 0
    assert "2 in celery.dead" in refused.stderr
    assert len(listed(project)) == 2

    done = project.run("-A", "proj", "dlq", "purge", "--force")
    assert done.stdout == "Deleted 2 messages from celery.dead.\n"
    assert listed(project) == []


@pytest.mark.parametrize(
    ("words", "code", "hint"),
    [
        (("replay",), 64, "--all"),
        (("show", "no-such-id"), 1, "no dead letter of no-such-id in celery.dead"),
        (("replay", "no-such-id"), 1, "qcli dlq list"),
    ],
)
def test_errors_say_what_to_do(project, words, code, hint):
    run = project.run("-A", "proj", "dlq", *words)

    assert run.returncode == code
    assert hint in run.stderr
    assert "Traceback" not in run.stderr
