"""The weight-shared supernet, subnets cut from it, BN recalibration."""

from ofa_deploy.supernet.ensemble import (
    Ensemble,
    EnsembleFile,
    load_ensemble,
    load_members,
    save_ensemble,
    stored_bytes,
)
from ofa_deploy.supernet.evaluate import batches, cut, resized, standardised, to_tensor, top1
from ofa_deploy.supernet.folding import folded_weights
from ofa_deploy.supernet.modules import channels_last
from ofa_deploy.supernet.published import (
    load_checkpoint,
    load_published_weights,
    read_checkpoint,
)
from ofa_deploy.supernet.published_predictor import import_accuracy_model
from ofa_deploy.supernet.recalibration import recalibrate
from ofa_deploy.supernet.storage import (
    SubnetFile,
    check_amount,
    check_archive,
    load_subnet,
    load_tensors,
    load_weights,
    save_subnet,
    save_tensors,
)
from ofa_deploy.supernet.supernet import Subnet, Supernet, check_size

__all__ = [
    "Ensemble",
    "EnsembleFile",
    "Subnet",
    "SubnetFile",
    "Supernet",
    "batches",
    "channels_last",
    "check_amount",
    "check_archive",
    "check_size",
    "cut",
    "folded_weights",
    "import_accuracy_model",
    "load_checkpoint",
    "load_ensemble",
    "load_members",
    "load_published_weights",
    "load_subnet",
    "load_tensors",
    "load_weights",
    "read_checkpoint",
    "recalibrate",
    "resized",
    "save_ensemble",
    "save_subnet",
    "save_tensors",
    "standardised",
    "stored_bytes",
    "to_tensor",
    "top1",
]
