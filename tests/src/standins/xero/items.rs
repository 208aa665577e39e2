//! Items: what lines may refer to by code. Stock is not tracked here.

use serde_json::json;

use super::books::{Books, Mode, Saved, one, set};
use super::state::{Fields, Kind, text};
use super::wire::shown;

pub fn save(books: &mut Books<'_>, sent: &Fields, mode: Mode) -> Saved {
    let code = text(sent, "Code").unwrap_or_default();
    let by_code = || books.shelf(Kind::Item).with("Code", code).next();
    let old = match (mode, text(sent, "ItemID")) {
        (Mode::Upsert, Some(id)) => match books.get(Kind::Item, id) {
            Some(old) => Some(old.clone()),
            None => return Err(vec![format!("No item was found with the ItemID {id}")]),
        },
        (Mode::Upsert, None) => by_code().cloned(),
        (Mode::Create, _) => None,
    };
    let mut wrong = Vec::new();
    let mut value = old.unwrap_or_default();
    for (name, new) in sent {
        value.insert(name.clone(), new.clone());
    }
    if mode == Mode::Create {
        value.remove("ItemID");
    }
    let code = text(&value, "Code").unwrap_or_default().to_owned();
    if code.trim().is_empty() {
        wrong.push("Price List Item Code must be supplied".to_owned());
    }
    let taken = books
        .shelf(Kind::Item)
        .with("Code", &code)
        .any(|other| other.get("ItemID") != value.get("ItemID"));
    if taken {
        wrong.push(format!("Price List Item with Code '{code}' already exists"));
    }
    for side in ["SalesDetails", "PurchaseDetails"] {
        let Some(details) = one(&value, side) else {
            continue;
        };
        if let Some(code) = text(details, "AccountCode")
            && books.account(code).is_none()
        {
            wrong.push(format!(
                "Account code '{code}' is not a valid code for this document."
            ));
        }
        if let Some(tax) = text(details, "TaxType")
            && books.get(Kind::TaxRate, tax).is_none()
        {
            wrong.push(format!(
                "The TaxType code '{tax}' does not exist or cannot be used"
            ));
        }
    }
    if text(&value, "InventoryAssetAccountCode").is_some() {
        wrong.push("Tracked inventory is not switched on".to_owned());
    }
    if !wrong.is_empty() {
        return Err(wrong);
    }
    if !value.contains_key("ItemID") {
        set(&mut value, "ItemID", books.new_id());
    }
    let id = text(&value, "ItemID").unwrap_or_default().to_owned();
    books.put(Kind::Item, value);
    Ok(id)
}

pub fn render(item: &Fields) -> Fields {
    let mut out = shown(item);
    for (name, usual) in [
        ("PurchaseDetails", json!({})),
        ("SalesDetails", json!({})),
        ("IsTrackedAsInventory", json!(false)),
        ("IsSold", json!(true)),
        ("IsPurchased", json!(true)),
    ] {
        out.entry(name).or_insert(usual);
    }
    let code = out["Code"].clone();
    out.entry("Name").or_insert(code);
    out
}
