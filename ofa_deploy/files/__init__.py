"""The one way in which files are written, read, locked and cleared away."""

from ofa_deploy.files.journal import Journal
from ofa_deploy.files.leftovers import abandoned, held_file, held_folder, scratch, temporary_folder
from ofa_deploy.files.locks import exclusive
from ofa_deploy.files.reading import (
    digest,
    read_bytes,
    read_head,
    read_json,
    read_model,
    read_toml,
    sha256_file,
)
from ofa_deploy.files.shipped import shipped
from ofa_deploy.files.storage import disk_full, storage_errors
from ofa_deploy.files.writing import (
    make_folder,
    move_folder,
    write_bytes,
    write_json,
    write_model,
    write_text,
    write_with,
)

__all__ = [
    "Journal",
    "abandoned",
    "digest",
    "disk_full",
    "exclusive",
    "held_file",
    "held_folder",
    "make_folder",
    "move_folder",
    "read_bytes",
    "read_head",
    "read_json",
    "read_model",
    "read_toml",
    "scratch",
    "sha256_file",
    "shipped",
    "storage_errors",
    "temporary_folder",
    "write_bytes",
    "write_json",
    "write_model",
    "write_text",
    "write_with",
]
