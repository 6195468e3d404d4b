"""The shipped prompts: 200, varied, and in an order of which any part is."""

import re
from collections import Counter

from steering.prompting.prompts import draft_prompts, varied


def test_two_hundred_prompts_of_twenty_topics():
    prompts = draft_prompts()
    assert len({prompt.text for prompt in prompts}) == 200
    assert set(Counter(prompt.topic for prompt in prompts).values()) == {10}
    assert all(3 <= len(prompt.text.split()) <= 25 and prompt.text == prompt.text.strip() for prompt in prompts)


def test_no_two_are_nearly_the_same():
    words = [set(re.findall(r"\w+", prompt.text.lower())) for prompt in draft_prompts()]
    pairs = ((a, b) for i, a in enumerate(words) for b in words[:i])
    assert max(len(a & b) / len(a | b) for a, b in pairs) < 0.7


def test_any_part_is_varied_and_the_seed_decides():
    topic_of = {prompt.text: prompt.topic for prompt in draft_prompts()}
    for seed in range(3):
        assert len({topic_of[text] for text in varied(seed)[:20]}) == 20
        assert sorted(varied(seed)) == sorted(topic_of)
    assert varied(0) == varied(0) != varied(1)
