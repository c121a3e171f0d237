from uuid import RFC_4122, UUID

from accord_db.engine.ids import uuid7


def test_id_is_a_uuid_of_version_7() -> None:
    made = uuid7()
    assert type(made) is UUID
    assert (made.version, made.variant) == (7, RFC_4122)


def test_ids_sort_by_time_of_creation() -> None:
    made = [uuid7() for _ in range(10_000)]
    assert len(set(made)) == len(made)
    assert [each.time_low for each in made] == sorted(each.time_low for each in made)
