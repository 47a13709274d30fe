"""Resources as people write them, and as vectors."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jarvis.core import resources as vector
from jarvis.core.errors import InvalidValue

VECTORS = st.dictionaries(st.sampled_from(["cpu", "memory", "gpu", "licence"]), st.integers(0, 1 << 40))


@pytest.mark.parametrize(("text", "amount"), [
    (536870912, 536870912), ("512Mi", 512 << 20), ("4G", 4 * 10**9), ("4Gi", 4 << 30), ("1.5k", 1500), ("7", 7),
    (" 2MiB ", 2 << 20), (0, 0),
])  # fmt: skip
def test_bytes(text: object, amount: int) -> None:
    assert vector.parse_bytes(text) == amount


@pytest.mark.parametrize("text", ["", "x", "-1", -1, "4X", "4i", True, 1.5, None, 1 << 60, "99999999P", "1 2"])
def test_what_is_no_size_is_refused_by_the_name_of_its_field(text: object) -> None:
    with pytest.raises(InvalidValue) as refused:
        vector.parse_bytes(text, "resources.memory")
    assert refused.value.field == "resources.memory"


@pytest.mark.parametrize(
    ("text", "amount"), [(2, 2000), (0.5, 500), ("1000m", 1000), ("2", 2000), ("0.1", 100), (0, 0)]
)
def test_thousandths(text: object, amount: int) -> None:
    assert vector.parse_thousandths(text) == amount


@pytest.mark.parametrize(
    "text", ["", "x", -1, "-1", "nan", "inf", True, None, 0.0001, "1e300", [1], float("nan"), "99999999999999999999m"]
)
def test_what_is_no_amount_is_refused(text: object) -> None:
    with pytest.raises(InvalidValue):
        vector.parse_thousandths(text)


def test_a_vector_leaves_zeros_out() -> None:
    given_ = {"cpu": "500m", "memory": "1Ki", "gpu": 0, "licence": 2}
    assert vector.parse_resources(given_) == {"cpu": 500, "memory": 1024, "licence": 2000}


@pytest.mark.parametrize("name", ["", "CPU", "1x", "a b", "x" * 64])
def test_names(name: str) -> None:
    with pytest.raises(InvalidValue):
        vector.parse_resources({name: 1})


@pytest.mark.parametrize(("name", "amount", "text"), [
    ("cpu", 1500, "1.5"), ("memory", 512 << 20, "512Mi"), ("memory", 3 << 40, "3Ti"), ("memory", 1 << 30, "1Gi"),
    ("memory", 2048, "2Ki"), ("memory", 7, "7"),
])  # fmt: skip
def test_as_people_write_it(name: str, amount: int, text: str) -> None:
    assert vector.format_amount(name, amount) == text


@given(st.sampled_from(["memory", "cpu"]), st.integers(0, vector.parse_bytes("8000Ti")))
def test_what_is_written_is_read_as_that_and_is_hardly_less(name: str, amount: int) -> None:
    told = vector.written(name, amount)
    assert amount - amount / 1000 <= told <= amount
    if name == "memory":
        text = vector.format_amount(name, told)
        assert vector.parse_bytes(int(text) if text.isdigit() else text) == told


@given(VECTORS, VECTORS)
def test_what_is_taken_and_given_back_is_as_before(left: dict[str, int], right: dict[str, int]) -> None:
    back = vector.subtract(vector.add(left, right), right)
    assert {n: a for n, a in back.items() if a} == {n: a for n, a in left.items() if a}
    assert vector.fits(right, vector.add(left, right))
    assert vector.fits(right, left) == (not vector.shortages(right, left))
