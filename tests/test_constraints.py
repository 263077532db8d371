"""The pinned versions install on every Python that is promised."""

import re
import tomllib
from importlib import metadata

from packaging.specifiers import SpecifierSet

from tests.support.networks import ROOT


def test_pinned_versions_are_for_the_oldest_python_too() -> None:
    # Debian 12 has 3.11.2. There pip calls a pin for 3.11.5 a conflict of other packages.
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    oldest = project["requires-python"].removeprefix(">=") + ".0"
    pins = re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    installed = {found.name.lower().replace("_", "-"): found for found in metadata.distributions()}
    found = {
        name: installed[name] for name, version in pins if name in installed and installed[name].version == version
    }
    assert len(found) > 40, sorted(name for name, _ in pins if name not in found)
    needs = {name: each.metadata["Requires-Python"] for name, each in found.items()}
    assert not {name: need for name, need in needs.items() if need and oldest not in SpecifierSet(need)}
