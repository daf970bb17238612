"""Write the model cards from the training record, so that no figure on them was typed by hand."""

from collections.abc import Callable, Iterable
from types import MappingProxyType
from typing import Any

from models.card_texts import ABOUT, FRENCH, INT8, TEMPLATES
from models.catalog import SIDE_PX, Purpose

NAMES: MappingProxyType[str, str] = MappingProxyType({"en": "card.md", "fr": "card.fr.md"})
"""File names of the cards by language."""

Words = Callable[[str], str]


def render(purpose: Purpose, record: dict[str, Any], language: str) -> str:
    """
    Return the card as Markdown in *language*, "en" or "fr".

    Source of the sections: Mitchell et al., "Model cards for model reporting" (2019), and the logical model ModelCard
    of HL7's "AI Transparency on FHIR" (1.0.0-ballot).

    Raises:
        KeyError: there is no card in this language, or the record lacks a figure.
    """
    words: Words = (lambda name: FRENCH.get(name, name)) if language == "fr" else (lambda name: name)
    sets = record["phantoms"]
    return TEMPLATES[language].format(
        **ABOUT[purpose.model, language],
        model=purpose.model,
        version=purpose.version,
        task=purpose.task,
        labels=", ".join(purpose.labels),
        seed=record["seed"],
        side=SIDE_PX,
        weights=record["weights_digest"],
        parameters=f"{record['parameters']:,}",
        phantoms=sets["version"],
        training=f"{sets['training']:,}",
        validation=f"{sets['validation']:,}",
        test=f"{sets['test']:,}",
        temperature=f"{record['temperature']:.3f}",
        limit=f"{record['ood_limit']:.3f}",
        figures=_rows((words(name), _span(figure)) for name, figure in record["figures"].items()),
        baselines=_rows((words(name), f"{area:.3f}") for name, area in record["baselines"].items()),
        calibration=_rows((words(name), f"{error:.3f}") for name, error in record["calibration"].items()),
        refused=_rows(
            (words(kind), found["images"], f"{found['share']:.3f}") for kind, found in record["refused"].items()
        ),
        int8=_int8(record["int8"], INT8[language]) if "int8" in record else "",
        subgroups=_rows(
            (words(kind), words(name), _span(figure), figure["cases"])
            for kind, groups in record["subgroups"].items()
            for name, figure in groups.items()
        ),
    )


def _int8(cost: dict[str, Any], template: str) -> str:
    """Return the section on 8 bits, which only versions that were exported so have."""
    size, taken = cost["bytes"], cost["milliseconds"]
    return template.format(
        size=" | ".join(f"{size[kind]:,}" for kind in ("float", "int8")),
        taken=" | ".join(f"{taken[kind]:.1f}" for kind in ("float", "int8")),
        cases=cost["cases"],
        tolerance=cost["tolerance"],
        differences=_rows(
            (f"`{alias}`", f"{difference:.4f}", cost["within"][alias])
            for alias, difference in cost["differences"].items()
        ),
    )


def _rows(rows: Iterable[tuple[object, ...]]) -> str:
    return "\n".join("| " + " | ".join(str(cell) for cell in row) + " |" for row in rows)


def _span(figure: dict[str, float]) -> str:
    """Return a value and its interval, in signs that need no translation."""
    return f"{figure['value']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}]"
