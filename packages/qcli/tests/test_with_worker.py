"""Commands that talk to a worker, on the embedded broker (CLI, MO, 4CLI)."""

import json
import os
import signal
import socket
import subprocess
import sys

NODE = f"w1@{socket.gethostname()}"


def test_the_banner_tells_broker_pool_queues_and_tasks(live):
    text = live.worker.text

    assert NODE in text
    assert "sqlite:" in text
    assert ".> celery" in text
    assert "proj.add" in text
    assert "No broker is configured" in text


def test_status_lists_the_node(live):
    run = live.run("-A", "proj", "status")

    assert run.returncode == 0
    assert f"->  {NODE}: OK" in run.stdout
    assert "1 node online." in run.stdout


def test_inspect_ping_in_json(live):
    assert json.loads(live.run("-A", "proj", "inspect", "ping", "-j").stdout) == {NODE: {"ok": "pong"}}


def test_inspect_of_another_destination_gets_no_answer(live):
    run = live.run("-A", "proj", "inspect", "-d", "other@host", "-t", "0.3", "ping")

    assert run.returncode == 69


def test_inspect_registered_names_the_tasks(live):
    assert "proj.add" in live.run("-A", "proj", "inspect", "registered").stdout


def test_inspect_stats_tells_the_pool(live):
    stats = json.loads(live.run("-A", "proj", "inspect", "stats", "--json").stdout)[NODE]

    assert stats["pool"]["max-concurrency"] == 1
    assert stats["pid"] == live.worker.process.pid


def test_call_and_wait(live):
    run = live.run("-A", "proj", "call", "proj.add", "-a", "[2, 3]", "--wait", "-t", "20")

    assert run.stdout.strip() == "5"


def test_call_of_a_failing_task_exits_with_1_and_says_why(live):
    run = live.run("-A", "proj", "call", "proj.boom", "--wait", "-t", "20")

    assert run.returncode == 1
    assert "ValueError: no" in run.stderr


def test_call_of_an_unknown_task_ends_as_a_failure_that_names_it(live):
    run = live.run("-A", "proj", "call", "proj.nosuch", "--wait", "-t", "20")

    assert run.returncode == 1
    assert "proj.nosuch" in run.stderr


def test_result_shows_what_a_call_returned(live):
    task_id = live.run("-A", "proj", "call", "proj.add", "-a", "[4, 5]").stdout.strip()

    assert live.run("-A", "proj", "result", task_id, "--timeout", "20").stdout.strip() == "9"
    record = json.loads(live.run("-A", "proj", "result", task_id, "-j").stdout)
    assert (record["state"], record["result"]) == ("SUCCESS", 9)


def test_result_shows_the_traceback_of_a_failure(live):
    task_id = live.run("-A", "proj", "call", "proj.boom").stdout.strip()

    assert "in boom" in live.run("-A", "proj", "result", task_id, "--traceback", "--timeout", "20").stdout


def test_result_that_does_not_come_is_an_error_in_time(live):
    run = live.run("-A", "proj", "result", "no-such-id", "--timeout", "0.3")

    assert run.returncode == 1
    assert "PENDING" in run.stderr


def test_control_rate_limit(live):
    run = live.run("-A", "proj", "control", "rate_limit", "proj.boom", "10/m")

    assert "new rate limit set successfully" in run.stdout
    live.run("-A", "proj", "control", "rate_limit", "proj.boom", "0")


def test_events_are_dumped_as_lines_of_json(live):
    events = live.start("-A", "proj", "events", "--json")
    try:
        events.wait_for("worker-heartbeat")
        live.run("-A", "proj", "call", "proj.add", "-a", "[7, 8]", "--wait")
        events.wait_for("task-succeeded")
    finally:
        events.stop(signal.SIGINT)
    found = [json.loads(line) for line in events.text.splitlines() if line.startswith("{")]
    assert {"task-received", "task-started", "task-succeeded"} <= {event["type"] for event in found}


def test_the_readmes_first_app_runs_as_printed(project):
    (project.directory / "hello.py").write_text(
        "from qcore import App\n\napp = App('hello')\n\n\n@app.task\ndef add(x: int, y: int) -> int:\n"
        "    return x + y\n\n\nif __name__ == '__main__':\n"
        "    results = [add.delay(n, n) for n in range(10)]\n"
        "    print([result.get(timeout=10) for result in results])\n"
    )
    worker = project.start("-A", "hello", "worker", "--loglevel", "info", "-c", "1")
    try:
        worker.wait_for(r"ready\.")
        run = subprocess.run(
            [sys.executable, "hello.py"], cwd=project.directory, env=project.environment, timeout=30,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert run.stdout.strip() == str([2 * n for n in range(10)]), run.stderr
    finally:
        assert worker.stop() == 0


def test_a_worker_stops_warmly_on_interrupt(project):
    worker = project.start("-A", "proj", "worker", "-c", "1", "-l", "INFO")
    worker.wait_for(r"ready\.")

    assert worker.stop(signal.SIGINT) == 0
    assert "Warm shutdown" in worker.text


def test_commands_of_the_project_are_called_from_the_command_line(live):
    before = json.loads(live.run("-A", "proj", "inspect", "-j", "current_prefetch_count").stdout)
    run = live.run("-A", "proj", "control", "increase_prefetch_count", "3")

    assert before[NODE]["prefetch_count"] > 0
    assert "prefetch count incremented by 3" in run.stdout


def test_a_worker_whose_output_nobody_reads_any_more_stops_all_the_same(project):
    reader, writer = os.pipe()
    process = subprocess.Popen(
        project.command("-A", "proj", "worker", "-c", "1", "-l", "INFO"),
        cwd=project.directory,
        env=project.environment,
        stdout=writer,
        stderr=writer,
    )
    try:
        os.close(writer)
        text = b""
        while b"ready." not in text:
            chunk = os.read(reader, 1 << 16)
            assert chunk, text.decode()
            text += chunk
        os.close(reader)
        process.terminate()
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
