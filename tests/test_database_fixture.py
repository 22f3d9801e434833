import psycopg
import pytest

pytestmark = pytest.mark.postgres


def test_a_test_database_has_the_schema(database: str) -> None:
    with psycopg.connect(database) as connection:
        assert connection.execute("select to_regclass('eventlog.events')").fetchone() != (None,)


async def test_a_provisioned_database_has_its_slots(provisioned: str) -> None:
    async with await psycopg.AsyncConnection.connect(provisioned) as connection:
        cursor = await connection.execute(
            "select count(*) from pg_replication_slots where database = current_database()"
        )
        assert (await cursor.fetchone()) == (2,)
