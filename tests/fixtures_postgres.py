"""Databases for tests: a template with Walden's schema, and a fresh copy of it for each test that asks.

The server is the one bin/test started (pytest-postgresql's no-process fixtures); without one, as when pytest is run by
itself, a throwaway cluster is started for the session.
"""

import asyncio
import contextlib
import itertools
from collections.abc import Iterator

import psycopg
import pytest
from clusters import Cluster
from psycopg import sql
from psycopg.conninfo import make_conninfo
from pytest_postgresql import factories
from pytest_postgresql.executors import NoopExecutor

from eventlog.migrations import migrate
from eventlog.provision import Identity, provision

IDENTITY = Identity("test.example", "ed25519:a_test", "XGX0JRS2Af3be3knz2fBiRbApjm2Dh61gXDJA8kcJNI", 1)
"""Who the server of a `provisioned` database is. The key is the one of the specification's signing test vectors."""

_numbers = itertools.count(1)


def _migrate(*, host: str, port: str, user: str, password: str, dbname: str, autocommit: bool) -> None:
    # Roles belong to the whole cluster: workers of pytest-xdist must not make them at the same time.
    with psycopg.connect(
        host=host, port=port, user=user, password=password, dbname="postgres", autocommit=True
    ) as connection:
        connection.execute("select pg_advisory_lock(hashtext('walden tests: migrate'))")
        asyncio.run(migrate(make_conninfo(host=host, port=port, user=user, password=password, dbname=dbname)))


postgresql_migrated = factories.postgresql_noproc(load=[_migrate], dbname="walden")


@pytest.fixture(scope="session")
def own_cluster(request: pytest.FixtureRequest) -> Iterator[None]:
    """A cluster for the session where bin/test has started none; it outlives the template made in it."""
    options = request.config.option
    if options.postgresql_host:
        yield
        return
    with Cluster() as cluster:
        parts = psycopg.conninfo.conninfo_to_dict(cluster.dsn())
        for name in ("host", "port", "user", "password"):
            setattr(options, f"postgresql_{name}", str(parts[name]))
        yield


@pytest.fixture(scope="session")
def postgresql_server(own_cluster: None, request: pytest.FixtureRequest) -> NoopExecutor:
    """The server the tests share, with a template database that has been migrated."""
    server: NoopExecutor = request.getfixturevalue("postgresql_migrated")
    return server


@contextlib.contextmanager
def _fresh(server: NoopExecutor) -> Iterator[str]:
    name = f"{server.dbname}_{next(_numbers)}"
    login = {"host": server.host, "port": server.port, "user": server.user, "password": server.password}
    with psycopg.connect(**login, dbname="postgres", autocommit=True) as owner:
        # Copied by file: 10 MB of WAL for each would use up what the slots of servers that other tests share may hold back.
        owner.execute(
            sql.SQL("create database {} template {} strategy file_copy").format(
                sql.Identifier(name), sql.Identifier(server.template_dbname)
            )
        )
        try:
            yield make_conninfo(**login, dbname=name)
        finally:
            # A slot in use cannot be dropped, and a database with slots cannot either.
            owner.execute(
                "select pg_terminate_backend(pid, 5000) from pg_stat_activity where datname = %s and pid <> pg_backend_pid()",
                [name],
            )
            owner.execute(
                "select pg_drop_replication_slot(slot_name) from pg_replication_slots where database = %s", [name]
            )
            # Dropping waits for every session of the cluster, also for one of another test that is still authenticating.
            # The cluster is thrown away: a database that cannot go now may stay.
            owner.execute("set statement_timeout = '20s'")
            with contextlib.suppress(psycopg.errors.QueryCanceled):
                owner.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


@pytest.fixture
def database(postgresql_server: NoopExecutor) -> Iterator[str]:
    """DSN (superuser) of a fresh database with Walden's schema; it goes away with its sessions and slots."""
    with _fresh(postgresql_server) as dsn:
        yield dsn


@pytest.fixture(scope="module")
def module_database(postgresql_server: NoopExecutor) -> Iterator[str]:
    """The same, for all tests of one module: what they have in it must not depend on each other."""
    with _fresh(postgresql_server) as dsn:
        yield dsn


@pytest.fixture
def provisioned(database: str) -> str:
    """DSN of a fresh database that `walden init` would call done: identity, epoch, publications and durable slots."""
    asyncio.run(provision(database, database, IDENTITY, lock_timeout=60))
    return database
