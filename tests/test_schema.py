"""The published schemas: in step with the types, and obeyed by every report."""

import os

import jsonschema_rs
import msgspec
import pytest
from cli import kubeposture

from scanner.cli.catalogue import catalogue
from scanner.report import schema
from scanner.report.to_json import Report


@pytest.mark.parametrize("name", [schema.REPORT, schema.CONFIG])
def test_published_file_is_what_the_types_say(name):
    wanted = schema.files(catalogue())[name]
    path = schema.FOLDER / name
    if os.environ.get("UPDATE_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(wanted)
    assert path.read_bytes() == wanted, "run UPDATE_GOLDEN=1 pytest and review the diff"


@pytest.mark.parametrize("name", [schema.REPORT, schema.CONFIG])
def test_published_file_is_a_schema(name):
    jsonschema_rs.meta.validate(msgspec.json.decode((schema.FOLDER / name).read_bytes()))


def test_unknown_field_makes_a_report_invalid():
    validator = jsonschema_rs.validator_for(schema.report_schema())
    assert not validator.is_valid({"schema_version": "1.0", "surprise": 1})


def test_report_is_the_published_type_field_for_field():
    written = kubeposture("demo", "-o", "json", "--status", "all").stdout.encode()
    assert msgspec.json.encode(msgspec.json.decode(written, type=Report)) == msgspec.json.format(written, indent=-1)
