"""The history's file: two scans at once, scans that die, disks that are full, and files that are something else."""

import json
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import threading

import pytest
import sqlalchemy as sa
from cli import kubeposture, process
from test_history import CHECK, PLACE, YESTERDAY, cover, night, seen

from scanner.history import database, store
from scanner.history.database import Database
from scanner.history.lifecycle import Event, State, Tonight, compare, counts
from scanner.history.recorder import HistoryError, ScanRow
from scanner.history.store import DAY, SqliteStore

NOW = 10_000


@pytest.fixture
def path(tmp_path):
    return tmp_path / "history.db"


def opened(path, now=NOW):
    return SqliteStore(Database(path, now=now))


def save(path, tonight, now=NOW, before=None):
    """What it wrote; `before` is what the scan saw at its start."""
    history = opened(path, now)
    before = before or history.load()
    changes = dict(compare(before.known, tonight, before.last))
    return counts(history.save(ScanRow("scan", now - 1, now, True), tonight, before, changes))


def many(count, **more):
    return night({f"kp1_{n:032x}": seen(name=f"web-{n}", **more) for n in range(count)}, **more)


def test_what_is_written_is_read_again(path):
    assert save(path, night({"f": seen()}))["new"] == 1
    assert opened(path).load().known == YESTERDAY
    assert opened(path).load().last == {(PLACE, CHECK): 100}
    [row] = opened(path).rows()
    assert (row["id"], row["name"], row["status"], row["state"]) == ("f", "web", "fail", "new")
    assert oct(path.stat().st_mode & 0o777) == "0o600"


def test_every_event_is_kept(path):
    save(path, night({"f": seen(), "g": seen(name="other")}))
    assert save(path, night({"f": seen(digest="e", status="unknown", observed=200)}, observed=200)) == {
        "new": 0, "resolved": 1, "changed": 1, "reopened": 0, "unchanged": 0, "incomparable": 0,
    }  # fmt: skip
    rows = {row["id"]: row for row in opened(path).rows()}
    assert (rows["f"]["status"], rows["f"]["state"], rows["f"]["failed_at"]) == ("unknown", "open", 100)
    assert (rows["g"]["state"], rows["g"]["close_reason"], rows["g"]["resolved_at"]) == ("resolved", "deleted", 200)
    assert (rows["g"]["name"], rows["g"]["last_seen"]) == ("other", 100)
    again = night({"f": seen(observed=300), "g": seen(observed=300)}, observed=300)
    assert save(path, again)["reopened"] == 1
    assert [row["id"] for row in opened(path).rows([State.REOPENED])] == ["g"]


def test_an_incomparable_night_changes_no_row(path):
    save(path, many(3))
    before = opened(path).rows()
    assert save(path, night(refused=frozenset({"*"}), observed=200))["incomparable"] == 3
    assert save(path, many(3, observed=50))["incomparable"] == 3  # older than what is known
    assert opened(path).rows() == before
    assert opened(path).load().last == {(PLACE, CHECK): 200}


def test_a_renamed_check_leaves_one_row(path):
    save(path, night({"f": seen()}))
    renamed = night({"g": seen(check="k8s-new", previous_ids=("f",))})
    renamed.cover((PLACE, "k8s-new"), cover())
    assert save(path, renamed)["unchanged"] == 1
    [row] = opened(path).rows()
    assert (row["id"], row["check"], row["first_seen"]) == ("g", "k8s-new", 100)
    assert save(path, renamed)["unchanged"] == 1


def test_of_two_scans_at_once_the_second_compares_with_the_first(path):
    before = opened(path).load()
    assert save(path, many(5), before=before)["new"] == 5
    assert save(path, many(7), before=before) == {
        "new": 2, "resolved": 0, "changed": 0, "reopened": 0, "unchanged": 5, "incomparable": 0,
    }  # fmt: skip


def test_scans_side_by_side_lose_nothing(path):
    """Each of its own place, all from the same start."""
    before, found, start = opened(path).load(), [], threading.Barrier(4)

    def scan(number):
        tonight = Tonight({f"{number}-{n}": seen(place=f"uid-{number}") for n in range(500)})
        tonight.cover((f"uid-{number}", CHECK), cover())
        start.wait()
        found.append(save(path, tonight, before=before)["new"])

    threads = [threading.Thread(target=scan, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [500] * 4
    assert len(opened(path).load().known) == 2_000


def test_files_that_appear_at_once_become_one_history(path):
    errors, start = [], threading.Barrier(6)

    def use():
        start.wait()
        try:
            opened(path)
        except HistoryError as error:
            errors.append(error)

    threads = [threading.Thread(target=use) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    with sqlite3.connect(path) as connection:
        assert connection.execute("select version from migrations").fetchall() == [(2,)]
    connection.close()


DYING = """
import os, signal, sys
sys.path[:0] = {paths!r}
from pathlib import Path
from test_history_store import many, save
from scanner.history import store
def die(*args):
    if args[-1] is not None and len(args) > 1:
        real(*args)
    os.kill(os.getpid(), signal.SIGKILL)
real = getattr(store, {name!r})
setattr(store, {name!r}, die)
save(Path({path!r}), many(3_000, observed=200))
"""


@pytest.mark.parametrize("name", ["_generation", "_write", "_write_coverage"])
def test_a_scan_that_is_killed_has_written_nothing(path, name):
    save(path, many(10))
    before = opened(path).rows()
    script = DYING.format(paths=[os.getcwd(), os.path.dirname(__file__)], name=name, path=str(path))
    assert subprocess.run([sys.executable, "-c", script], timeout=60, check=False).returncode == -signal.SIGKILL
    assert opened(path).rows() == before
    assert save(path, many(3_000, observed=300))["new"] == 2_990


# A history of version 1, with one finding.
V1 = """
CREATE TABLE migrations (version INTEGER NOT NULL, applied_at BIGINT NOT NULL, PRIMARY KEY (version));
CREATE TABLE findings (id TEXT NOT NULL, "check" TEXT NOT NULL, place TEXT NOT NULL, namespace TEXT NOT NULL,
  kind TEXT NOT NULL, name TEXT NOT NULL, container TEXT NOT NULL, cluster TEXT NOT NULL, account TEXT NOT NULL,
  about TEXT NOT NULL, severity TEXT NOT NULL, status TEXT NOT NULL, reason TEXT NOT NULL, params TEXT NOT NULL,
  digest TEXT NOT NULL, exempted BOOLEAN NOT NULL, state TEXT NOT NULL, first_seen BIGINT NOT NULL,
  last_seen BIGINT NOT NULL, failed_at BIGINT, resolved_at BIGINT, close_reason TEXT, PRIMARY KEY (id)) WITHOUT ROWID;
CREATE TABLE scans (generation INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL, started_at BIGINT NOT NULL,
  finished_at BIGINT NOT NULL, complete BOOLEAN NOT NULL, new INTEGER NOT NULL, resolved INTEGER NOT NULL,
  changed INTEGER NOT NULL, reopened INTEGER NOT NULL, unchanged INTEGER NOT NULL, incomparable INTEGER NOT NULL);
CREATE TABLE coverage (place TEXT NOT NULL, "check" TEXT NOT NULL, observed_at BIGINT NOT NULL, params TEXT NOT NULL,
  asked JSON NOT NULL, excluded JSON NOT NULL, refused JSON NOT NULL, PRIMARY KEY (place, "check")) WITHOUT ROWID;
INSERT INTO migrations VALUES (1, 0);
INSERT INTO scans VALUES (7, 'scan', 0, 50, 1, 1, 0, 0, 0, 0, 0);
"""


def columns(path):
    """Of each table, as they are declared."""
    with sqlite3.connect(path) as connection:
        names = [
            name for (name,) in connection.execute("select name from sqlite_master where type in ('table', 'index')")
        ]
        found = {name: [row[1:] for row in connection.execute(f"pragma table_info({name})")] for name in names}
    connection.close()
    return found


def test_a_history_of_an_older_version_loses_nothing(path, tmp_path):
    with sqlite3.connect(path) as connection:
        connection.executescript(V1)
        row = ("f", CHECK, PLACE, "shop", "Deployment", "web", "c", "prod", "", "object", "high", "fail", "", "p", "d")
        marks = ", ".join("?" * 22)
        connection.execute(f"INSERT INTO findings VALUES ({marks})", (*row, False, "open", 40, 60, 40, None, None))
        connection.execute("INSERT INTO coverage VALUES (?, ?, 100, 'p', '[]', '[]', '[]')", (PLACE, CHECK))
    connection.close()
    before = opened(path).load()
    assert (before.generation, before.last) == (7, {(PLACE, CHECK): 100})
    known = before.known["f"]
    assert (known.first_seen, known.last_seen, known.failed_at, known.state) == (40, 60, 40, State.OPEN)
    assert save(path, night({"f": seen()}))["unchanged"] == 1
    opened(tmp_path / "new.db")
    assert columns(path) == columns(tmp_path / "new.db")
    with sqlite3.connect(path) as connection:
        assert connection.execute("select version from migrations").fetchall() == [(1,), (2,)]
    connection.close()


def test_resolved_findings_and_scans_are_forgotten_after_a_while(path):
    save(path, night({"f": seen(observed=NOW)}, observed=NOW))
    save(path, night(observed=NOW + 1), now=NOW + 1)
    save(path, night(observed=NOW + 1), now=NOW + 90 * DAY)
    assert [row["state"] for row in opened(path).rows()] == ["resolved"]
    save(path, night(observed=NOW + 1), now=NOW + 90 * DAY + 2)
    assert opened(path).rows() == []
    save(path, night({"f": seen(observed=NOW + 3)}, observed=NOW + 3), now=NOW + 401 * DAY)
    with sqlite3.connect(path) as connection:
        assert connection.execute("select count(*) from scans").fetchone() == (3,)
    connection.close()
    save(path, night(refused=frozenset({"*"}), observed=NOW + 4), now=NOW + 2_000 * DAY)
    assert len(opened(path).rows()) == 1  # open ones stay


# -- files that cannot be used ----------------------------------------------------------------------------------------


def run(path, *args, by=kubeposture, privileged=True, output="json"):
    text = json.dumps({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"},
        "spec": {"containers": [{"name": "c", "image": "nginx", "securityContext": {"privileged": privileged}}]},
    })  # fmt: skip
    return by("scan", "manifests", "-", "-c", CHECK, "-o", output, "--history", path, *args, stdin=text)


def execute(path, *statements):
    with sqlite3.connect(path) as connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()


def write_text(path):
    path.write_text("this is no database" * 100)


def foreign(path):
    execute(path, "create table accounts (id int)")


def future(path):
    opened(path)
    execute(path, "insert into migrations values (3, 0)")


def no_version(path):
    opened(path)
    execute(path, "delete from migrations")


def no_columns(path):
    opened(path)
    execute(path, "drop table findings", "create table findings (id text)")


def odd_values(path):
    save(path, night({"f": seen()}))
    execute(path, "update findings set state = 'happy'")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (write_text, "file is not a database"),
        (foreign, "is a database of something else"),
        (future, "has history version 3; this kubeposture knows version 2: update it"),
        (no_version, "it has no version"),
        (no_columns, "no such column"),
        (odd_values, "it is damaged"),
        (lambda path: path.mkdir(), "unable to open"),
    ],
)
def test_a_file_that_is_no_history_is_said_before_the_scan(path, damage, said):
    damage(path)
    before = path.read_bytes() if path.is_file() else b""
    result = run(path)
    assert (result.code, result.stdout) == (2, "")
    assert result.stderr.count("\n") == 1
    assert said in result.stderr
    assert not path.is_file() or path.read_bytes() == before


def test_a_place_that_cannot_be_written_is_said_before_the_scan(tmp_path):
    for place in (tmp_path / "none" / "h.db", "/proc/h.db"):
        result = run(place)
        assert (result.code, result.stdout) == (2, "")
        assert "cannot be used as a history" in result.stderr


def test_a_history_on_a_read_only_file_system_is_said_before_the_scan(path, monkeypatch):
    save(path, night({"f": seen()}))
    connection = sqlite3.connect(path)  # keeps the files beside it, which could not be made there
    connection.execute("select * from findings")
    url = f"sqlite:///file:{path}?mode=ro&uri=true"
    monkeypatch.setattr(database, "_engine", lambda path: sa.create_engine(url, isolation_level="AUTOCOMMIT"))
    with pytest.raises(HistoryError, match="cannot be used as a history: attempt to write a readonly database"):
        opened(path)
    connection.close()


def test_a_full_disk_costs_the_history_and_not_the_report(path):
    opened(path)

    def limited():
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, 2**16))  # enough for the file, and not for the findings

    text = json.dumps({"kind": "List", "apiVersion": "v1", "items": [
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"web-{n}"},
         "spec": {"containers": [{"name": "c", "image": "nginx", "securityContext": {"privileged": True}}]}}
        for n in range(300)]})  # fmt: skip
    command = [sys.executable, "-m", "scanner", "scan", "manifests", "-", "-c", CHECK, "-o", "json", "--history", path]
    done = subprocess.run(
        [*map(str, command)], input=text, capture_output=True, text=True, timeout=60, check=False, preexec_fn=limited
    )
    assert done.returncode == 3, done.stderr
    report = json.loads(done.stdout)
    assert (len(report["findings"]), report["changes"]) == (300, None)
    assert report["scan"]["exit_reasons"] == ["history_not_written"]
    assert any("history.db: cannot be written" in warning for warning in report["scan"]["warnings"])
    assert opened(path).rows() == []


def test_without_the_library_one_sentence_says_what_to_install(path, tmp_path):
    (tmp_path / "sqlalchemy.py").write_text("raise ModuleNotFoundError('no', name='sqlalchemy')")
    paths = os.pathsep.join([str(tmp_path), os.getcwd()])
    result = process("scan", "manifests", "-", "--history", path, PYTHONPATH=paths)
    assert (result.code, result.stdout) == (2, "")
    assert "pip install 'kubeposture[history]'" in result.stderr
    assert process("scan", "manifests", "-", stdin="{}", PYTHONPATH=paths).code == 4


# -- the command ------------------------------------------------------------------------------------------------------


def test_the_gate_is_of_new_fails_only(path):
    first = run(path, "--fail-on-new", "medium")
    assert (first.code, json.loads(first.stdout)["changes"]["new"]) == (1, 1)
    second = run(path, "--fail-on-new", "medium")
    report = json.loads(second.stdout)
    assert (second.code, report["changes"]["unchanged"]) == (0, 1)
    [finding] = report["findings"]
    assert finding["lifecycle"]["state"] == "open"
    assert run(path.with_name("other.db"), "--fail-on-new", "critical").code == 0
    third = run(path, "--fail-on-new", "medium", privileged=False)
    assert (third.code, json.loads(third.stdout)["changes"]["resolved"]) == (0, 1)


@pytest.mark.parametrize(
    ("gates", "codes", "said"),
    [
        (("--fail-on-new", "medium"), (1, 0), ("1 new of severity medium or worse", "nothing new of severity medium")),
        (("--fail-on-new", "high"), (0, 0), ("nothing new of severity high", "nothing new of severity high")),
        (
            ("--fail-on-new", "medium", "--fail-on", "high"),
            (1, 0),
            (
                "1 new of severity medium or worse (--fail-on-new medium, exit code 1)",
                "passed: nothing of severity high",
            ),
        ),
        (
            ("--fail-on-new", "low", "--fail-on", "medium"),
            (1, 1),
            ("1 of severity medium or worse (--fail-on medium", "1 of severity medium or worse (--fail-on medium"),
        ),
    ],
)
def test_the_gate_that_fails_is_said(path, gates, codes, said):
    for code, words in zip(codes, said, strict=True):
        result = run(path, *gates, output="table")
        assert (result.code, words in result.stdout) == (code, True), result.stdout


def test_the_table_tells_what_changed(path, tmp_path):
    for expected in (
        "1 new, 0 reopened, 0 changed, 0 resolved; 0 unchanged",
        "0 resolved; 1 unchanged, 0 incomparable",
    ):
        run(path, "-o", f"table={tmp_path / 'table'}")
        assert expected in (tmp_path / "table").read_text()
    missing = run(tmp_path / "none" / "h.db")
    assert (missing.code, "make its directory first" in missing.stderr) == (2, True)


def test_the_gate_needs_a_history_which_is_in_the_state_directory(tmp_path, monkeypatch):
    off = kubeposture("scan", "manifests", "-", "--fail-on-new", "high", "--history", "off", stdin="{}")
    assert (off.code, "not --history off" in off.stderr) == (2, True)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert run("off").code == 0
    kubeposture("scan", "manifests", "-", stdin="{}")
    assert not (tmp_path / "state").exists()
    kubeposture("scan", "manifests", "-", "-c", CHECK, "--fail-on-new", "high", stdin="{}")
    folder = tmp_path / "state" / "kubeposture"
    assert ((folder / "history.db").stat().st_mode & 0o777, folder.stat().st_mode & 0o777) == (0o600, 0o700)
    assert kubeposture("history", "list", "-o", "json").stdout.strip() == "[]"
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    lost = kubeposture("scan", "manifests", "-", "--fail-on-new", "high", stdin="{}")
    assert (lost.code, "name a file with --history" in lost.stderr) == (2, True)


def test_what_is_known_is_listed(path):
    run(path)
    listed = kubeposture("history", "list", path)
    assert CHECK in listed.stdout
    assert max(map(len, listed.stdout.splitlines())) <= 100
    [row] = json.loads(kubeposture("history", "list", path, "-o", "json").stdout)
    assert (row["state"], row["name"], row["failed_at"]) == ("new", "web", row["first_seen"])
    assert json.loads(kubeposture("history", "show", row["id"], path, "-o", "json").stdout) == row
    assert row["id"] in kubeposture("history", "show", row["id"], path).stdout
    assert row["id"] in kubeposture("history", "show", row["id"][:12], path).stdout
    assert json.loads(kubeposture("history", "list", path, "--state", "new", "-o", "json").stdout) == [row]
    assert kubeposture("history", "show", "kp", path.with_name("none")).code == 2
    assert "2 findings" not in kubeposture("history", "show", "kp1_", path).stderr
    assert kubeposture("history", "list", path, "--state", "resolved", "-o", "json").stdout.strip() == "[]"
    assert kubeposture("history", "show", "kp1_0", path).code == 2
    missing = kubeposture("history", "list", path.with_name("none"))
    assert (missing.code, path.with_name("none").exists()) == (2, False)


def test_events_are_columns_of_scans():
    assert {event.value for event in Event} <= set(store.SCANS.c.keys())
