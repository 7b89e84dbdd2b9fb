"""PII through Presidio: the findings of its AnalyzerEngine, with less work for the same result.

`default.yaml` which recognizers and model (the place to add one); `configuration.py` from files to an engine;
`search.py` the steps of the search; `selection.py` what a request asks of it; `prefilter.py`, `weaken.py` and `phone.py` which
recognizers can match; `pipeline.py` the spaCy pipeline by parts, with `tok2vec.py` and `names.py` for its entities;
`lemmas.py` and `context.py` context words.
"""
