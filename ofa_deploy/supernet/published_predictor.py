"""Accuracy predictors that others published, read from their checkpoints."""

from pathlib import Path

from ofa_deploy.errors import FileFormatError, UnknownNameError
from ofa_deploy.predict import AccuracyModel, ofa_mlp
from ofa_deploy.space import SearchSpace
from ofa_deploy.supernet.published import read_checkpoint

__all__ = ["import_accuracy_model"]

_FORMS = {"ofa-mlp": ofa_mlp}


def import_accuracy_model(form: str, path: Path | str, *, space: SearchSpace) -> AccuracyModel:
    """An accuracy model that others published.

    Args:
        form: ``ofa-mlp``, once-for-all's predictor for MobileNetV3 of width 1.2.
        path: its checkpoint, of which nothing is executed.
        space: that it predicts for, with resolutions that it knows.

    Raises:
        UnknownNameError: if there is no such form.
        FileFormatError: if the file is damaged or holds something else.
        MismatchError: if the space is another than the predictor's.
    """
    if form not in _FORMS:
        raise UnknownNameError("form of accuracy predictors", form, _FORMS)
    tensors = read_checkpoint(path)
    arrays = {name: tensor.float().numpy() for name, tensor in tensors.items()}
    try:
        return _FORMS[form](arrays, space, source=f"{form}: {Path(path).name}")
    except FileFormatError as error:
        raise FileFormatError(f"{path}: {error}") from None
