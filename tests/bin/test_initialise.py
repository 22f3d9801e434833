"""init does everything with enough rights, says what is missing with too few, and changes nothing the second time."""

import asyncio
import itertools
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from clusters import Cluster, binaries
from psycopg.conninfo import make_conninfo

from bin.doctor import examine
from bin.initialise import InitialiseError, initialise, initialise_waiting, make_ready
from eventlog.configuration import Settings, load_settings
from eventlog.key_file import make_key
from eventlog.provision import WrongInstallation

pytestmark = [pytest.mark.postgres, pytest.mark.slow]

_numbers = itertools.count(1)


@pytest.fixture(scope="module", params=[18, 15])
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A cluster of its own: logins are shared by all databases of one."""
    if binaries(request.param) is None:
        pytest.skip(f"there is no PostgreSQL {request.param} on this machine")
    with Cluster(request.param, {"max_replication_slots": "40"}) as one:
        yield one


def _database(cluster: Cluster, login: str, attributes: str, *, owned: bool) -> str:
    """DSN of a new database for a new login with these attributes."""
    number = next(_numbers)
    name = f"{login}_{number}"
    cluster.execute(f"create role {name} login password 'p' {attributes}")
    cluster.execute(f"create database {name}" + (f" owner {name}" if owned else ""))
    return cluster.dsn(name, user=name, password="p")


def _settings(tmp_path: Path, dsn: str, **environ: str) -> Settings:
    settings = load_settings({"WALDEN_DATA_DIR": str(tmp_path / "d"), "WALDEN_DATABASE_DSN": dsn, **environ})
    make_ready(settings)
    return settings


def _run(settings: Settings) -> list[str]:
    said: list[str] = []
    asyncio.run(initialise(settings, said.append))
    return said


def _check_logins(settings: Settings) -> None:
    for role in ("writer", "roomserver", "reader", "maintenance", "history"):
        with psycopg.connect(settings.dsn(role)) as connection:  # type: ignore[arg-type]
            row = connection.execute(
                "select rolsuper, rolreplication, pg_has_role(%s, 'member') from pg_roles where rolname = current_user",
                [f"walden_{role}"],
            ).fetchone()
            assert row == (False, False, True)
            # Without options from the client, as through a pooler.
            (timeout,) = connection.execute("show statement_timeout").fetchone() or ("",)
            assert timeout == ("0" if role == "history" else "1min")
    with psycopg.connect(settings.dsn("replication")) as connection:
        row = connection.execute(
            "select rolsuper, rolreplication, has_schema_privilege('eventlog', 'usage') from pg_roles"
            " where rolname = current_user"
        ).fetchone()
        assert row == (False, True, False)


def test_a_superuser_gets_everything_made_once(cluster: Cluster, tmp_path: Path) -> None:
    settings = _settings(tmp_path, _database(cluster, "admin", "superuser", owned=False))
    said = _run(settings)
    assert sum("made login" in sentence for sentence in said) == 6
    assert sum("replication slot" in sentence for sentence in said) == 2
    assert _run(settings) == []
    _check_logins(settings)
    assert (tmp_path / "d" / "logins.json").stat().st_mode & 0o777 == 0o600


def test_another_data_directory_does_not_take_the_logins_from_processes_that_use_them(
    cluster: Cluster, tmp_path: Path
) -> None:
    dsn = _database(cluster, "admin", "superuser", owned=False)
    first = _settings(tmp_path / "first", dsn)
    _run(first)
    second = _settings(tmp_path / "second", dsn)
    key = first.server.signing_key.read_bytes()
    second.server.signing_key.write_bytes(key)
    with psycopg.connect(first.dsn("writer")):
        with pytest.raises(InitialiseError, match=r"copy that file from the other machine"):
            _run(second)
        psycopg.connect(first.dsn("reader")).close()
        (tmp_path / "second" / "d" / "logins.json").write_bytes((tmp_path / "first" / "d" / "logins.json").read_bytes())
        assert _run(second) == []
    # Nobody uses them and the file is lost: they are made anew.
    (tmp_path / "second" / "d" / "logins.json").unlink()
    _run(second)
    _check_logins(second)


def test_a_role_that_may_make_roles_and_grant_replication_is_enough_from_16(cluster: Cluster, tmp_path: Path) -> None:
    dsn = _database(cluster, "maker", "createrole replication", owned=True)
    settings = _settings(tmp_path, dsn)
    if cluster.version < 16:
        with pytest.raises(InitialiseError, match="administrator"):
            _run(settings)
        return
    # The group roles of the cluster are another installation's: that is what the administrator has to grant.
    for group in ("writer", "roomserver", "reader", "maintenance", "history"):
        cluster.execute(
            f"do $$ begin if exists (select from pg_roles where rolname = 'walden_{group}') then"
            f" grant walden_{group} to {psycopg.conninfo.conninfo_to_dict(dsn)['user']} with admin option; end if; end $$"
        )
    _run(settings)
    assert _run(settings) == []
    _check_logins(settings)


def test_too_few_rights_give_the_sql_that_makes_the_next_attempt_succeed(cluster: Cluster, tmp_path: Path) -> None:
    dsn = _database(cluster, "plain", "", owned=False)
    settings = _settings(tmp_path, dsn)
    with pytest.raises(InitialiseError, match="administrator") as refused:
        _run(settings)
    script = str(refused.value).split("\n\n", 1)[1]
    kept = json.loads((tmp_path / "d" / "logins.json").read_text())
    assert len(kept) == 6 and not any(login["password"] in script for login in kept.values())
    with pytest.raises(InitialiseError, match="administrator") as again:
        _run(settings)
    assert json.loads((tmp_path / "d" / "logins.json").read_text()) == kept, (
        "either script's passwords are the ones kept"
    )
    name = str(psycopg.conninfo.conninfo_to_dict(dsn)["dbname"])
    with psycopg.connect(cluster.dsn(name), autocommit=True) as administrator:
        administrator.execute(script.encode())
    assert str(again.value) != str(refused.value)
    _run(settings)
    assert _run(settings) == []
    _check_logins(settings)
    _check_closed(cluster, name)


def _check_closed(cluster: Cluster, database: str) -> None:
    """Whoever has not been let in does not get in; a group is no way in."""
    user = f"stranger_{next(_numbers)}"
    cluster.execute(f"create role {user} login password 'p' in role walden_writer")
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        psycopg.connect(cluster.dsn(database, user=user, password="p"))


def test_one_installation_does_not_get_into_the_database_of_another(cluster: Cluster, tmp_path: Path) -> None:
    """Their logins are members of the same groups, which are the whole cluster's."""
    one, two = (
        _settings(tmp_path / name, _database(cluster, "admin", "superuser", owned=False)) for name in ("one", "two")
    )
    for settings in (one, two):
        assert sum(sentence.startswith("closed database") for sentence in _run(settings)) == 1
        assert _run(settings) == []
    _check_logins(one)
    there = str(psycopg.conninfo.conninfo_to_dict(two.dsn())["dbname"])
    for role in ("writer", "roomserver", "reader", "maintenance", "history", "replication"):
        with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
            psycopg.connect(make_conninfo(one.dsn(role), dbname=there))  # type: ignore[arg-type]
    with psycopg.connect(two.dsn("history")) as analyst, pytest.raises(psycopg.errors.InsufficientPrivilege):
        analyst.execute("create temporary table mine (n integer)")
    # Opened again by somebody, it is a finding whose remedy closes it.
    cluster.execute(f"grant connect on database {there} to public")
    (finding,) = [each for each in examine(two) if "other installations" in each.text]
    login = str(psycopg.conninfo.conninfo_to_dict(one.dsn("writer"))["user"])
    assert (finding.level, login in finding.text) == ("warning", True)
    for statement in finding.remedy.split("; "):
        cluster.execute(statement)
    assert not any("other installations" in each.text for each in examine(two))
    _check_logins(two)


def test_a_role_with_a_dsn_of_its_own_gets_no_login(cluster: Cluster, tmp_path: Path) -> None:
    dsn = _database(cluster, "admin", "superuser", owned=False)
    said = _run(_settings(tmp_path, dsn, WALDEN_DATABASE_HISTORY_DSN=make_conninfo(dsn, application_name="mine")))
    made = [sentence for sentence in said if sentence.startswith("made login ")]
    assert len(made) == 5
    assert not any("_history" in sentence for sentence in made)


def test_a_login_of_the_administrators_own_is_let_in(cluster: Cluster, tmp_path: Path) -> None:
    dsn = _database(cluster, "admin", "superuser", owned=False)
    user = f"analyst_{next(_numbers)}"
    cluster.execute(f"create role {user} login password 'p'")
    own = make_conninfo(dsn, user=user, password="p")
    settings = _settings(tmp_path, dsn, WALDEN_DATABASE_HISTORY_DSN=own)
    _run(settings)
    psycopg.connect(own).close()
    _check_closed(cluster, str(psycopg.conninfo.conninfo_to_dict(dsn)["dbname"]))


def test_two_ways_to_two_databases_are_refused(cluster: Cluster, tmp_path: Path) -> None:
    direct, other = (_database(cluster, "admin", "superuser", owned=False) for _ in range(2))
    settings = _settings(tmp_path, direct, WALDEN_DATABASE_DIRECT_DSN=direct)
    _run(settings)
    login = str(psycopg.conninfo.conninfo_to_dict(settings.dsn("writer"))["user"])
    there = str(psycopg.conninfo.conninfo_to_dict(other)["dbname"])
    cluster.execute(f'grant connect on database {there} to "{login}"')
    wrong = _settings(tmp_path, other, WALDEN_DATABASE_DIRECT_DSN=direct)
    with pytest.raises(InitialiseError, match="two databases"):
        _run(wrong)
    assert any("two databases" in one.text for one in examine(wrong) if one.level == "error")


def test_the_database_of_another_server_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    dsn = _database(cluster, "admin", "superuser", owned=False)
    _run(_settings(tmp_path / "one", dsn, WALDEN_SERVER_NAME="one.example"))
    with pytest.raises(WrongInstallation, match=r"belongs to the server one\.example"):
        _run(_settings(tmp_path / "two", dsn, WALDEN_SERVER_NAME="two.example"))
    three = _settings(tmp_path / "three", dsn, WALDEN_SERVER_NAME="one.example")
    make_key(three.server.signing_key)
    with pytest.raises(WrongInstallation, match="signed with"):
        _run(three)


def test_a_key_that_is_lost_is_asked_for_and_no_other_is_made(cluster: Cluster, tmp_path: Path) -> None:
    settings = _settings(tmp_path, _database(cluster, "admin", "superuser", owned=False))
    key = settings.server.signing_key
    assert any(str(key) in sentence and "keep a copy" in sentence for sentence in _run(settings))
    content = key.read_bytes()
    key.unlink()
    for again in (_settings(tmp_path, settings.dsn()), _settings(tmp_path / "elsewhere", settings.dsn())):
        with pytest.raises(WrongInstallation, match=r"there is no file .* put the original key file back"):
            _run(again)
        assert not again.server.signing_key.exists()
    key.write_bytes(content)
    assert _run(settings) == []


def test_logins_lost_with_their_cluster_are_made_again_with_the_kept_passwords(
    cluster: Cluster, tmp_path: Path
) -> None:
    settings = _settings(tmp_path, _database(cluster, "admin", "superuser", owned=False))
    _run(settings)
    before = settings.dsn("writer")
    login = psycopg.conninfo.conninfo_to_dict(before)["user"]
    cluster.execute(f'revoke all on database {psycopg.conninfo.conninfo_to_dict(before)["dbname"]} from "{login}"')
    cluster.execute(f'drop role "{login}"')
    assert _run(settings) == [f"made login {login}"]
    assert settings.dsn("writer") == before
    psycopg.connect(before).close()


def test_a_write_transaction_held_open_by_somebody_else_is_waited_for(cluster: Cluster, tmp_path: Path) -> None:
    settings = _settings(tmp_path, _database(cluster, "admin", "superuser", owned=False))
    said: list[str] = []
    waiting = threading.Event()

    def say(sentence: str) -> None:
        said.append(sentence)
        if sentence.startswith("waiting: "):
            waiting.set()

    with psycopg.connect(cluster.dsn()) as other:
        other.execute("select pg_current_xact_id()")
        init = threading.Thread(target=initialise_waiting, args=(settings, say), daemon=True)
        init.start()
        assert waiting.wait(30)
        assert init.is_alive()
    init.join(30)
    assert not init.is_alive()
    assert any("a write transaction is open" in sentence for sentence in said)
    assert sum("made replication slot" in sentence for sentence in said) == 2
