"""The committed model versions: what they answer, by LiteRT, is what they say that they answer."""

import json
import os
from pathlib import Path
from typing import Any

import cv2
import jsonschema
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray
from PIL import Image

from models import artifact, exam
from models.catalog import PURPOSES

MODELS = Path(artifact.__file__).parent
SCHEMA = json.loads((MODELS / "contract.schema.json").read_text())
BYTES_MAX = 5_000_000
"""Of one version; what is committed is downloaded by everybody."""

IMAGE_SHAPE = (224, 224, 3)


class Served:
    """A committed version and its LiteRT file, loaded."""

    def __init__(self, manifest: artifact.Manifest) -> None:
        """Load the stable version that *manifest* names."""
        self.manifest = manifest
        self.version = manifest.version(manifest.stable)
        self.folder = artifact.folder(MODELS, self.version)
        self.contract = json.loads((self.folder / "assets.extra" / "contract.json").read_text())
        self.golden = artifact.golden(self.folder)
        self.interpreter = Interpreter(model_path=str(self.folder / "model.tflite"), num_threads=1)

    def run(self, signature: str, **inputs: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Run a signature."""
        return dict(self.interpreter.get_signature_runner(signature)(**inputs))

    def label(self, probability: float, ood_score: float) -> str:
        """Return the outcome by the contract."""
        if ood_score > self.contract["out_of_distribution"]["limit"]:
            return "Indeterminate"
        index = sum(threshold <= probability for threshold in self.contract["thresholds"])
        return str(self.contract["labels"][index])


@pytest.fixture(scope="module", params=["anemia", "cancer"])
def served(request: pytest.FixtureRequest) -> Served:
    """Return each committed model."""
    return Served(artifact.read_manifest(MODELS / request.param / artifact.MANIFEST_NAME))


def prepared(path: Path) -> NDArray[np.uint8]:
    """Decode and resize a file as the contracts say: RGB, area, stretched."""
    with Image.open(path) as file:
        image = np.asarray(file.convert("RGB"))
    return np.asarray(cv2.resize(image, (224, 224), interpolation=cv2.INTER_AREA), np.uint8)


def test_committed_versions_are_what_their_manifests_vouch_for(served: Served) -> None:
    """The digest of each committed folder is in the manifest beside it."""
    artifact.verify(served.folder, served.version)


def test_committed_version_is_small(served: Served) -> None:
    """The files of a version together fit the bound."""
    assert sum(path.stat().st_size for path in artifact.files(served.folder)) <= BYTES_MAX


def test_version_folder_has_what_a_server_needs(served: Served) -> None:
    """Both formats, the contract, the card, the golden cases and the warm-up requests are there, and nothing else."""
    golden = {f"assets.extra/golden/{case.path.name}" for case in served.golden.cases}
    assert {path.relative_to(served.folder).as_posix() for path in artifact.files(served.folder)} == golden | {
        "saved_model.pb",
        "model.tflite",
        "assets.extra/contract.json",
        "assets.extra/card.md",
        "assets.extra/card.fr.md",
        "assets.extra/golden/cases.json",
        "assets.extra/tf_serving_warmup_requests",
    }


def test_signatures_have_the_names_of_the_design(served: Served) -> None:
    """The three signatures have exactly these inputs and outputs."""
    assert served.interpreter.get_signature_list() == {
        "serving_default": {"inputs": ["image"], "outputs": ["ood_score", "probability"]},
        "explain": {"inputs": ["image"], "outputs": ["heatmap"]},
        "contract": {"inputs": ["n"], "outputs": ["json"]},
    }


@pytest.mark.parametrize("rows", [1, 3])
def test_outputs_have_shapes_and_types_of_the_design(served: Served, rows: int) -> None:
    """Every output has one element, map or text for each row."""
    images = np.zeros((rows, *IMAGE_SHAPE), np.uint8)
    answer, heatmap = served.run("serving_default", image=images), served.run("explain", image=images)["heatmap"]
    assert {name: (value.shape, str(value.dtype)) for name, value in answer.items()} == {
        "probability": ((rows,), "float32"),
        "ood_score": ((rows,), "float32"),
    }
    assert (heatmap.shape, str(heatmap.dtype)) == ((rows, *served.contract["explain"]["grid"]), "float32")


@pytest.mark.parametrize("rows", [1, 3])
def test_contract_signature_answers_the_contract(served: Served, rows: int) -> None:
    """The text in the graph is the file, once for each row, and passes the schema."""
    texts = served.run("contract", n=np.zeros(rows, np.int32))["json"]
    assert texts.shape == (rows,)
    assert {bytes(text) for text in texts} == {(served.folder / "assets.extra" / "contract.json").read_bytes()}
    jsonschema.Draft202012Validator(SCHEMA).validate(json.loads(texts[0]))


def test_contract_is_of_this_version(served: Served) -> None:
    """Contract, manifest and card name the same model, version and bytes."""
    assert (served.contract["model"], served.contract["version"]) == (served.manifest.model, served.version.number)
    card = served.folder / "assets.extra" / "card.md"
    assert served.contract["card_digest"] == "sha256:" + artifact.sha256(card)
    for name in ("card.md", "card.fr.md"):
        text = (served.folder / "assets.extra" / name).read_text()
        assert text == (MODELS / served.manifest.model / name).read_text()
        assert served.contract["weights_digest"] in text


def test_card_says_first_that_it_is_a_demonstration(served: Served) -> None:
    """Who reads one line learns that the model is no medical device."""
    lines = [(MODELS / served.manifest.model / name).read_text().splitlines()[0] for name in ("card.md", "card.fr.md")]
    assert lines == [
        "Trained on synthetic phantoms: a demonstration, not for clinical use.",
        "Entraîné sur des fantômes synthétiques : une démonstration, pas d'usage clinique.",
    ]
    assert served.contract["demonstration"] is True


def test_golden_cases_cover_every_class(served: Served) -> None:
    """There are at least twenty cases, as many of each class, named after it, and some need resizing."""
    labels = [case.label for case in served.golden.cases]
    assert set(labels) == set(served.contract["labels"])
    assert len(labels) >= 20
    assert len({labels.count(label) for label in set(labels)}) == 1
    assert all(case.path.name.startswith(f"{case.label.lower()}-") for case in served.golden.cases)
    sizes = set()
    for case in served.golden.cases:
        with Image.open(case.path) as image:
            sizes.add(image.size)
    assert (224, 224) in sizes
    assert len(sizes) >= 2


def test_golden_cases_give_the_committed_answers(served: Served) -> None:
    """Through decode and resize, each case gives its own numbers and its own class, and is familiar."""
    for case in served.golden.cases:
        answer = served.run("serving_default", image=prepared(case.path)[None])
        probability, ood_score = float(answer["probability"][0]), float(answer["ood_score"][0])
        assert probability == pytest.approx(case.probability, abs=served.golden.tolerance), case.path.name
        assert ood_score == pytest.approx(case.ood_score, abs=served.golden.tolerance), case.path.name
        assert served.label(probability, ood_score) == case.label, case.path.name


def test_rows_of_a_batch_do_not_touch_each_other(served: Served) -> None:
    """A row's answer is the same alone and among others."""
    images = np.stack([prepared(case.path) for case in served.golden.cases[::3]])
    together = served.run("serving_default", image=images)["probability"].copy()
    alone = [float(served.run("serving_default", image=image[None])["probability"][0]) for image in images]
    assert together == pytest.approx(alone, abs=1e-5)


def test_heatmaps_are_within_bounds_and_point_somewhere(served: Served) -> None:
    """A heat map lies in 0..1; that of the highest score has a brightest cell of 1."""
    case = max(served.golden.cases, key=lambda case: case.probability)
    heatmap = served.run("explain", image=prepared(case.path)[None])["heatmap"]
    assert heatmap.min() >= 0
    assert heatmap.max() == pytest.approx(1, abs=1e-3)


PROVE = os.environ.get("HEALTHGUARD_PROVE") == "1"
SIZES = exam.Sizes(test=3000, baseline=3000, strange=400) if PROVE else exam.Sizes(test=120, baseline=96, strange=32)
FIGURES = {
    "cancer": {"AUC": 0.95, "pointing game, on positives": 0.85, "accuracy": 0.85},
    "anemia": {"accuracy": 0.85},
}
"""Figures that a version must reach: aims in full, and no more than half the gap to them for small numbers."""


PASSED_OVER = {
    "own phantoms blurred by 3 pixels": 0.90,
    "own phantoms turned by 90 degrees": 0.70,
    "own phantoms upside down": 0.45,
    "own phantoms inverted": 0.90,
    "own phantoms cut in tiles and shuffled": 0.85,
}
"""What of its own the anemia model does not refuse 99 % of, as its card says, and what it refuses at the least."""


@pytest.fixture(scope="module")
def examined(served: Served) -> dict[str, Any]:
    """Return the figures of a version on phantoms that nobody has seen: thousands under `make prove`, few otherwise."""
    return exam.examine(served.folder, PURPOSES[served.manifest.model], SIZES, seed=exam.SEEDS_FROM + 40)


def test_figures_on_fresh_phantoms_reach_their_aims(served: Served, examined: dict[str, Any]) -> None:
    """What the card says holds on other phantoms; where they are few, the interval must reach the aim."""
    for name, aim in FIGURES[served.manifest.model].items():
        figure = examined["figures"][name]
        assert figure["value" if PROVE else "high"] >= aim, (name, figure)


def test_scores_are_calibrated(examined: dict[str, Any]) -> None:
    """Scores come true about as often as they say; with few phantoms bins of one or two cases add to the error."""
    assert examined["figures"]["expected calibration error"]["value"] <= (0.03 if PROVE else 0.15)


def test_strange_images_are_indeterminate(served: Served, examined: dict[str, Any]) -> None:
    """Noise, blanks, spoiled phantoms and the other model's images get no finding, but for what the card owns up to."""
    shares = {kind: found["share"] for kind, found in examined["refused"].items() if "its own" not in kind}
    assert len(shares) >= 11
    least = PASSED_OVER if served.manifest.model == "anemia" else {}
    assert {kind: share for kind, share in shares.items() if share < least.get(kind, 0.99)} == {}


def test_true_phantoms_are_seldom_refused(examined: dict[str, Any]) -> None:
    """Few of the model's own phantoms are Indeterminate."""
    assert examined["refused"]["phantoms of its own"]["share"] <= (0.02 if PROVE else 0.05)


def test_baselines_stay_far_behind(examined: dict[str, Any]) -> None:
    """Neither thumbnails nor colours tell what the model tells."""
    assert max(examined["baselines"].values()) <= 0.80


def test_images_of_the_other_model_are_indeterminate(served: Served) -> None:
    """An eyelid is not judged by the cancer model, nor a mammogram by the anemia model."""
    other = {"cancer": "anemia", "anemia": "cancer"}[served.manifest.model]
    for case in Served(artifact.read_manifest(MODELS / other / artifact.MANIFEST_NAME)).golden.cases:
        answer = served.run("serving_default", image=prepared(case.path)[None])
        assert served.label(float(answer["probability"][0]), float(answer["ood_score"][0])) == "Indeterminate"


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((1, *IMAGE_SHAPE), np.float32),
        np.zeros(IMAGE_SHAPE, np.uint8),
        np.zeros((1, 224, 224, 1), np.uint8),
        np.zeros((1, 32, 32, 3), np.uint8),
    ],
    ids=["floats", "no batch dimension", "one channel", "another size"],
)
def test_malformed_image_is_an_error(served: Served, image: NDArray[Any]) -> None:
    """The graph takes images of its one shape and type, and the interpreter is unhurt by others."""
    with pytest.raises((ValueError, RuntimeError)):
        served.run("serving_default", image=image)
    fine = served.run("serving_default", image=np.zeros((1, *IMAGE_SHAPE), np.uint8))
    assert np.isfinite(fine["probability"]).all()
