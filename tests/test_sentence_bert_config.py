from __future__ import annotations

from fusebench.methods.sentence_bert_config import stated_lower_case, stated_max_length


def test_settings_of_sentence_transformers_are_read_and_may_be_absent(tmp_path):
    assert (stated_max_length(tmp_path), stated_lower_case(tmp_path)) == (None, False)
    settings = tmp_path / "sentence_bert_config.json"
    settings.write_text('{"max_seq_length": 77, "do_lower_case": true}')
    assert (stated_max_length(tmp_path), stated_lower_case(tmp_path)) == (77, True)
    settings.write_text('{"max_seq_length": null}')
    assert (stated_max_length(tmp_path), stated_lower_case(tmp_path)) == (None, False)
