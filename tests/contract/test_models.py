"""The committed model versions: what they answer, by LiteRT, is what they say that they answer."""

import json
from pathlib import Path
from typing import Any

import cv2
import jsonschema
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray
from PIL import Image

from models import artifact

MODELS = Path(artifact.__file__).parent
SCHEMA = json.loads((MODELS / "contract.schema.json").read_text())
BYTES_MAX = 15_000_000
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


def test_committed_versions_are_small() -> None:
    """All version folders together fit the bound."""
    found = [artifact.read_manifest(path) for path in artifact.manifests(MODELS)]
    folders = [artifact.folder(MODELS, version) for manifest in found for version in manifest.versions]
    assert len(folders) >= 2
    assert sum(path.stat().st_size for folder in folders for path in artifact.files(folder)) <= BYTES_MAX


def test_version_folder_has_what_a_server_needs(served: Served) -> None:
    """Both formats, the contract, the card, the golden cases and the warm-up requests are there, and nothing else."""
    golden = {f"assets.extra/golden/{case.path.name}" for case in served.golden.cases}
    assert {path.relative_to(served.folder).as_posix() for path in artifact.files(served.folder)} == golden | {
        "saved_model.pb",
        "model.tflite",
        "assets.extra/contract.json",
        "assets.extra/card.md",
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
    assert card.read_text() == (MODELS / served.manifest.model / "card.md").read_text()
    assert served.contract["weights_digest"] in card.read_text()


def test_card_says_first_that_it_is_a_demonstration(served: Served) -> None:
    """Who reads one line learns that the model is no medical device."""
    first = (MODELS / served.manifest.model / "card.md").read_text().splitlines()[0]
    assert first == "Trained on synthetic phantoms: a demonstration, not for clinical use."
    assert served.contract["demonstration"] is True


def test_golden_cases_cover_every_class(served: Served) -> None:
    """There are at least four cases of each class, named after it, and some need resizing."""
    labels = [case.label for case in served.golden.cases]
    assert set(labels) == set(served.contract["labels"])
    assert min(labels.count(label) for label in set(labels)) >= 4
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


def strange() -> dict[str, NDArray[np.uint8]]:
    """Return images that are nothing a model here was made for."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, IMAGE_SHAPE, dtype=np.uint8)
    y, x = np.mgrid[:224, :224]
    ramp = np.stack([y, x, 223 - y], axis=-1)
    return {
        "noise": noise,
        "grey noise": np.repeat(noise[..., :1], 3, axis=-1),
        "black": np.zeros(IMAGE_SHAPE, np.uint8),
        "white": np.full(IMAGE_SHAPE, 255, np.uint8),
        "checkerboard": np.repeat(((y // 16 + x // 16) % 2 * 255)[..., None], 3, axis=-1).astype(np.uint8),
        "ramp": ramp.astype(np.uint8),
    }


@pytest.mark.parametrize("kind", sorted(strange()))
def test_strange_images_are_indeterminate(served: Served, kind: str) -> None:
    """What no phantom looks like gets no finding."""
    answer = served.run("serving_default", image=strange()[kind][None])
    assert served.label(float(answer["probability"][0]), float(answer["ood_score"][0])) == "Indeterminate"


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
