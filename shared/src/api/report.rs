//! A reconciliation as an accountant reads it: sums side by side, then what does not meet. As a page
//! without scripts, and as a table for a spreadsheet.

use crate::engine::reconcile::Reconciliation;
use crate::oauth::connection::Connection;
use crate::portal::{self, escape};
use crate::sync::reconcile::{Decided, Difference, Side, Sum};

pub struct Report<'a> {
    pub title: &'a str,
    pub connection: &'a Connection,
    pub reconciliation: &'a Reconciliation,
    pub sums: &'a [Sum],
    pub differences: &'a [Difference],
    /// Whether there is more than is shown.
    pub more: bool,
}

const HEADS: [&str; 17] = [
    "row",
    "day",
    "currency",
    "type",
    "class",
    "record",
    "document",
    "number",
    "our_count",
    "our_total",
    "their_count",
    "their_total",
    "others_count",
    "others_total",
    "decided",
    "detail",
    "records_behind",
];

const CUT: &str = "There is more than fits here; reconcile fewer days at once to see all of it.";

/// Text as a field of a spreadsheet. What a spreadsheet would take for a formula stands behind an
/// apostrophe (OWASP, CSV Injection).
fn field(text: &str) -> String {
    let formula = text.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']);
    let text = if formula {
        format!("'{text}")
    } else {
        text.to_owned()
    };
    // RFC 4180 §2.
    if text.contains(['"', ',', '\n', '\r']) {
        return format!("\"{}\"", text.replace('"', "\"\""));
    }
    text
}

/// How many records stand behind daily summaries, where there are any.
fn behind(count: u64) -> String {
    match count {
        0 => String::new(),
        count => count.to_string(),
    }
}

fn decided(one: &Difference) -> &'static str {
    match one.decided {
        Decided::Open => "open",
        Decided::Sent => "sent again",
        Decided::Accepted => "accepted",
    }
}

fn total(side: Option<&Side>) -> String {
    side.map(|side| side.total.to_string()).unwrap_or_default()
}

fn record(one: &Difference) -> String {
    one.record
        .as_ref()
        .map(|row| row.id.replace('~', "/"))
        .unwrap_or_default()
}

impl Report<'_> {
    fn heading(&self) -> String {
        let (from, to) = (self.reconciliation.from, self.reconciliation.to);
        format!("Reconciliation with {}, {from} to {to}", self.title)
    }

    pub fn csv(&self) -> String {
        let mut lines = vec![HEADS.map(str::to_owned).to_vec()];
        for sum in self.sums {
            // Amounts are numbers and stay numbers.
            lines.push(vec![
                "sum".to_owned(),
                sum.day.to_string(),
                field(&sum.currency),
                sum.kind.as_str().to_owned(),
                String::new(),
                String::new(),
                String::new(),
                String::new(),
                sum.ours.count.to_string(),
                sum.ours.total.to_string(),
                sum.theirs.count.to_string(),
                sum.theirs.total.to_string(),
                sum.not_ours.count.to_string(),
                sum.not_ours.total.to_string(),
                String::new(),
                String::new(),
                behind(sum.behind),
            ]);
        }
        for one in self.differences {
            let side = one.ours.as_ref().or(one.theirs.as_ref());
            let remote = one.remote.as_ref();
            lines.push(vec![
                "difference".to_owned(),
                one.day.to_string(),
                field(side.map(|side| side.currency.as_str()).unwrap_or_default()),
                one.kind.as_str().to_owned(),
                one.class.as_str().to_owned(),
                field(&record(one)),
                field(remote.map(|remote| remote.id.as_str()).unwrap_or_default()),
                field(
                    remote
                        .and_then(|remote| remote.number.as_deref())
                        .unwrap_or_default(),
                ),
                String::new(),
                total(one.ours.as_ref()),
                String::new(),
                total(one.theirs.as_ref()),
                String::new(),
                String::new(),
                decided(one).to_owned(),
                field(&one.detail),
                behind(one.behind.unwrap_or_default()),
            ]);
        }
        if self.more {
            let mut line = vec![String::new(); HEADS.len()];
            line[0] = "more".to_owned();
            line[HEADS.len() - 2] = field(CUT);
            lines.push(line);
        }
        let lines = lines.into_iter().map(|line| line.join(",") + "\r\n");
        lines.collect()
    }

    pub fn html(&self) -> String {
        let title = escape(&self.heading());
        let mut body = format!(
            "<h1>{title}</h1><p>{} (connection {}). {} documents of the shop, {} in the books; \
             compared from {} to {} UTC.</p>",
            escape(self.connection.label()),
            escape(self.connection.id.as_str()),
            self.reconciliation.ours,
            self.reconciliation.theirs,
            self.reconciliation.started_at.format("%Y-%m-%d %H:%M"),
            self.reconciliation.updated_at.format("%Y-%m-%d %H:%M"),
        );
        if self.reconciliation.under_way > 0 {
            body.push_str(&format!(
                "<p>{} documents were on their way, of which nothing is said here.</p>",
                self.reconciliation.under_way
            ));
        }
        body.push_str("<h2>Differences</h2>");
        match self.differences {
            [] => body.push_str("<p>None.</p>"),
            all => {
                body.push_str(&row(
                    "<table>",
                    "th",
                    &[
                        "Day", "What", "Type", "Record", "Document", "Shop", "Books", "State",
                        "Why",
                    ],
                ));
                for one in all {
                    let remote = one.remote.as_ref();
                    let number = remote.and_then(|remote| remote.number.clone());
                    let document = number.or(remote.map(|remote| remote.id.clone()));
                    body.push_str(&row(
                        "",
                        "td",
                        &[
                            &one.day.to_string(),
                            &one.class.as_str().replace('_', " "),
                            &one.kind.as_str().replace('_', " "),
                            &record(one),
                            &document.unwrap_or_default(),
                            &shown(one.ours.as_ref()),
                            &shown(one.theirs.as_ref()),
                            decided(one),
                            &one.detail,
                        ],
                    ));
                }
                body.push_str("</table>");
            }
        }
        body.push_str("<h2>Sums</h2>");
        let heads = [
            "Day",
            "Type",
            "Currency",
            "Shop",
            "Shop's total",
            "Books",
            "Books' total",
            "Others",
            "Others' total",
        ];
        body.push_str(&row("<table>", "th", &heads));
        for sum in self.sums {
            body.push_str(&row(
                "",
                "td",
                &[
                    &sum.day.to_string(),
                    &sum.kind.as_str().replace('_', " "),
                    &sum.currency,
                    &sum.ours.count.to_string(),
                    &sum.ours.total.to_string(),
                    &sum.theirs.count.to_string(),
                    &sum.theirs.total.to_string(),
                    &sum.not_ours.count.to_string(),
                    &sum.not_ours.total.to_string(),
                ],
            ));
        }
        body.push_str("</table>");
        if self.more {
            body.push_str(&format!("<p>{}</p>", escape(CUT)));
        }
        portal::page(&title, "75rem;margin:2rem auto", &body)
    }
}

fn shown(side: Option<&Side>) -> String {
    side.map(|side| format!("{} {}, {}", side.total, side.currency, side.day))
        .unwrap_or_default()
}

fn row(before: &str, tag: &str, cells: &[&str]) -> String {
    let cells = cells
        .iter()
        .map(|cell| format!("<{tag}>{}</{tag}>", escape(cell)));
    format!("{before}<tr>{}</tr>", cells.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::field;

    #[test]
    fn no_field_is_a_formula_and_none_breaks_out() {
        for (text, expected) in [
            ("=1+1", "'=1+1"),
            ("+1", "'+1"),
            ("-1", "'-1"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("\t=1", "'\t=1"),
            (
                "=HYPERLINK(\"http://x\",\"y\")",
                "\"'=HYPERLINK(\"\"http://x\"\",\"\"y\"\")\"",
            ),
            ("a,b", "\"a,b\""),
            ("two\nlines", "\"two\nlines\""),
            ("1001", "1001"),
            ("", ""),
        ] {
            assert_eq!(field(text), expected);
        }
    }
}
