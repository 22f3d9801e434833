"""The SQL script with which a database administrator makes Walden's roles and database, once; all else needs only their rights.

Invariant: it can be run again, and then changes nothing but the passwords, to what they were; it holds none, only SCRAM verifiers.
It is written for psql, because the names of the logins carry the OID of a database that does not exist yet.
"""

from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from bin.logins import GROUPS, keep_for_later, verifier
from eventlog.configuration import ConfigurationError, Settings
from eventlog.pools import SESSION

HEAD = """\
-- The roles and the database of the Walden server {server}. Run it with psql, connected to any database of the cluster:
--
--     psql -d postgres -f walden.sql
--
-- as a superuser, or from PostgreSQL 16 on as a role with CREATEDB, CREATEROLE and REPLICATION. (15 lets only a superuser give
-- REPLICATION.) It can be run again. Passwords are in it as SCRAM verifiers alone; Walden keeps them in its data directory.
-- Afterwards `walden init`, as {owner}, needs no rights but its own.
\\set ON_ERROR_STOP on
"""

GROUP = """
-- {group}: {what}. Shared by all Walden databases of the cluster; what it may do is granted in each.
select 'create role {group} nologin' where not exists (select from pg_roles where rolname = '{group}') \\gexec
"""

WHAT = {
    "walden_writer": "API processes, for what changes something",
    "walden_roomserver": "the room server",
    "walden_reader": "what reads and answers",
    "walden_maintenance": "maintenance, and people who may scrub",
    "walden_history": "people who query the schema history",
}


def script(settings: Settings) -> str:
    """The script for the database and owner that database.dsn names. Raises ConfigurationError when it does not name them.

    The passwords of the logins are kept in the data directory until `walden init` finds the logins made.
    """
    if settings.embedded:
        raise ConfigurationError("the embedded database needs no script: set database.dsn to the database to be made")
    dsn = conninfo_to_dict(settings.dsn(direct=True))
    lacking = [name for name in ("dbname", "user", "password") if not dsn.get(name)]
    if lacking:
        raise ConfigurationError(f"database.dsn must name the database and its owner-to-be: it lacks {lacking}")
    database, owner = str(dsn["dbname"]), str(dsn["user"])
    parts = [HEAD.format(server=settings.server.name, owner=owner)]
    parts += [GROUP.format(group=group, what=WHAT[group]) for group in GROUPS.values()]
    parts.append(_database(database, owner, str(dsn["password"])))
    parts += [_login(database, role, password) for role, password in keep_for_later(settings).items()]
    return "".join(parts)


def _database(database: str, owner: str, password: str) -> str:
    name, role = sql.Identifier(database).as_string(None), sql.Identifier(owner).as_string(None)
    groups = ", ".join(GROUPS.values())
    # ruff: noqa: S608 - identifiers and literals are quoted by psycopg.
    return f"""
-- {owner}: owns the database, migrates, and gives the groups their rights.
select {_literal(f"create role {role} login")} where not exists (select from pg_roles where rolname = {_literal(owner)}) \\gexec
alter role {role} password {_literal(verifier(password))};
-- Who is no superuser must be able to act as the owner to give it a database.
select {_literal(f"grant {role} to current_user")} where not (select rolsuper from pg_roles where rolname = current_user) \\gexec
select {_literal(f"create database {name} owner {role} encoding 'UTF8' locale 'C' template template0")}
where not exists (select from pg_database where datname = {_literal(database)}) \\gexec
grant {groups} to {role};

-- Only Walden's own logins get in, and the people whom you let in with `grant connect on database`.
revoke all on database {name} from public;
select oid as walden_oid from pg_database where datname = {_literal(database)} \\gset
"""


def _login(database: str, role: str, password: str) -> str:
    group = GROUPS.get(role, "")
    suffix = _literal(f"_{role}")
    name = f"'walden_' || :walden_oid || {suffix}"
    attributes = "login" if group else "login noinherit replication"
    lines = [
        f"\n-- The login for {role}." if group else "\n-- The login for walsenders alone: it decodes every table.",
        f"select format('create role %I {attributes}', {name})",
        f"where not exists (select from pg_roles where rolname = {name}) \\gexec",
        f"select format('alter role %I password %L', {name}, {_literal(verifier(password))}) \\gexec",
        f"select format('grant connect on database %I to %I', {_literal(database)}, {name}) \\gexec",
    ]
    if group:
        lines.append(f"select format('grant {group} to %I', {name}) \\gexec")
    if group and role != "history":
        lines.append("-- Not only from the client: what goes through a pooler comes without options.")
        values = ", ".join(f"({_literal(key)}, {_literal(value)})" for key, value in SESSION.items())
        lines.append(f"select format('alter role %I set %I = %L', {name}, s.name, s.value)")
        lines.append(f"from (values {values}) as s (name, value) \\gexec")
    return "\n".join([*lines, ""])


def _literal(text: str) -> str:
    return sql.Literal(text).as_string(None)
