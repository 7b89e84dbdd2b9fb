"""PII through Presidio: the findings of its AnalyzerEngine, with less work for the same result.

`default.yaml` which recognizers and model (the place to add one); `configuration.py` from files to an engine;
`selection.py` what a request asks of it; `pipeline.py` the spaCy pipeline in batches;
`context.py` context words in long texts; `search.py` the search itself.
"""
