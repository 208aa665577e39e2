"""The vendor's XML schema, read as the shape of its JSON.

QuickBooks publishes no OpenAPI document; its SDKs are generated from a set of XSD files, and the
JSON on the wire uses the same names. `Schema.load` reads those files and `validate` walks one
JSON entity along them: a name that the type does not have, a value of the wrong simple type, and
one where many are allowed (or the reverse) are errors. The order of fields is free in JSON.

    python schema.py ../shared/specs/quickbooks > compact.json

writes the part that the stand-in carries (see `COMPACT_ROOTS`).
"""

from __future__ import annotations

import datetime
import json
import re
import sys
from decimal import Decimal, InvalidOperation
from pathlib import Path
from xml.etree import ElementTree

XS = "{http://www.w3.org/2001/XMLSchema}"
FILES = ("IntuitBaseTypes.xsd", "IntuitNamesTypes.xsd", "Finance.xsd")
COMPACT_ROOTS = (
    "Customer", "Vendor", "Employee", "Item", "Account", "SalesReceipt", "RefundReceipt",
    "Invoice", "Payment", "CreditMemo", "JournalEntry", "PaymentMethod", "TaxCode", "TaxRate",
    "CompanyInfo", "Preferences",
)  # fmt: skip

# Elements of these types hold whatever Intuit likes; nothing can be said about them.
OPEN_TYPES = {"IntuitAnyType", "IntuitObject"}
INTEGERS = {"int", "integer", "long", "positiveInteger", "nonNegativeInteger", "short"}
STRINGS = {"string", "anyURI", "token", "normalizedString", "base64Binary", "anySimpleType"}


def local(name: str | None) -> str | None:
    return None if name is None else name.rsplit(":", 1)[-1]


class Schema:
    """Types by name: complex ones with their own fields and base, simple ones with their rules."""

    def __init__(self) -> None:
        self.complex: dict[str, dict] = {}
        self.simple: dict[str, dict] = {}
        self.elements: dict[str, str] = {}

    @classmethod
    def load(cls, folder: Path) -> Schema:
        schema = cls()
        for name in FILES:
            root = ElementTree.parse(folder / name).getroot()
            for node in root:
                if node.tag == f"{XS}complexType":
                    schema._complex(node.get("name"), node)
                elif node.tag == f"{XS}simpleType":
                    schema._simple(node.get("name"), node)
                elif node.tag == f"{XS}element" and node.get("type"):
                    schema.elements[node.get("name")] = local(node.get("type"))
        return schema

    def _simple(self, name: str, node) -> str:
        restriction = node.find(f"{XS}restriction")
        rule = {"base": "string"}
        if restriction is not None:
            rule["base"] = local(restriction.get("base")) or "string"
            values = [item.get("value") for item in restriction.findall(f"{XS}enumeration")]
            if values:
                rule["values"] = values
            for facet in ("maxLength", "minLength"):
                found = restriction.find(f"{XS}{facet}")
                if found is not None:
                    rule[facet] = int(found.get("value"))
        self.simple[name] = rule
        return name

    def _complex(self, name: str, node) -> str:
        fields: dict[str, dict] = {}
        base = content = None
        holder = node
        for kind in ("complexContent", "simpleContent"):
            wrapped = node.find(f"{XS}{kind}")
            if wrapped is not None:
                extension = wrapped.find(f"{XS}extension")
                if extension is None:
                    extension = wrapped.find(f"{XS}restriction")
                holder = extension
                if kind == "complexContent":
                    base = local(extension.get("base"))
                else:
                    content = local(extension.get("base"))
        self.complex[name] = {"base": base, "content": content, "fields": fields, "any": False}
        self._particles(name, holder, fields, False)
        for attribute in holder.findall(f"{XS}attribute"):
            if attribute.get("name"):
                fields[attribute.get("name")] = {
                    "type": local(attribute.get("type")) or "string",
                    "many": False,
                    "required": attribute.get("use") == "required",
                }
        return name

    def _particles(self, owner: str, node, fields: dict, optional: bool) -> None:
        for child in node:
            if child.tag in (f"{XS}sequence", f"{XS}all", f"{XS}choice"):
                loose = optional or child.tag == f"{XS}choice" or child.get("minOccurs") == "0"
                self._particles(owner, child, fields, loose)
            elif child.tag == f"{XS}any":
                self.complex[owner]["any"] = True
            elif child.tag == f"{XS}element":
                name = child.get("name") or local(child.get("ref"))
                kind = local(child.get("type"))
                if kind is None and child.get("ref"):
                    kind = "IntuitObject" if name == "IntuitObject" else f"@{name}"
                if kind is None:
                    kind = f"{owner}.{name}"
                    inner = child.find(f"{XS}complexType")
                    if inner is not None:
                        self._complex(kind, inner)
                    else:
                        inner = child.find(f"{XS}simpleType")
                        self._simple(kind, inner) if inner is not None else None
                        if inner is None:
                            kind = "string"
                fields[name] = {
                    "type": kind,
                    "many": child.get("maxOccurs", "1") not in ("0", "1"),
                    "required": child.get("minOccurs", "1") != "0" and not optional,
                }

    def resolve(self, kind: str) -> str:
        return self.elements.get(kind[1:], "string") if kind.startswith("@") else kind

    def fields(self, kind: str) -> dict:
        """All fields of a complex type, its ancestors' first."""
        own = self.complex[kind]
        inherited = self.fields(own["base"]) if own["base"] in self.complex else {}
        merged = {**inherited, **own["fields"]}
        if own["content"] is not None:
            merged["value"] = {"type": own["content"], "many": False, "required": False}
        return merged

    def is_open(self, kind: str) -> bool:
        return kind in OPEN_TYPES or self.complex.get(kind, {}).get("any", False)

    def compact(self, roots=COMPACT_ROOTS) -> dict:
        """The types that the roots reach, flattened, as the stand-in reads them."""
        types: dict[str, dict] = {}
        enums: dict[str, list] = {}
        todo = list(roots)
        while todo:
            kind = todo.pop()
            if kind in types or self.is_open(kind):
                continue
            types[kind] = {}
            for name, field in self.fields(kind).items():
                inner = self.resolve(field["type"])
                if inner in self.complex:
                    todo.append(inner)
                    tag = "any" if self.is_open(inner) else inner
                else:
                    tag, values = self.base(inner)
                    if values:
                        tag = inner
                        enums[inner] = values
                types[kind][name] = f"{tag}*" if field["many"] else tag
        return {
            "source": "Derived by tests/sdk/schema.py from src/XSD of the public repository "
            "intuit/QuickBooks-V3-PHP-SDK at 5bb480b5, Apache-2.0.",
            "enums": dict(sorted(enums.items())),
            "types": dict(sorted(types.items())),
        }

    def base(self, kind: str) -> tuple[str, list | None]:
        """The built-in type below a simple type, and its permitted values if they are listed."""
        values = None
        while kind in self.simple:
            values = values or self.simple[kind].get("values")
            kind = self.simple[kind]["base"]
        if kind in INTEGERS:
            kind = "integer"
        elif kind in ("float", "double"):
            kind = "decimal"
        elif kind in STRINGS:
            kind = "string"
        return kind, values

    def validate(self, entity: str, value) -> list[str]:
        """What is wrong with `value` as an entity of that name; an empty list if nothing is."""
        problems: list[str] = []
        kind = self.elements.get(entity, entity)
        if kind not in self.complex:
            return [f"{entity}: no such type"]
        self._walk(kind, value, entity, problems)
        return problems

    def _walk(self, kind: str, value, path: str, problems: list[str]) -> None:
        kind = self.resolve(kind)
        if self.is_open(kind):
            return
        if kind not in self.complex:
            problem = self._check_simple(kind, value)
            if problem:
                problems.append(f"{path}: {problem}")
            return
        if not isinstance(value, dict):
            problems.append(f"{path}: {kind} must be an object, not {value!r}")
            return
        fields = self.fields(kind)
        for name, item in value.items():
            field = fields.get(name)
            where = f"{path}.{name}"
            if field is None:
                problems.append(f"{where}: {kind} has no such element")
            elif item is None:
                continue
            elif field["many"]:
                if not isinstance(item, list):
                    problems.append(f"{where}: may occur many times, so it must be a list")
                    continue
                for index, one in enumerate(item):
                    self._walk(field["type"], one, f"{where}[{index}]", problems)
            elif isinstance(item, list):
                problems.append(f"{where}: may occur once, so it must not be a list")
            else:
                self._walk(field["type"], item, where, problems)
        for name, field in fields.items():
            if field["required"] and value.get(name) is None:
                problems.append(f"{path}.{name}: is required")

    def _check_simple(self, kind: str, value) -> str | None:
        base, values = self.base(kind)
        if isinstance(value, (dict, list)):
            return f"{kind} must be a plain value, not {value!r}"
        if values is not None and value not in values:
            return f"{value!r} is not one of {kind}"
        if base == "boolean":
            return None if isinstance(value, bool) else f"{value!r} is not a boolean"
        if base in ("decimal", "integer"):
            if isinstance(value, bool) or not isinstance(value, (int, float, Decimal)):
                return f"{value!r} is not a JSON number"
            try:
                number = Decimal(str(value))
            except InvalidOperation:
                return f"{value!r} is not a number"
            if base == "integer" and number != number.to_integral_value():
                return f"{value!r} is not a whole number"
            return None
        if not isinstance(value, str):
            return f"{value!r} is not a string"
        if base == "date":
            try:
                datetime.date.fromisoformat(value)
            except ValueError:
                return f"{value!r} is not a date"
        if base == "dateTime" and not re.fullmatch(
            r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)?", value
        ):
            return f"{value!r} is not a date and time"
        return None


def validate(entity: str, value, folder: Path) -> list[str]:
    """Checks one JSON entity against the XSD files in `folder`."""
    return Schema.load(folder).validate(entity, value)


if __name__ == "__main__":
    json.dump(Schema.load(Path(sys.argv[1])).compact(), sys.stdout, indent=1)
    print()
