"""Writes files completely or not at all, and only over files of the same kind; reads JSON of unknown origin."""

from transpike.files.changes import Change, claim, hold, make_folder, reading, settle
from transpike.files.json import JSON, dumps, plain, read_json, read_text
from transpike.files.kinds import Kind, json_kind, marked, safetensors_kind, tensors, zip_kind
from transpike.files.partial import explained, release
from transpike.files.record import Record
from transpike.files.writing import check_target, csv_table, write, write_csv, write_json

__all__ = [
    "JSON",
    "Change",
    "Kind",
    "Record",
    "check_target",
    "claim",
    "csv_table",
    "dumps",
    "explained",
    "hold",
    "json_kind",
    "make_folder",
    "marked",
    "plain",
    "read_json",
    "read_text",
    "reading",
    "release",
    "safetensors_kind",
    "settle",
    "tensors",
    "write",
    "write_csv",
    "write_json",
    "zip_kind",
]
