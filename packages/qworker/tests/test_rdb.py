from __future__ import annotations

import socket
import threading

import pytest
from worker_helpers import make_app, wait_until

from qworker import rdb
from qworker.testing import start_worker


@pytest.fixture
def base_port(monkeypatch: pytest.MonkeyPatch) -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    monkeypatch.setenv("Q_RDB_PORT", str(port))
    return port


def test_session_changes_a_variable_and_continues(base_port: int, caplog: pytest.LogCaptureFixture) -> None:
    app = make_app()

    @app.task
    def add(x: int, y: int) -> object:
        result: object = x + y
        rdb.set_trace()
        return result

    with start_worker(app):
        answer = add.delay(2, 2)
        wait_until(lambda: "Waiting for client" in caplog.text, "the debugger")
        assert f"Please telnet 127.0.0.1 {base_port}." in caplog.text
        with socket.create_connection(("127.0.0.1", base_port), timeout=5) as client:
            client.sendall(b"p result\nresult = 'hello from rdb'\ncontinue\n")
            said = b""
            while part := client.recv(4096):
                said += part
        assert b"(Pdb)" in said
        assert b"4" in said
        assert answer.get(timeout=10) == "hello from rdb"
    assert "Session ended" in caplog.text


def test_next_port_is_taken_when_one_is_in_use() -> None:
    first, port = rdb.listen("127.0.0.1", 7300)
    second, other = rdb.listen("127.0.0.1", port)
    first.close()
    second.close()
    assert other > port


def test_only_one_session_per_process(base_port: int) -> None:
    sessions: list[rdb.Rdb] = []
    thread = threading.Thread(target=lambda: sessions.append(rdb.Rdb()))
    thread.start()

    def connect() -> socket.socket | None:
        try:
            return socket.create_connection(("127.0.0.1", base_port), timeout=1)
        except OSError:
            return None

    client = wait_until(connect, "the debugger")
    thread.join(5)
    assert rdb.debugger() is sessions[0]
    sessions[0].close()
    client.close()
