"""What README tells people to paste works on the running product."""

import re
from pathlib import Path

import pytest

from healthguard.local.stack import ROOT
from models import artifact
from tests import committed
from tests.integration.local.product import Up

pytestmark = pytest.mark.timeout(240)


def test_python_example_predicts(
    product: Up, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As it stands, but for the address and the person: it logs in, predicts, and prints the outcome."""
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    for stands_for, here in {
        "http://127.0.0.1:8004": product.url,
        "you@example.org": product.facts["email"],
    }.items():
        assert stands_for in example
        example = example.replace(stands_for, here)
    case = artifact.golden(committed.folder("cancer")).cases[0]
    (tmp_path / "picture.png").write_bytes(case.path.read_bytes())
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "README.md", "exec"), {"password": product.facts["password"]})
    assert capsys.readouterr().out.startswith(f"{case.label} ")
