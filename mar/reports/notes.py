"""What to know before quoting a figure of an ablation: the same lines under every form of the table."""

from __future__ import annotations

from collections import Counter

from mar.experiments.grid import ORDERS
from mar.experiments.result import MEANINGS, AblationResult
from mar.experiments.ties import nll_ties
from mar.reports.matched import matched_notes
from mar.reports.published import published_notes
from mar.reports.ties import tie_note


def notes_of(result: AblationResult) -> list[str]:
    """A line for each thing that the table shows."""
    notes = [*_model_notes(result), *matched_notes(result), *result.grid.get("notes", ())]
    likelihoods = [row.likelihood for row in result.rows if row.likelihood is not None]
    if likelihoods:
        kinds = ", ".join(sorted({likelihood.kind for likelihood in likelihoods}))
        notes.append(
            f"NLL: {kinds}, on {likelihoods[0].n_images} {result.grid['nll']['split']} images, ± one standard error "
            "over images. Tokens of one set are independent given the past, so fewer steps are a weaker model."
        )
    notes += [*tie_note({"NLL": nll_ties(result)}, "images"), *_difference_notes(result)]
    notes += _image_notes(result)
    notes += [*_speed_notes(result), *_probe_notes(result)]
    notes += published_notes(result)
    if any(row.likelihood is not None for row in result.baselines):
        notes.append("Independent tokens: counts of the training split with add-one smoothing, in closed form.")
    warnings = {warning for likelihood in likelihoods for warning in likelihood.warnings}
    return notes + [f"Warning: {warning}." for warning in sorted(warnings)]


def _model_notes(result: AblationResult) -> list[str]:
    """What was trained, and how its weights were chosen."""
    prints = ", ".join(each[:12] for each in result.data_fingerprint.split(", "))
    data = f"data {result.data} {prints}"
    trained = [model for model in result.models if model.training is not None]
    if not result.axes:
        return [
            f"One model ({model.parameters:,} parameters, {model.training.iterations:,} iterations of "
            f"{model.training.batch_size}, weights {model.weights}) scored under every plan; {data}."
            for model in trained
            if model.training is not None
        ]
    verdicts = Counter(model.training.verdict for model in trained if model.training is not None)
    looks = sorted({len(model.training.validation_nats) for model in trained if model.training is not None}) or [0]
    times = f"{looks[0]}" if looks[0] == looks[-1] else f"{looks[0]} to {looks[-1]}"
    chosen = {
        "best": f"the averaged weights of the lowest of {times} validation losses, evenly spaced over each training",
        "last": "the averaged weights at the end of the training",
    }
    meanings = "; ".join(f"{name}: {meaning}" for name, meaning in MEANINGS.items() if name in verdicts)
    counted = ", ".join(f"{count} {name}" for name, count in verdicts.most_common())
    return [
        f"{len(trained)} models, each trained on its own; {data}. Scored: {chosen[result.grid['select']]}.",
        f"Validation curve, from first (left) to last: {counted}. {meanings[:1].upper()}{meanings[1:]}.",
    ]


def _difference_notes(result: AblationResult) -> list[str]:
    differences = [row.difference for row in result.rows if row.difference is not None]
    if not differences:
        return []
    beside = ", of the same other settings," if result.axes else ""
    trained = "these trained models" if result.axes else "this one trained model"
    trained += " along these orders" if ORDERS in result.ways else ""
    return [
        f"Δ: paired with {result.reference}{beside} on the same images and noise, "
        f"{100 * differences[0].confidence:g} % bootstrap interval over images; p: paired t-test, Holm-corrected over "
        f"{len(differences)} comparisons. They speak of {trained}, not of the spread over training seeds."
    ]


def _speed_notes(result: AblationResult) -> list[str]:
    speeds = [model.speed for model in result.models if model.speed is not None]
    if not speeds:
        return []
    where = " and ".join(sorted({f"{s.device}, {s.threads} thread(s), {s.clock} time" for s in speeds}))
    return [
        f"Costs: batches of {speeds[0].batch}, one model at a time ({where}); training is forward, backward and the "
        "optimiser, generation is along the model's own plan. FLOP: matrix products, convolutions, attention and "
        "recurrent layers, as executed."
    ]


def _probe_notes(result: AblationResult) -> list[str]:
    probes = [row.probe for row in result.rows if row.probe is not None]
    if not probes:
        return []
    return [
        f"Linear probe: accuracy on {probes[0].n_test} test images of logistic regression on the contexts averaged "
        "over the tokens of an image (the number of features is the context width), fitted on "
        f"{probes[0].n_train} training images; no class is told."
    ]


def _image_notes(result: AblationResult) -> list[str]:
    """How the images were scored, and what real images score."""
    scored = [row.images for row in result.rows if row.images is not None]
    if not scored:
        return []
    first, fid = scored[0], result.grid["fid"]
    variants, floor = result.grid.get("variants", ()), first.noise_floor
    changed = any(variant.get(of) is not None for variant in variants for of in ("guidance", "temperature"))
    own = ", where the variant says nothing else" if changed else ""
    notes = [
        f"FID and the rest: {first.generated.n_images} generated images (guidance {fid['guidance']:g}, temperature "
        f"{fid['temperature']:g}{own}) against {first.n_real} {first.split} images, features {first.extractor} of "
        f"width {first.feature_width}, KID subsets of {first.kid_subset_size}. Noise floor ({floor.n_images} real "
        f"{first.noise_floor_split} images, scored alike): FID {floor.fid:.2f}, KID "
        f"{floor.kid_mean:.4f}, IS {floor.inception_score_mean:.2f}, precision {floor.precision:.3f}, recall "
        f"{floor.recall:.3f}."
    ]
    shared = sorted(set.intersection(*(set(images.notes) for images in scored)))
    return notes + [f"{note[0].upper()}{note[1:]}." for note in shared]
