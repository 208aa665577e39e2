"""The API's own document, judged by a validator that others publish."""

import json

from conftest import ROOT
from openapi_spec_validator import OpenAPIV31SpecValidator


def test_the_document_is_openapi_3_1():
    document = json.loads((ROOT / "docs/openapi.json").read_text())
    assert document["openapi"].startswith("3.1.")
    faults = [
        f"{'/'.join(map(str, fault.absolute_path))}: {fault.message}"
        for fault in OpenAPIV31SpecValidator(document).iter_errors()
    ]
    assert faults == []


def test_the_validator_sees_what_is_wrong():
    document = json.loads((ROOT / "docs/openapi.json").read_text())
    operation = document["paths"]["/api/v1/merchants/{merchant_id}"]["get"]
    operation["parameters"] = []
    assert list(OpenAPIV31SpecValidator(document).iter_errors())
    del operation["responses"]
    assert list(OpenAPIV31SpecValidator(document).iter_errors())
