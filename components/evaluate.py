"""Dataset and checkpoint in, report out."""

from typing import Any

from kfp import dsl
from kfp.dsl import HTML, Artifact, ClassificationMetrics, Dataset, Input, Metrics, Model, Output

from boatyard.components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def evaluate(
    evaluate: dict[str, Any],
    dataset: Input[Dataset],
    checkpoint: Input[Model],
    report: Output[Artifact],
    page: Output[HTML],
    metrics: Output[Metrics],
    classification: Output[ClassificationMetrics],
    numbers: Output[Artifact],
) -> None:
    """Measure the exported graph on the test split, with the engine that serves.

    Args:
        evaluate: The section evaluate; {} is all of its defaults.
        dataset: The dataset that the checkpoint was trained on: another is refused.
        checkpoint: What train left.
        report: Metrics with intervals, predictions, page.
        page: The report as one self-contained HTML page.
        metrics: Metrics on the test split, with the ends of their intervals.
        classification: Confusion matrix, and the ROC curve of a two-class model.
        numbers: The metrics as JSON.
    """
    import shutil

    from boatyard import stages

    result = stages.evaluate(evaluate, dataset.path, checkpoint.path, report.path, numbers.path)
    shutil.copyfile(f"{report.path}/report.html", page.path)
    for name, value in result.numbers().items():
        metrics.log_metric(name, value)
    if confusion := result.confusion:
        classification.log_confusion_matrix(*confusion)
    if roc := result.roc():
        classification.log_roc_curve(*roc)
