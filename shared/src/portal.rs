//! The few pages that a browser may meet here. No script, nothing from elsewhere.

use crate::providers::{KeyField, Manifest};

/// Nothing but the page's own style may load, and no other site may frame it.
pub const CONTENT_SECURITY_POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'";

/// A page with one message: a title and what to do.
pub fn message(title: &str, text: &str) -> String {
    let (title, text) = (escape(title), escape(text));
    page(
        &title,
        "34rem;margin:15vh auto",
        &format!("<h1>{title}</h1><p>{text}</p>"),
    )
}

/// A page on which a merchant pastes keys, for a provider without OAuth. It is posted to `action`, with
/// `state` to tell which start it belongs to.
pub fn keys_form(manifest: &Manifest, fields: &[KeyField], action: &str, state: &str) -> String {
    let title = escape(&format!("Connect {}", manifest.title));
    let mut form = format!(
        "<h1>{title}</h1><form method=\"post\" action=\"{}\">\
         <input type=\"hidden\" name=\"state\" value=\"{}\">",
        escape(action),
        escape(state)
    );
    for field in fields {
        let (name, label, hint) = (escape(field.name), escape(field.label), escape(field.hint));
        let kind = if field.secret { "password" } else { "text" };
        let input = if field.choices.is_empty() {
            format!(
                "<input id=\"{name}\" name=\"{name}\" type=\"{kind}\" autocomplete=\"off\" \
                 spellcheck=\"false\" maxlength=\"500\" required>"
            )
        } else {
            let options = field.choices.iter().map(|choice| {
                let choice = escape(choice);
                format!("<option value=\"{choice}\">{choice}</option>")
            });
            let options: String = options.collect();
            format!("<select id=\"{name}\" name=\"{name}\">{options}</select>")
        };
        form.push_str(&format!(
            "<p><label for=\"{name}\"><b>{label}</b></label><br>{input}<br><small>{hint}</small></p>"
        ));
    }
    form.push_str("<p><button>Connect</button></p></form>");
    page(&title, "34rem;margin:10vh auto", &form)
}

/// A page of ours, written as Markdown: one heading, paragraphs, and tables whose rows are found by
/// the word of their first column (`#not_found`).
pub fn document(markdown: &str) -> String {
    let (mut title, mut body) = (String::new(), String::new());
    let mut lines = markdown.lines().peekable();
    while let Some(line) = lines.next() {
        if let Some(heading) = line.strip_prefix("# ") {
            title = escape(heading);
            body.push_str(&format!("<h1>{title}</h1>"));
        } else if line.starts_with('|') {
            body.push_str(&format!("<table><tr>{}</tr>", cells(line, "th")));
            while let Some(line) = lines.next_if(|line| line.starts_with('|')) {
                let anchor = line.split('`').nth(1).map(escape);
                // The line of dashes under the heads is drawn by the page itself.
                if let Some(anchor) = anchor {
                    body.push_str(&format!("<tr id=\"{anchor}\">{}</tr>", cells(line, "td")));
                }
            }
            body.push_str("</table>");
        } else if !line.is_empty() {
            body.push_str(&format!("<p>{}</p>", inline(line)));
        }
    }
    page(&title, "60rem;margin:4rem auto", &body)
}

/// The cells of one line of a table.
fn cells(line: &str, tag: &str) -> String {
    line.trim_matches('|')
        .split('|')
        .map(|cell| format!("<{tag}>{}</{tag}>", inline(cell.trim())))
        .collect()
}

/// Text in which what stands between backticks is code.
fn inline(text: &str) -> String {
    let parts = text.split('`').enumerate();
    parts
        .map(|(index, part)| match index % 2 {
            0 => escape(part),
            _ => format!("<code>{}</code>", escape(part)),
        })
        .collect()
}

/// Everything around a body that is markup already.
pub fn page(title: &str, width: &str, body: &str) -> String {
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{title}</title>\
         <style>body{{font:1rem/1.5 system-ui,sans-serif;max-width:{width};padding:0 1rem}}\
         table{{border-collapse:collapse}}th,td{{text-align:left;vertical-align:top;\
         padding:.3rem .6rem;border-bottom:1px solid #ccc}}:target{{background:#ffc}}</style>\
         </head><body>{body}</body></html>"
    )
}

/// Text that cannot become markup.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            _ => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_document_shows_its_table_with_an_anchor_for_each_row() {
        let page = super::document(
            "# Title\n\nSome `code` & <more>.\n\n| a | b |\n| --- | --- |\n| `x` | y `z` |\n",
        );
        for part in [
            "<h1>Title</h1><p>Some <code>code</code> &amp; &lt;more&gt;.</p>",
            "<table><tr><th>a</th><th>b</th></tr>\
             <tr id=\"x\"><td><code>x</code></td><td>y <code>z</code></td></tr></table>",
        ] {
            assert!(page.contains(part), "{part} is not in {page}");
        }
    }

    #[test]
    fn text_cannot_become_markup() {
        let page = super::message("a", "<script>alert('x')</script>");
        assert!(!page.contains("<script>"));
    }
}
