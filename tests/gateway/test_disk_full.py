"""A full disk of the database: one error in the log, with the remedy."""

import httpx2
import psycopg

from tests.gateway.conftest import Start, eventually

ACCOUNT = {"email": "ada@example.com", "password": "a sentence that only I know", "displayName": "Ada"}


def test_full_disk_is_reported_once_and_reads_go_on(start: Start, database_url: str, dsn: str) -> None:
    gateway = start(DATABASE_URL=database_url, LOG_FORMAT="json")
    with httpx2.Client(base_url=f"http://{gateway.address}", trust_env=False) as client:
        assert client.post("/v1/accounts", json=ACCOUNT).status_code == 200
        session = client.post("/v1/sessions", json={"email": ACCOUNT["email"], "password": ACCOUNT["password"]}).json()
        headers = {"authorization": f"Bearer {session['sessionToken']}"}
        with psycopg.connect(dsn, autocommit=True) as database:
            database.execute(
                "CREATE FUNCTION fill() RETURNS trigger LANGUAGE plpgsql AS "
                "$$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full'; END $$"
            )
            database.execute("CREATE TRIGGER full_disk BEFORE INSERT ON tasks FOR EACH ROW EXECUTE FUNCTION fill()")
        for _ in range(3):
            assert client.post("/v1/tasks", json={"title": "Mow"}, headers=headers).status_code == 503
        reported = gateway.event("database_disk_full")
        assert reported["level"] == "error"
        assert "Free space" in str(reported["remedy"])
        eventually(lambda: sum(event.get("sqlstate") == "53100" for event in gateway.events) == 3 or None, gateway)
        assert client.get("/v1/tasks", headers=headers).status_code == 200
        assert client.get("/readyz").status_code == 200
        assert sum(event["event"] == "database_disk_full" for event in gateway.events) == 1
