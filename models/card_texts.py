"""Hold what the model cards say in words, English and French; `card.py` adds what was measured."""

from types import MappingProxyType

ABOUT: MappingProxyType[tuple[str, str], dict[str, str]] = MappingProxyType(
    {
        ("cancer", "en"): {
            "title": "Breast cancer",
            "purpose": "Demonstration of serving a mammography classifier. Not for clinical use.",
            "input": "a mammogram, one view",
            "output": "the calibrated probability that the phantom is malignant",
            "data": (
                "Drawn mammograms: a breast in projection with glandular texture of a mammogram's power spectrum, four "
                "density classes, and one finding or none. Negative: no finding, a smooth mass, or coarse "
                "calcifications. Positive: a spiculated mass, or clustered microcalcifications. Both classes also have "
                "scattered fine calcifications, and masses of the same size and contrast. Detector gain, gamma, blur, "
                "noise and JPEG compression vary."
            ),
            "score": (
                "The score is the calibrated probability that the phantom is malignant. Positive from 0.5. Confidence "
                "is the score, or 1 minus the score for Negative."
            ),
            "factors": "Breast density (A to D), kind of finding, and side; tables below.",
            "limits": (
                "The phantoms are far simpler than mammograms: no ducts, vessels, muscle, implants, marks, compression "
                "artefacts, prior images or second view, and half of them are malignant. Nothing follows from these "
                "figures for real images."
            ),
        },
        ("cancer", "fr"): {
            "title": "Cancer du sein",
            "purpose": "Démonstration du service d'un classifieur de mammographies. Pas d'usage clinique.",
            "input": "une mammographie, une incidence",
            "output": "la probabilité calibrée que le fantôme soit malin",
            "data": (
                "Mammographies dessinées : un sein en projection, dont la texture glandulaire a le spectre de "
                "puissance d'une mammographie, quatre classes de densité, et une anomalie ou aucune. Négatif : rien, "
                "une masse "
                "lisse, ou de grosses calcifications. Positif : une masse spiculée, ou des microcalcifications "
                "groupées. Les deux classes ont aussi de fines calcifications éparses, et des masses de même taille "
                "et de même "
                "contraste. Gain et gamma du détecteur, flou, bruit et compression JPEG varient."
            ),
            "score": (
                "Le score est la probabilité calibrée que le fantôme soit malin. Positif à partir de 0,5. La confiance "
                "est le score, ou 1 moins le score pour Négatif."
            ),
            "factors": "Densité du sein (A à D), type d'anomalie et côté ; tableaux ci-dessous.",
            "limits": (
                "Les fantômes sont bien plus simples que des mammographies : ni canaux, ni vaisseaux, ni muscle, ni "
                "implants, ni marques, ni artefacts de compression, ni images antérieures, ni seconde incidence, et la "
                "moitié sont malins. Ces chiffres ne disent rien des images réelles."
            ),
        },
        ("anemia", "en"): {
            "title": "Anemia risk",
            "purpose": "Demonstration of serving an anemia risk model on photographs. Not for clinical use.",
            "input": "a photograph of a lower eyelid, a palm or a nail bed",
            "output": "a risk score that falls with hemoglobin",
            "data": (
                "Drawn photographs of a lower eyelid, a palm or a nail bed. Tissue absorbs light by hemoglobin times "
                "perfusion and by melanin; perfusion, the tissue's own colour, the lamp, the camera's white balance "
                "and the cloth beneath differ so much that the colour of the whole says little. Small vessels hold "
                "blood whatever the perfusion, and their contrast follows hemoglobin. Blur, noise and JPEG compression "
                "vary. A third of the phantoms each has 12 to 16, 8 to 12 and 4 to 8 g/dL."
            ),
            "score": (
                "The risk score falls with hemoglobin: 0.3 stands for 12 g/dL and 0.7 for 8 g/dL, the limits of no and "
                "of severe anemia in the WHO guideline of 2024 for non-pregnant women. LOW below 0.3, MEDIUM below "
                "0.7, HIGH from 0.7. It is not the probability of a disease. Confidence is the share of validation "
                "phantoms with such a score whose class was right."
            ),
            "factors": "Site, skin tone (Fitzpatrick, in pairs) and lighting; tables below.",
            "limits": (
                "Real pallor depends on much that is not drawn here: temperature, make-up, nail varnish, jaundice, "
                "inflammation, camera processing. In no photograph are vessels so plain, and each class is a third. "
                "Nothing follows from these figures for real images. A score is not a hemoglobin measurement."
            ),
        },
        ("anemia", "fr"): {
            "title": "Risque d'anémie",
            "purpose": (
                "Démonstration du service d'un modèle de risque d'anémie sur photographies. Pas d'usage clinique."
            ),
            "input": "une photographie d'une paupière inférieure, d'une paume ou d'un lit d'ongle",
            "output": "un score de risque qui baisse quand l'hémoglobine monte",
            "data": (
                "Photographies dessinées d'une paupière inférieure, d'une paume ou d'un lit d'ongle. Le tissu absorbe "
                "la lumière selon l'hémoglobine multipliée par la perfusion, et selon la mélanine ; perfusion, couleur "
                "propre du tissu, lampe, balance des blancs et drap varient tant que la couleur d'ensemble dit peu de "
                "chose. Les petits vaisseaux contiennent du sang quelle que soit la perfusion, et leur contraste suit "
                "l'hémoglobine. Flou, bruit et compression JPEG varient. Un tiers des fantômes a de 12 à 16, de 8 à 12 "
                "et de 4 à 8 g/dL."
            ),
            "score": (
                "Le score de risque baisse quand l'hémoglobine monte : 0,3 correspond à 12 g/dL et 0,7 à 8 g/dL, "
                "limites de l'absence d'anémie et de l'anémie sévère dans les recommandations de l'OMS de 2024 pour "
                "les femmes "
                "non enceintes. LOW sous 0,3, MEDIUM sous 0,7, HIGH à partir de 0,7. Ce n'est pas la probabilité d'une "
                "maladie. La confiance est la part des fantômes de validation de même score dont la classe était juste."
            ),
            "factors": "Site, teint (Fitzpatrick, par paires) et éclairage ; tableaux ci-dessous.",
            "limits": (
                "La pâleur réelle dépend de bien des choses absentes ici : température, maquillage, vernis, ictère, "
                "inflammation, traitement par l'appareil. Sur aucune photographie les vaisseaux ne sont si nets, et "
                "chaque classe compte pour un tiers. Ces chiffres ne disent rien des images réelles. Un score n'est "
                "pas un dosage d'hémoglobine."
            ),
        },
    }
)

FRENCH: MappingProxyType[str, str] = MappingProxyType(
    {
        "accuracy": "exactitude",
        "expected calibration error": "erreur de calibration attendue",
        "AUC": "aire sous la courbe ROC",
        "sensitivity at 90 % specificity": "sensibilité à 90 % de spécificité",
        "pointing game, on positives": "jeu du pointage, sur les positifs",
        "mean absolute error in g/dL": "erreur absolue moyenne en g/dL",
        "16 by 16 thumbnails": "vignettes de 16 par 16",
        "colour histograms": "histogrammes de couleurs",
        "none": "aucune",
        "temperature": "température",
        "temperature and shift": "température et décalage",
        "isotonic": "isotonique",
        "density": "densité",
        "finding": "anomalie",
        "side": "côté",
        "left": "gauche",
        "right": "droit",
        "smooth mass": "masse lisse",
        "coarse calcifications": "grosses calcifications",
        "spiculated mass": "masse spiculée",
        "clustered microcalcifications": "microcalcifications groupées",
        "site": "site",
        "conjunctiva": "conjonctive",
        "palm": "paume",
        "nail bed": "lit d'ongle",
        "skin tone": "teint",
        "lighting": "éclairage",
        "dim": "faible",
        "even": "moyen",
        "bright": "fort",
        "test phantoms of its own": "ses propres fantômes de test",
        "coloured noise": "bruit coloré",
        "grey noise": "bruit gris",
        "one colour": "une seule couleur",
        "one grey": "un seul gris",
        "checkerboards": "damiers",
        "the other model's phantoms": "fantômes de l'autre modèle",
        "own phantoms blurred by 3 pixels": "ses fantômes, flous de 3 pixels",
        "own phantoms blurred by 6 pixels": "ses fantômes, flous de 6 pixels",
        "own phantoms turned by 90 degrees": "ses fantômes tournés de 90 degrés",
        "own phantoms upside down": "ses fantômes à l'envers",
        "own phantoms inverted": "ses fantômes en négatif",
        "own phantoms cut in tiles and shuffled": "ses fantômes découpés et mélangés",
    }
)
"""What a record's names are in French; class names and letters stay as they are."""

TEMPLATES: MappingProxyType[str, str] = MappingProxyType(
    {
        "en": """\
Trained on synthetic phantoms: a demonstration, not for clinical use.

# {title} (`{model}`), version {version}

En français : `card.fr.md`.

## Model details

A convolutional network of {parameters} parameters: strided convolutions with batch normalisation, average
pooling, a linear head. Apache-2.0. Weights: `{weights}`.
Task: {task}; classes {labels}.

{score}

## HL7 model card

In the terms of the logical model ModelCard of HL7's *AI Transparency on FHIR*.

| element | value |
|---|---|
| id | `{model}-{version}` |
| name | {title}, version {version} |
| description | Convolutional network, {parameters} parameters, trained from nothing on {training} phantoms |
| type | supervised learning; convolutional neural network; image |
| input | {input}, 8-bit RGB |
| output | {output}; classes {labels}, or Indeterminate |
| algorithm | deterministic: the same image has the same answer |
| working memory | none: nothing is kept between images |
| licence | Apache-2.0 |

## Intended use

{purpose}
Users: engineers who try, test or operate HealthGuard. Out of scope: every decision about a person.

## Factors

{factors}

## Metrics

Each figure is of {test} test phantoms, with its 95 % bootstrap interval in brackets.

| figure | value |
|---|---|
{figures}

Logistic regression asked the same question, fitted to the training phantoms, to show that the answer is not in the
colours (AUC; the best of three penalties, and of the thresholds the one that it tells best):

| it sees | AUC |
|---|---|
{baselines}

## Calibration

One half of the validation phantoms was calibrated by the other. The best but isotonic, which would need
a table, is what the graph holds (divisor {temperature}); reliability is drawn in `reliability.png`.

| calibration | expected calibration error, 15 bins |
|---|---|
{calibration}

## Preprocessing

Decode to 8-bit RGB. Resize to {side} by {side} without keeping the aspect ratio, by OpenCV's INTER_AREA where the
image shrinks and INTER_LINEAR where it grows. The network takes these bytes; scaling is in the graph.

## Out of distribution

Two distances after Mahalanobis from the training phantoms, each to the nearest of their modes: of the image's surface
(colours of a layout, sharpness and direction of edges at three scales), and of mean and spread of every channel of
every layer. The larger counts, and above {limit} the answer is *Indeterminate*: the limit refuses 1 % of the
validation phantoms. Share that it refused of others:

| images | number | refused |
|---|---|---|
{refused}

A photograph of the right kind but of poor quality may still pass; so may a real mammogram or eyelid, for which the
figures above say nothing.

## Training data

{training} phantoms of version {phantoms}, seed {seed}. {data}

## Evaluation data

{validation} validation phantoms, on which temperature, limit and confidence were fitted, and {test} test phantoms for
the figures above. The three sets are drawn by the same program from different seeds and share no image.

## Quantitative analyses

Share of test phantoms whose class was right, by subgroup:

| factor | subgroup | right | phantoms |
|---|---|---|---|
{subgroups}

{int8}## Ethical considerations

No image of a person was used. A demonstration that answers like a medical device may be taken for one: every contract
carries `"demonstration": true`, and interfaces must show it.

## Caveats and recommendations

{limits}
The golden cases of this version were chosen because the model answers them rightly; they test servers, not accuracy.
""",
        "fr": """\
Entraîné sur des fantômes synthétiques : une démonstration, pas d'usage clinique.

# {title} (`{model}`), version {version}

In English: `card.md`.

## Détails du modèle

Un réseau de convolution de {parameters} paramètres : convolutions à pas, normalisation par lots, moyenne spatiale,
tête linéaire. Apache-2.0. Poids : `{weights}`.
Tâche : {task} ; classes {labels}.

{score}

## Carte de modèle HL7

Dans les termes du modèle logique ModelCard de *AI Transparency on FHIR* (HL7).

| élément | valeur |
|---|---|
| id | `{model}-{version}` |
| name | {title}, version {version} |
| description | Réseau de convolution, {parameters} paramètres, entraîné depuis zéro sur {training} fantômes |
| type | apprentissage supervisé ; réseau de neurones à convolution ; image |
| entrée | {input}, RVB 8 bits |
| sortie | {output} ; classes {labels}, ou Indeterminate |
| algorithme | déterministe : même image, même réponse |
| mémoire de travail | aucune : rien n'est gardé d'une image à l'autre |
| licence | Apache-2.0 |

## Usage prévu

{purpose}
Utilisateurs : les ingénieurs qui essaient, testent ou exploitent HealthGuard. Exclu : toute décision sur une personne.

## Facteurs

{factors}

## Métriques

Chaque chiffre porte sur {test} fantômes de test, avec son intervalle à 95 % par rééchantillonnage.

| mesure | valeur |
|---|---|
{figures}

La même question posée à une régression logistique ajustée sur les fantômes d'entraînement, pour montrer que la
réponse n'est pas dans les couleurs (aire sous la courbe ; la meilleure de trois pénalités, au seuil qui lui convient
le mieux) :

| elle voit | aire |
|---|---|
{baselines}

## Calibration

Une moitié des fantômes de validation a été calibrée par l'autre. La meilleure hormis l'isotonique, qui
demanderait une table, est ce que contient le graphe (diviseur {temperature}) ; voir `reliability.png`.

| calibration | erreur de calibration attendue, 15 classes |
|---|---|
{calibration}

## Prétraitement

Décoder en RVB 8 bits. Redimensionner à {side} par {side} sans garder les proportions, par INTER_AREA d'OpenCV si
l'image rétrécit et INTER_LINEAR si elle grandit. Le réseau prend ces octets ; la mise à l'échelle est dans le graphe.

## Hors distribution

Deux distances de Mahalanobis aux fantômes d'entraînement, chacune au plus proche de leurs modes : celle de la surface
de l'image (couleurs d'une grille, netteté et direction des contours à trois échelles), et celle de la moyenne et de
l'étendue de chaque canal de chaque couche. La plus grande compte, et au-dessus de {limit} la réponse est
*Indeterminate* : la limite refuse 1 % des fantômes de validation. Part refusée d'autres images :

| images | nombre | refusées |
|---|---|---|
{refused}

Une photographie du bon genre mais de mauvaise qualité peut passer ; une vraie mammographie ou paupière aussi, dont les
chiffres ci-dessus ne disent rien.

## Données d'entraînement

{training} fantômes de la version {phantoms}, graine {seed}. {data}

## Données d'évaluation

{validation} fantômes de validation, sur lesquels température, limite et confiance ont été ajustées, et {test} fantômes
de test pour les chiffres ci-dessus. Les trois lots viennent du même programme, de graines différentes, sans image
commune.

## Analyses quantitatives

Part des fantômes de test dont la classe était juste, par sous-groupe :

| facteur | sous-groupe | juste | fantômes |
|---|---|---|---|
{subgroups}

{int8}## Considérations éthiques

Aucune image d'une personne n'a servi. Une démonstration qui répond comme un dispositif médical peut être prise pour
tel : chaque contrat porte `"demonstration": true`, et les interfaces doivent le montrer.

## Réserves et recommandations

{limits}
Les cas de référence de cette version ont été choisis parce que le modèle y répond juste ; ils testent les serveurs, pas
l'exactitude.
""",
    }
)

INT8: MappingProxyType[str, str] = MappingProxyType(
    {
        "en": """\
## The LiteRT file in 8 bits

`model.tflite` holds the kernels of its convolutions as int8; `saved_model.pb` is float, and so is the model of all
figures above. What that costs, measured at export; milliseconds are for one image on one thread of that machine:

| `model.tflite` | float | 8 bits |
|---|---|---|
| bytes | {size} |
| milliseconds | {taken} |

| largest difference from float, {cases} golden cases | measured | allowed |
|---|---|---|
{differences}

The golden cases hold the answers of the 8-bit file, within {tolerance}, so that both files pass them.

""",
        "fr": """\
## Le fichier LiteRT en 8 bits

`model.tflite` contient les noyaux de ses convolutions en int8 ; `saved_model.pb` est en flottants, comme le modèle de
tous les chiffres ci-dessus. Ce que cela coûte, mesuré à l'export ; les millisecondes valent pour une image sur un fil
d'exécution de cette machine :

| `model.tflite` | flottants | 8 bits |
|---|---|---|
| octets | {size} |
| millisecondes | {taken} |

| plus grand écart aux flottants, {cases} cas de référence | mesuré | permis |
|---|---|---|
{differences}

Les cas de référence contiennent les réponses du fichier en 8 bits, à {tolerance} près, pour que les deux fichiers les
passent.

""",
    }
)
"""The section of versions whose LiteRT file was exported in 8 bits."""
