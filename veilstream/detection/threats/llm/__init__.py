"""The LLM classifier, the last layer: asks providers by their SDKs whether texts attack a language model.

    judge.py        what becomes of a record: who is asked, in which order, until when
    provider.py     one provider: attempts, time, breaker; by_anthropic.py, by_openai.py, by_gemini.py speak the protocols
    prompt.py       what is sent, and what an answer must be; masking.py takes PII out first
    steering.py     signs that a text is aimed at the judge
    configured.py   all of it from settings

Nothing here can make a verdict milder: an answer adds a threat or adds nothing.
"""
