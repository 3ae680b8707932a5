"""RabbitMQ: a virtual host of our own on a server that was there, or a server of our own."""

from __future__ import annotations

import base64
import http.client
import json
import os
import shutil
import socket
from pathlib import Path

from servers.contract import Server, Unavailable
from servers.process import OwnProcess, find_binary, free_port, run

TIMEOUT_SECONDS = 5.0
CONTROL_SECONDS = 60.0
MANAGEMENT_PORT = 15672
USER = PASSWORD = "guest"


class RabbitMQ(Server):
    name = "amqp"
    title = "RabbitMQ"
    variable = "Q_TEST_AMQP_URL"
    port = 5672
    packages = ("rabbitmq-server",)

    def __init__(self, configuration: str = "") -> None:
        """Args: configuration: further lines of `rabbitmq.conf` for a server of our own."""
        self._configuration = configuration
        self._vhost: str | None = None
        self._process: OwnProcess | None = None
        self._epmd: OwnProcess | None = None
        self._script = ""
        self._directory = Path()
        self._env: dict[str, str] = {}

    def answers(self, port: int) -> bool:
        """The server opens with a method frame (type 1) on channel 0 once it is ready for clients."""
        try:
            with socket.create_connection(("127.0.0.1", port), TIMEOUT_SECONDS) as connection:
                connection.sendall(b"AMQP\x00\x00\x09\x01")
                return connection.recv(3) == b"\x01\x00\x00"
        except OSError:
            return False

    def claim(self, port: int, label: str) -> str:
        try:
            _add_vhost(label)
        except Unavailable:
            # No right to administer it: the tests then share its default virtual host, under own names.
            return f"amqp://{USER}:{PASSWORD}@127.0.0.1:{port}/%2F"
        self._vhost = label
        return f"amqp://{USER}:{PASSWORD}@127.0.0.1:{port}/{label}"

    def release(self) -> None:
        if self._vhost is not None:
            vhost, self._vhost = self._vhost, None
            _delete_vhost(vhost)

    def start(self, directory: Path) -> str:
        self._script, epmd = _find_scripts()
        port, epmd_port = free_port(), free_port()
        self._epmd = OwnProcess([epmd, "-port", str(epmd_port), "-address", "127.0.0.1"], directory)
        node = f"q-test-{os.getpid()}-{port}@localhost"
        (directory / "rabbitmq.conf").write_text(
            f"listeners.tcp.default = 127.0.0.1:{port}\n{self._configuration}"
        )
        (directory / "enabled_plugins").write_text("[].\n")
        self._directory = directory
        self._env = {
            "HOME": str(directory),
            "ERL_EPMD_PORT": str(epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": node,
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(port),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_MNESIA_BASE": str(directory / "data"),
            "RABBITMQ_LOG_BASE": str(directory / "log"),
            "RABBITMQ_PID_FILE": str(directory / "rabbitmq.pid"),
            "RABBITMQ_CONFIG_FILE": str(directory / "rabbitmq"),
            "RABBITMQ_CONF_ENV_FILE": str(directory / "none.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "enabled_plugins"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+sbwt none +sbwtdcpu none +sbwtdio none",
        }
        self._launch()
        return f"amqp://{USER}:{PASSWORD}@127.0.0.1:{port}/%2F"

    def _launch(self) -> None:
        process = self._process = OwnProcess([self._script], self._directory, env=self._env)
        port = int(self._env["RABBITMQ_NODE_PORT"])
        try:
            process.wait_until(lambda: self.answers(port))
        except Unavailable:
            self.stop()
            raise

    def crash(self) -> None:
        """SIGKILL to a server of our own."""
        assert self._process is not None, "only a server of our own can be killed"
        self._process.kill()

    def start_again(self) -> None:
        """Start a server of our own that has ended, on the same port and with its data."""
        self._launch()

    def control(self, *arguments: str) -> str:
        """What `rabbitmqctl` says about a server of our own.

        Raises:
            Unavailable: It failed.
        """
        script = str(Path(self._script).with_name("rabbitmqctl"))
        return run([script, "-q", *arguments], env=self._env, timeout_seconds=CONTROL_SECONDS)

    def stop(self) -> None:
        for process in (self._process, self._epmd):
            if process is not None:
                process.stop()
        self._process = self._epmd = None


def _find_scripts() -> tuple[str, str]:
    """The server's own start script (Debian's wrapper in PATH changes user and directory) and epmd."""
    script = find_binary("rabbitmq-server")
    debian = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
    if debian.exists():
        script = str(debian.resolve())
    return script, find_binary("epmd")


def _add_vhost(name: str) -> None:
    if shutil.which("rabbitmqctl") and _may_control():
        try:
            run(["rabbitmqctl", "-q", "add_vhost", name], timeout_seconds=CONTROL_SECONDS)
            grant = ["rabbitmqctl", "-q", "set_permissions", "-p", name, USER, ".*", ".*", ".*"]
            run(grant, timeout_seconds=CONTROL_SECONDS)
            return
        except Unavailable:
            pass
    _manage("PUT", f"/api/vhosts/{name}")
    _manage("PUT", f"/api/permissions/{name}/{USER}", {"configure": ".*", "write": ".*", "read": ".*"})


def _delete_vhost(name: str) -> None:
    try:
        run(["rabbitmqctl", "-q", "delete_vhost", name], timeout_seconds=CONTROL_SECONDS)
    except Unavailable:
        _manage("DELETE", f"/api/vhosts/{name}")


def _may_control() -> bool:
    """rabbitmqctl of Debian hangs about and complains for everybody else."""
    return os.geteuid() == 0 or not Path("/usr/lib/rabbitmq/bin/rabbitmq-server").exists()


def _manage(method: str, path: str, body: dict[str, str] | None = None) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", MANAGEMENT_PORT, timeout=TIMEOUT_SECONDS)
    token = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    headers = {"Authorization": f"Basic {token}", "Content-Type": "application/json"}
    try:
        connection.request(method, path, json.dumps(body or {}), headers)
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        raise Unavailable(f"its management interface: {error}") from error
    finally:
        connection.close()
    if status >= 300:
        raise Unavailable(f"its management interface answered {status}")
