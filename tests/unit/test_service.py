"""What a service is configured to do, where its captures go, and how it offers its numbers."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import pytest

from memory_tracer.errors import OutputError, UsageError
from memory_tracer.model import EventKind
from memory_tracer.record.privileges import PERMITTED
from memory_tracer.record.scope import Criteria, Scope
from memory_tracer.service.config import Config, read_config
from memory_tracer.service.metrics import MetricsServer, Sample, render
from memory_tracer.service.store import Store

PACKAGING = Path(__file__).parents[2] / "packaging"
SAMPLES = (
    Sample("up", "gauge", "Whether.", 1),
    Sample("events_total", "counter", "Events.", 12345678901, (("kind", 'a"b\\c\nd'),)),
    Sample("events_total", "counter", "Events.", 2, (("kind", "other"),)),
)


def configured(tmp_path: Path, text: str) -> Config:
    path = tmp_path / "service.toml"
    path.write_text(text)
    return read_config(path)


def test_configuration_in_the_package_can_be_read() -> None:
    config = read_config(PACKAGING / "memory-tracer.toml")
    assert config.directory == Path("/var/lib/memory-tracer")
    assert config.budget == 16 << 30
    assert config.settings.scope == Scope(Criteria(), Criteria(comms=("chrome",)))
    assert not config.settings.lossless


def test_every_value_gets_where_it_belongs(tmp_path: Path) -> None:
    config = configured(
        tmp_path,
        """
        [capture]
        directory = "/captures"
        rotate-size = 4096
        rotate-age = "2h"
        budget = "1M"
        remove-oldest = true
        [record]
        prot = "wx"
        event = ["mprotect", "exit"]
        hook = "auto"
        ring-size = "1M"
        follow = false
        [scope.include]
        uids = [1, 2]
        exes = ["/bin/true"]
        """,
    )
    assert (config.rotate_size, config.rotate_age, config.budget) == (4096, 7200.0, 1 << 20)
    assert config.remove_oldest
    assert config.listen is None
    assert config.settings.kinds == frozenset({EventKind.MPROTECT, EventKind.EXIT})
    assert (config.settings.ring_bytes, config.settings.follow, config.settings.hook) == (
        1 << 20,
        False,
        None,
    )
    assert config.settings.scope == Scope(Criteria(uids=(1, 2), exes=("/bin/true",)))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "capture.directory is missing"),
        ("[capture", "is not TOML"),
        ("[capture]\ndirectory = 7", "capture.directory: 7 is not a string"),
        ("[capture]\ndirectory = 'here'", "not an absolute path"),
        ("[capture]\ndirectory = '/c'\nrotate-size = -1", "capture.rotate-size"),
        ("[capture]\ndirectory = '/c'\nrotate-age = 0", "is not a duration"),
        ("[capture]\ndirectory = '/c'\nrotate-age = true", "is not a number"),
        ("[capture]\ndirectory = '/c'\nbudged = 1", "capture.budged means nothing"),
        ("capture = 1", "capture is not a table"),
        ("[capture]\ndirectory = '/c'", "scope.include is empty"),
        ("[capture]\ndirectory = '/c'\n[scope.include]\nuids = ['root']", "not a list of numbers"),
        ("[capture]\ndirectory = '/c'\n[scope.include]\nuids = [true]", "not a list of numbers"),
        ("[capture]\ndirectory = '/c'\n[scope.include]\nusers = [1]", "scope.include.users means nothing"),
        ("[capture]\ndirectory = '/c'\n[scope]\nall = true\n[record]\nring-size = 5", "power of two"),
        ("[capture]\ndirectory = '/c'\n[scope]\nall = true\n[record]\nevent = ['x']", "kinds of event"),
        ("[capture]\ndirectory = '/c'\n[scope]\nall = true\n[record]\nexact = 1", "neither true nor false"),
    ],
)
def test_configuration_that_makes_no_sense_is_refused_in_one_sentence(
    tmp_path: Path, text: str, words: str
) -> None:
    with pytest.raises(UsageError) as caught:
        configured(tmp_path, text)
    assert words in str(caught.value)


def test_directory_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    store = Store(tmp_path / "captures", 1000)
    store.close()
    assert (tmp_path / "captures").stat().st_mode & 0o777 == 0o700


def test_directory_that_others_may_use_or_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir(mode=0o755)
    (tmp_path / "link").symlink_to(tmp_path / "open")
    for name, words in (("open", "used by others"), ("link", "symbolic link")):
        with pytest.raises(OutputError, match=words):
            Store(tmp_path / name, 1000)


def test_oldest_captures_make_room_and_nothing_else_does(tmp_path: Path) -> None:
    directory = tmp_path / "captures"
    store = Store(directory, 16_000)
    names = [f"20260101-00000{number}-001.mtrace" for number in range(4)]
    for name in names:
        (directory / name).write_bytes(bytes(4000))
    (directory / "notes").write_bytes(bytes(9000))
    (directory / "00000000-link.mtrace").symlink_to(directory / "notes")
    assert (store.used(), store.room()) == (16_000, 0)
    removed = store.make_room(6000, directory / names[0])
    assert removed == names[1:3]
    assert (store.used(), store.room()) == (8000, 7000)
    assert {path.name for path in directory.iterdir()} == {
        names[0],
        names[3],
        "notes",
        "00000000-link.mtrace",
    }
    store.close()


def test_names_of_captures_that_begin_in_one_second_differ(tmp_path: Path) -> None:
    store = Store(tmp_path / "captures", 1000)
    paths = set()
    for _ in range(5):
        path = store.new_path()
        path.touch()
        paths.add(path)
    assert len(paths) == 5
    assert [path.name for path in sorted(paths)] == [name for name, _ in store._captures()]
    store.close()


def test_numbers_are_in_the_text_format_of_prometheus() -> None:
    assert render(SAMPLES) == (
        "# HELP memory_tracer_up Whether.\n"
        "# TYPE memory_tracer_up gauge\n"
        "memory_tracer_up 1\n"
        "# HELP memory_tracer_events_total Events.\n"
        "# TYPE memory_tracer_events_total counter\n"
        'memory_tracer_events_total{kind="a\\"b\\\\c\\nd"} 12345678901\n'
        'memory_tracer_events_total{kind="other"} 2\n'
    )


def ask(family: int, address: str | tuple[str, int], request: bytes) -> bytes:
    with socket.socket(family, socket.SOCK_STREAM) as connection:
        connection.connect(address)
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    return answer


REQUEST = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"


def test_metrics_are_offered_on_a_socket_of_the_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "metrics"
    with MetricsServer(f"unix:{path}", lambda: SAMPLES):
        assert path.stat().st_mode & 0o777 == 0o600
        head, _, body = ask(socket.AF_UNIX, str(path), REQUEST).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.0 200 OK\r\n")
        assert body.decode() == render(SAMPLES)
    assert not path.exists()


@pytest.mark.parametrize("request_bytes", [b"", b"\r\n\r\n", b"POST /metrics HTTP/1.1\r\n\r\n", b"x" * 9000])
def test_other_requests_get_nothing_and_do_no_harm(tmp_path: Path, request_bytes: bytes) -> None:
    with MetricsServer(f"unix:{tmp_path / 'metrics'}", lambda: SAMPLES) as server:
        try:
            answer = ask(socket.AF_UNIX, server.address, request_bytes)
        except ConnectionError:  # it did not hear us out
            answer = b""
        assert answer in (b"", b"HTTP/1.0 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        assert b"200 OK" in ask(socket.AF_UNIX, server.address, REQUEST)


def test_metrics_are_offered_on_a_port_of_this_machine() -> None:
    with MetricsServer("127.0.0.1:0", lambda: SAMPLES) as server:
        host, _, port = server.address.rpartition(":")
        assert b"memory_tracer_up 1\n" in ask(socket.AF_INET, (host, int(port)), REQUEST)


@pytest.mark.parametrize(
    "listen", ["0.0.0.0:9464", "192.0.2.1:80", "localhost:x", "9464", "[::]:1", "unix:here"]
)
def test_metrics_are_not_offered_to_others(listen: str) -> None:
    with pytest.raises(UsageError):
        MetricsServer(listen, lambda: SAMPLES)


def test_stale_socket_is_replaced_and_no_other_file(tmp_path: Path) -> None:
    stale, precious = tmp_path / "stale", tmp_path / "precious"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as left:
        left.bind(str(stale))
    precious.write_text("precious")
    MetricsServer(f"unix:{stale}", lambda: SAMPLES).close()
    with pytest.raises(OutputError):
        MetricsServer(f"unix:{precious}", lambda: SAMPLES)
    assert precious.read_text() == "precious"


def test_unit_grants_the_capabilities_that_are_kept_and_no_others() -> None:
    unit = (PACKAGING / "memory-tracer.service").read_text()
    for setting in ("AmbientCapabilities", "CapabilityBoundingSet"):
        (line,) = re.findall(rf"^{setting}=(.*)$", unit, re.MULTILINE)
        assert set(line.split()) == {f"CAP_{capability.name}" for capability in PERMITTED}
    assert "User=memory-tracer" in unit
    assert "NoNewPrivileges=yes" in unit
