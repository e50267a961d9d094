"""Read `/metrics` of a server."""

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.helpers.served import Served


def samples(served: Served, name: str) -> dict[tuple[tuple[str, str], ...], float]:
    """Return the samples of a name by their labels."""
    text = httpx.get(f"{served.url}/metrics", trust_env=False).raise_for_status().text
    return {
        tuple(sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name
    }
