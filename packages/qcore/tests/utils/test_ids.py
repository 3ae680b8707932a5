"""Ids."""

from uuid import UUID

import pytest

from qcore.utils.ids import is_uuid, uuid


def test_ids_are_random_uuids_of_version_four():
    ids = [uuid() for _ in range(500)]
    assert len(set(ids)) == 500
    assert all(str(UUID(one)) == one and UUID(one).version == 4 for one in ids)
    assert all(UUID(one).variant == UUID(int=0x8 << 60).variant for one in ids)


@pytest.mark.parametrize("text", ["", "x", None, 3])
def test_other_things_are_no_uuids(text):
    assert not is_uuid(text)


def test_a_uuid_is_one():
    assert is_uuid(uuid())
