"""Where pairs come from: what the fields beside the boxes mean."""

import pytest

from steering.errors import SteeringError
from steering.interface.train.pairs_source import PairsSource, ReadLimit


@pytest.mark.parametrize(
    ("text", "pairs"), [("", None), (None, None), (" ", None), ("2000", 2000), ("2,000", 2000), (" 2 000 ", 2000)]
)
def test_a_limit_is_read(text: str | None, pairs: int | None) -> None:
    assert ReadLimit.of(text) == ReadLimit(pairs)


def test_rows_are_drawn_where_the_page_says_so() -> None:
    assert ReadLimit.of("10", "drawn") == ReadLimit(10, drawn=True)
    assert ReadLimit.of("", "drawn") == ReadLimit()  # all of them


@pytest.mark.parametrize("text", ["many", "0", "-5", "1e3", "99999999999999999999", "٣٣٣٣٣٣٣", "60000"])
def test_an_unsound_limit_is_refused_in_one_sentence(text: str) -> None:
    with pytest.raises(SteeringError, match="Read at most"):
        ReadLimit.of(text)


@pytest.mark.parametrize(
    ("text", "id_"),
    [
        ("Some-Lab/hh.pairs_2", "hf://Some-Lab/hh.pairs_2"),
        (" https://huggingface.co/datasets/lab/pairs ", "hf://lab/pairs"),
        ("huggingface.co/datasets/lab/pairs/viewer", "hf://lab/pairs"),
        ("https://huggingface.co/datasets/lab/pairs/tree/main", "hf://lab/pairs"),
        ("https://huggingface.co/datasets/lab/pairs/blob/main/data/train.jsonl", "hf://lab/pairs/data/train.jsonl"),
        ("hf://datasets/lab/pairs", "hf://lab/pairs"),
        ("hf://lab/pairs/train.csv", "hf://lab/pairs/train.csv"),
    ],
)
def test_a_data_set_is_known_by_its_id_or_address(text: str, id_: str) -> None:
    assert PairsSource.of_hub(text) == PairsSource("hub", id_)


@pytest.mark.parametrize("text", ["pairs", "/home/me/pairs.csv", "C:\\pairs", "a/../b", "http://a.org/x", "~/x"])
def test_anything_else_is_no_data_set(text: str) -> None:
    with pytest.raises(SteeringError, match="owner/name"):
        PairsSource.of_hub(text)
