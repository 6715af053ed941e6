"""What is refused before a campaign is on disk, beyond what a campaign file alone can be told for."""

from pathlib import Path

import pytest
import torch
from small_campaigns import document

from orchestrator.assembly import preflight
from orchestrator.config import parse_settings
from orchestrator.errors import ConfigError
from orchestrator.home import Home


@pytest.mark.parametrize("address", ["in_process", "local"])
def test_a_precision_that_the_hardware_lacks_is_refused(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict, raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    data = document(tiny_base, phase={"precision": "bfloat16"}, resources={"address": address})
    with pytest.raises(ConfigError, match=r"phase\.precision: bfloat16 needs hardware"):
        preflight(parse_settings(data, source="here.yaml"), Home(tmp_path / "home"))
