"""Nothing but the project's own error comes out of anything that reads what people write."""

import pytest

from tests.fuzzed_inputs import READERS, fuzz


@pytest.mark.parametrize("name", READERS)
def test_hostile_input_is_refused_in_words_and_some_is_accepted(name, tmp_path):
    accepted, refused = fuzz(READERS[name], tmp_path, range(400))
    assert accepted > 0
    assert refused > 0
