"""Commands that need no worker: help, errors, purge, report (CLI, FND, 4CLI)."""

import json

import pytest


def test_the_version(project):
    assert project.run("--version").stdout.startswith("qcli 26.")


def test_help_lists_every_command(project):
    text = project.run("help").stdout

    for command in (
        "worker",
        "beat",
        "call",
        "result",
        "status",
        "inspect",
        "control",
        "purge",
        "events",
        "report",
    ):
        assert f"  {command} " in text


def test_help_on_a_command(project):
    assert "--concurrency" in project.run("help", "worker").stdout


def test_a_misspelt_command_gets_a_suggestion(project):
    run = project.run("wroker")

    assert run.returncode != 0
    assert "'worker'" in run.stderr


def test_a_worker_without_app_says_what_to_give(project):
    run = project.run("worker")

    assert run.returncode == 64
    assert "-A" in run.stderr


def test_a_module_that_is_not_there_is_named(project):
    run = project.run("-A", "nosuch", "report")

    assert run.returncode != 0
    assert "nosuch" in run.stderr
    assert "Traceback" not in run.stderr


def test_a_module_without_an_app_says_so(project):
    (project.directory / "empty.py").write_text("x = 1\n")
    run = project.run("-A", "empty", "report")

    assert run.returncode != 0
    assert "empty" in run.stderr
    assert "Traceback" not in run.stderr


def test_an_error_inside_the_users_module_is_shown_with_its_place(project):
    (project.directory / "broken.py").write_text("import nothing_of_that_name\n")
    run = project.run("-A", "broken", "report")

    assert run.returncode != 0
    assert "nothing_of_that_name" in run.stderr
    assert "broken.py" in run.stderr


def test_a_misspelt_setting_gets_a_suggestion(project):
    (project.directory / "wrong.py").write_text("from qcore import App\napp = App('x', task_ack_late=True)\n")
    run = project.run("-A", "wrong", "report")

    assert run.returncode == 78
    assert "task_acks_late" in run.stderr


def test_an_unreadable_configuration_module_names_file_and_line(project):
    (project.directory / "qconfig.py").write_text("task_acks_late = True\nthis is not python\n")
    run = project.run("-A", "proj", "report")

    assert run.returncode != 0
    assert "qconfig" in run.stderr
    assert "line 2" in run.stderr


def test_a_broker_that_is_away_is_named_without_its_password(project):
    run = project.run("-A", "proj", "-b", "amqp://guest:secret@127.0.0.1:1//", "status")

    assert run.returncode == 69
    assert "127.0.0.1:1" in run.stderr
    assert "secret" not in run.stderr


def test_a_broken_broker_ends_every_command_with_one_line(project):
    broken = project.directory / "broken.db"
    broken.write_bytes(b"no database at all, but long enough to have a header" * 100)
    for words in (["status"], ["inspect", "ping"], ["purge", "-f"], ["dlq", "list"], ["call", "proj.add"]):
        run = project.run("-A", "proj", "-b", f"sqlite:///{broken}", *words)

        assert run.returncode == 69, words
        assert "move the file" in run.stderr
        assert len(run.stderr.splitlines()) == 1, words


def test_errors_are_json_where_answers_are(project):
    run = project.run("-A", "proj", "-b", "amqp://guest:secret@127.0.0.1:1//", "status", "--json")

    assert run.returncode == 69
    assert "127.0.0.1:1" in json.loads(run.stdout)["error"]
    assert "secret" not in run.stdout


def test_a_url_that_makes_no_sense_is_a_matter_of_configuration(project):
    run = project.run("-A", "proj", "-b", "sqlite:///:memory:", "status")

    assert run.returncode == 78
    assert "memory://" in run.stderr
    assert len(run.stderr.splitlines()) == 1


def test_an_unknown_broker_scheme_is_refused(project):
    run = project.run("-A", "proj", "-b", "rediss3://x", "status")

    assert run.returncode != 0
    assert "rediss3" in run.stderr
    assert "Traceback" not in run.stderr


def test_nobody_answers_is_exit_code_69(project):
    run = project.run("-A", "proj", "status", "--timeout", "0.2")

    assert run.returncode == 69
    assert "No nodes replied within time constraint" in run.stderr


def test_remote_control_that_the_broker_lacks_ends_at_once_and_says_why(project):
    run = project.run("-A", "proj", "-b", "sqla+sqlite:///broker.db", "status")

    assert run.returncode == 69
    assert (
        "the broker sqla+sqlite:///broker.db cannot broadcast, which remote control needs: use Redis"
        in run.stderr
    )


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("inspect", "actve"), "active"),
        (("inspect", "shutdown"), "qcli control"),
        (("control", "rate_limit", "add"), "rate_limit TASK RATE"),
        (("control", "pool_grow", "many"), "pool_grow"),
    ],
)
def test_a_wrong_remote_command_says_what_is_right(project, words, hint):
    run = project.run("-A", "proj", *words)

    assert run.returncode == 64
    assert hint in run.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("call", "proj.add", "-a", "[1,"),
        ("call", "proj.add", "-a", "{}"),
        ("call", "proj.add", "-k", "[]"),
        ("call", "proj.add", "--eta", "tomorrow"),
        ("worker", "-c", "none"),
        ("worker", "--autoscale", "a,b"),
        ("worker", "-l", "loud"),
        ("worker", "--nosuch"),
    ],
)
def test_a_wrong_value_is_refused_before_anything_happens(project, words):
    run = project.run("-A", "proj", *words)

    assert run.returncode == 2
    assert "Traceback" not in run.stderr


def test_calls_wait_in_the_queue_and_purge_deletes_them(project):
    for _ in range(3):
        assert project.run("-A", "proj", "call", "proj.add", "-a", "[1, 2]").returncode == 0

    counted = project.run("-A", "proj", "purge", "--dry-run")
    asked = project.run("-A", "proj", "purge", stdin="n\n")
    purged = project.run("-A", "proj", "purge", "--force")
    again = project.run("-A", "proj", "purge", "-f")

    assert counted.stdout.startswith("3 messages wait")
    assert asked.returncode == 1
    assert purged.stdout.strip() == "Purged 3 messages from 1 known task queue."
    assert again.stdout.strip() == "No messages purged from 1 queue."


def test_global_options_may_follow_the_command(project):
    assert project.run("call", "proj.add", "-a", "[1, 2]", "-A", "proj").returncode == 0


def test_report_in_json_masks_secrets(project):
    (project.directory / "qconfig.py").write_text("redis_password = 'hunter2'\ntask_acks_late = True\n")
    report = json.loads(project.run("-A", "proj", "report", "--json").stdout)

    assert report["software"]["qcore"].startswith("26.")
    assert report["settings"]["task_acks_late"] is True
    assert "hunter2" not in json.dumps(report)


def test_events_needs_to_know_what_to_show(project):
    run = project.run("-A", "proj", "events")

    assert run.returncode == 64
    assert "--dump" in run.stderr


def test_a_pid_file_of_a_live_process_keeps_a_second_worker_from_starting(project):
    first = project.start("-A", "proj", "worker", "-c", "1", "-P", "solo", "--pidfile", "w.pid", "-l", "INFO")
    try:
        first.wait_for(r"ready\.")
        second = project.run("-A", "proj", "worker", "--pidfile", "w.pid")
        assert second.returncode == 73
        assert str(first.process.pid) in second.stderr
    finally:
        assert first.stop() == 0
    assert not (project.directory / "w.pid").exists()


def test_a_stale_pid_file_is_replaced(project):
    (project.directory / "w.pid").write_text("999999999\n")
    worker = project.start("-A", "proj", "worker", "-P", "solo", "--pidfile", "w.pid", "-l", "INFO")
    try:
        worker.wait_for(r"ready\.")
    finally:
        assert worker.stop() == 0
